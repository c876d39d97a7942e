"""Anomaly maps of scans in the geometry of the input."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from screener_nnu.detectors.base import Detector, LoadedDetector
from screener_nnu.errors import CaseError
from screener_nnu.files import OutputError, disk_is_full
from screener_nnu.inference.elsewhere import Job
from screener_nnu.inference.images import kind_of
from screener_nnu.inference.map_folder import AnomalyMap, MapFolder
from screener_nnu.inference.output_folder import (
    refuse_folder_of_scans,
    refuse_maps_of_other_kind,
    remove_what_was_being_written,
    taken_names,
)
from screener_nnu.inference.pipeline import (
    Outcome,
    Pipeline,
    attempt,
    memory_budget,
    scan_bytes,
)
from screener_nnu.inference.steps import Steps
from screener_nnu.inference.volume import score_scan
from screener_nnu.map_kind import SCANS
from screener_nnu.ownership import foreign_files, not_ours
from screener_nnu.plans import Plan
from screener_nnu.preprocessing.mapping import mask_to_input_geometry, to_input_geometry
from screener_nnu.preprocessing.prepare import prepare_image
from screener_nnu.preprocessing.reading import RawImage, Source, read_size
from screener_nnu.preprocessing.units import warn_of_full_views
from screener_nnu.workers.crew import current_crew

if TYPE_CHECKING:
    from screener_nnu.outputs.extras import CaseExtras

logger = logging.getLogger(__name__)

# Of a map on disk, packed: half of what its voxels take.
_BYTES_PER_VOXEL = 2


@dataclass(frozen=True)
class Predictor:
    """A trained model and what it needs.

    Attributes:
        scorer: any detector, on the device.
        plan: of the model.
        lowest: score that voxels outside the body get.
        device: of the scorer.
    """

    scorer: Detector
    plan: Plan
    lowest: float
    device: torch.device

    @classmethod
    def of(cls, loaded: LoadedDetector, device: torch.device) -> Predictor:
        """The predictor of a trained detector."""
        return cls(loaded.module, loaded.plan, loaded.map_statistics["lowest"], device)

    def predict(self, raw: RawImage) -> AnomalyMap:
        """The anomaly map of one scan.

        Raises:
            CaseError: the image is none of the kind that the model was trained on, or a score is
                no finite number, so that the map would show nothing true.
        """
        check_colours(raw, self.plan.channels)
        prepared = prepare_image(raw, self.plan.settings.preprocessing)
        body, frame = prepared.body, prepared.frame
        found = score_scan(
            self.scorer, prepared.hu, prepared.equalised, self.plan, self.device, body
        )
        check_scores(found.scores, raw.case)
        score = to_input_geometry(found.scores, frame, self.lowest, body, self.device)
        mask = mask_to_input_geometry(body, frame)
        return AnomalyMap(score, mask, found.vector_scores, found.vector, found.image_scores)


def check_colours(raw: RawImage, channels: int) -> None:
    """Refuses a grey picture for a model of colours, and the reverse.

    Raises:
        CaseError: it is one.
    """
    if raw.colours != channels:
        kinds = {1: "grey", 3: "in colour"}
        raise CaseError(
            raw.case,
            f"it is {kinds[raw.colours]}, and the model was trained on pictures that are "
            f"{kinds[channels]}: convert it",
        )


def check_scores(scores: np.ndarray, case: str) -> None:
    """Refuses scores that are no finite numbers.

    Raises:
        CaseError: there are some.
    """
    bad = int(np.count_nonzero(~np.isfinite(scores)))
    if bad:
        raise CaseError(
            case,
            f"the model gives {bad} of {scores.size} voxels a score that is no finite number: its "
            "weights or the device are at fault; train it anew, or try -device cpu",
        )


def predict_files(
    predictor: Predictor,
    images: Mapping[str, Source],
    output: Path,
    threshold: float | None = None,
    overwrite: bool = False,
    extras: CaseExtras | None = None,
    job: Job | None = None,
) -> dict[str, str]:
    """Writes `<case>.nii.gz` and `<case>_body.nii.gz`, and a mask above a threshold if asked for.

    Those of pictures are `<case>.tif` (float32), `<case>_body.png` and `<case>_mask.png` (0 and 1).
    Maps that are there already are left alone. The next scan is read and the last one written
    while one is computed.

    Args:
        predictor: a trained model.
        images: source of each scan or picture by case name.
        output: folder of the maps.
        threshold: of the mask (nats).
        overwrite: predict again what is there.
        extras: made of each map once it is written, in the writing thread; of a map of an earlier
            run where they are not there yet.
        job: for workers in place of this process, where there are some (see `workers`).

    Returns:
        Why each scan that was skipped has no map, or no extras.

    Raises:
        OutputError: a file cannot be written; what is needed for the rest is said.
        ScreenerError: scans, or maps of the other kind, lie in the folder of the maps.
    """
    kind = kind_of(images)
    refuse_folder_of_scans(images, output)
    refuse_maps_of_other_kind(output, kind)
    remove_what_was_being_written(output)
    maps = MapFolder(output, threshold, extras, kind)
    there, skipped = _sort_out(images, maps, overwrite)
    steps = Steps(predictor, maps, there)
    done = {c for c in there if extras is None or extras.current(c)} | set(skipped)
    wanted = {case: source for case, source in images.items() if case not in done}
    elsewhere = job is not None and current_crew() is not None
    outcomes = job.run(steps, wanted) if job and elsewhere else _pipeline(steps).run(wanted)
    skipped |= _run(outcomes, wanted, len(images), kind.noun)
    if kind == SCANS:  # there is no air around what a picture shows
        warn_of_full_views(steps.body_shares)
    return skipped


def _pipeline(steps: Steps) -> Pipeline[RawImage, AnomalyMap]:
    settings, extras = steps.predictor.plan.settings.preprocessing, steps.maps.extras
    extra_bytes = 0 if extras is None else extras.bytes_per_voxel
    return Pipeline(
        steps.read,
        steps.compute,
        steps.write,
        lambda source: scan_bytes(source, settings, extra_bytes),
        memory_budget(),
    )


def _sort_out(
    images: Mapping[str, Source], maps: MapFolder, overwrite: bool
) -> tuple[set[str], dict[str, str]]:
    """Cases that have a map already, and why cases are skipped, those of unfit maps among them."""
    skipped = taken_names(images, maps.kind)
    there = set()
    for case, source in sorted(images.items()):
        if case in skipped:
            continue
        stranger = foreign_files(maps.files(case))
        if stranger:
            skipped[case] = not_ours(stranger)
        elif not overwrite and maps.path(case).is_file():
            there.add(case)
            reason = attempt(partial(maps.refuse_or_mask, case, source))[1]
            if reason:
                skipped[case] = reason
    for case, reason in sorted(skipped.items()):
        logger.warning("skipped %s: %s", case, reason)
    return there, skipped


def _run(
    outcomes: Iterator[Outcome], wanted: Mapping[str, Source], total: int, noun: str
) -> dict[str, str]:
    """Works all scans off under a bar of `total`; returns why scans were skipped."""
    skipped: dict[str, str] = {}
    left = dict(wanted)
    start = total - len(wanted)
    with tqdm(total=total, initial=start, desc="prediction", unit=noun) as progress:
        try:
            for outcome in outcomes:
                progress.update()
                del left[outcome.case]
                if outcome.reason:
                    skipped[outcome.case] = outcome.reason
                    logger.warning("skipped %s: %s", outcome.case, outcome.reason)
        except OutputError as error:
            if error.__cause__ is None or not disk_is_full(error.__cause__):
                raise
            needed = _BYTES_PER_VOXEL * sum(read_size(source)[0] for source in left.values())
            raise OutputError.of(error.path, error.__cause__, needed) from error
    return skipped
