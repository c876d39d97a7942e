"""Anomaly maps of scans in the geometry of the input."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from tqdm import tqdm

from screener_nnu.detectors.base import Detector, LoadedDetector
from screener_nnu.errors import CaseError
from screener_nnu.files import OutputError, disk_is_full, remove
from screener_nnu.inference.images import write_image
from screener_nnu.inference.output_folder import (
    refuse_folder_of_scans,
    remove_half_written,
    taken_names,
)
from screener_nnu.inference.pipeline import Pipeline, attempt, memory_budget, scan_bytes
from screener_nnu.inference.source_identity import source_identity
from screener_nnu.inference.volume import score_map
from screener_nnu.ownership import foreign_files, not_ours
from screener_nnu.plans import Plan
from screener_nnu.preprocessing.mapping import mask_to_input_geometry, to_input_geometry
from screener_nnu.preprocessing.prepare import prepare_image
from screener_nnu.preprocessing.reading import RawImage, Source, read_image, read_size
from screener_nnu.preprocessing.units import warn_of_full_views
from screener_nnu.preprocessing.volumes import Geometry, read_volume

logger = logging.getLogger(__name__)

_PLACE = ("spacing", "origin", "direction")
# mm; NIfTI files hold a place in single precision.
_CLOSE = 0.01
# Of a map on disk: the scores of the body as they are, half of a scan.
_BYTES_PER_VOXEL = 2


@dataclass(frozen=True)
class AnomalyMap:
    """Map (float32, nats) and body mask (uint8) in the geometry of the scan."""

    score: sitk.Image
    body: sitk.Image


class Extras(Protocol):
    """What is made of a scan and its map beside the map; see `outputs.extras.CaseExtras`.

    Attributes:
        bytes_per_voxel: memory that it takes to make it.
    """

    bytes_per_voxel: int

    def files(self, case: str) -> list[Path]:
        """Every file that may be made of a case."""

    def foreign(self, case: str, identity: str) -> str:
        """Why the map that is there is not the one that is asked for; empty where it is.

        Args:
            case: its name.
            identity: of the scan, see `source_identity`.
        """

    def current(self, case: str) -> bool:
        """Whether all of it is there already."""

    def forget(self, case: str) -> None:
        """Removes all of it: the map that it was made of is about to be replaced."""

    def begin(self, case: str, identity: str) -> None:
        """Notes what the map is made by and of, before it is there."""

    def write(self, case: str, raw: RawImage, result: AnomalyMap) -> None:
        """Makes it; what fails is noted, and costs neither the map nor the other scans."""


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
        return cls(loaded.module, loaded.plan, loaded.statistics["lowest"], device)

    def predict(self, raw: RawImage) -> AnomalyMap:
        """The anomaly map of one scan.

        Raises:
            CaseError: a score is no finite number, so that the map would show nothing true.
        """
        prepared = prepare_image(raw, self.plan.settings.preprocessing)
        body, frame = prepared.body, prepared.frame
        scores = score_map(
            self.scorer, prepared.hu, prepared.equalised, self.plan, self.device, body
        )
        check_scores(scores, raw.case)
        score = to_input_geometry(scores, frame, self.lowest, body, self.device)
        return AnomalyMap(score, mask_to_input_geometry(body, frame))


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
    extras: Extras | None = None,
) -> dict[str, str]:
    """Writes `<case>.nii.gz` and `<case>_body.nii.gz`, and a mask above a threshold if asked for.

    Maps that are there already are left alone. The next scan is read and the last one written
    while one is computed.

    Args:
        predictor: a trained model.
        images: source of each scan by case name.
        output: folder of the maps.
        threshold: of the mask (nats).
        overwrite: predict again what is there.
        extras: made of each map once it is written, in the writing thread; of a map of an earlier
            run where they are not there yet.

    Returns:
        Why each scan that was skipped has no map, or no extras.

    Raises:
        OutputError: a file cannot be written; what is needed for the rest is said.
        ScreenerError: scans lie in the folder of the maps.
    """
    refuse_folder_of_scans(images, output)
    remove_half_written(output)
    skipped = taken_names(images)
    there = set()
    for case, source in sorted(images.items()):
        if case in skipped:
            continue
        stranger = foreign_files(_files(output, case, extras))
        if stranger:
            skipped[case] = not_ours(stranger)
        elif not overwrite and (output / f"{case}.nii.gz").is_file():
            there.add(case)
            reason = attempt(partial(_refuse_or_mask, output, case, source, threshold, extras))[1]
            if reason:
                skipped[case] = reason
    for case, reason in sorted(skipped.items()):
        logger.warning("skipped %s: %s", case, reason)
    body_shares: dict[str, float] = {}
    done = {c for c in there if extras is None or extras.current(c)} | set(skipped)

    def compute(raw: RawImage) -> AnomalyMap:
        if raw.case in there:
            return _stored_of(raw, output)
        result = predictor.predict(raw)
        body_shares[raw.case] = float(sitk.GetArrayViewFromImage(result.body).mean())
        return result

    def write(case: str, source: Source, raw: RawImage, result: AnomalyMap) -> None:
        if case not in there:
            # Killed half-way, nothing old may stand beside what is new.
            remove(output / f"{case}.nii.gz")
            if extras is not None:
                extras.forget(case)
                extras.begin(case, source_identity(source))
            write_image(result.body, output / f"{case}_body.nii.gz")
            if threshold is not None:
                write_image(_above(result.score, result.body, threshold), _mask_path(output, case))
            # Last of the three: it stands for a finished case.
            write_image(result.score, output / f"{case}.nii.gz")
        if extras is not None:
            extras.write(case, raw, result)

    settings = predictor.plan.settings.preprocessing
    extra_bytes = 0 if extras is None else extras.bytes_per_voxel
    pipeline = Pipeline(
        lambda case, source: read_image(source, case),
        compute,
        write,
        lambda source: scan_bytes(source, settings, extra_bytes),
        memory_budget(),
    )
    wanted = {case: source for case, source in images.items() if case not in done}
    left = dict(wanted)
    with tqdm(total=len(images), initial=len(done), desc="prediction", unit="scan") as progress:
        try:
            for outcome in pipeline.run(wanted):
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
    warn_of_full_views(body_shares)
    return skipped


def _files(output: Path, case: str, extras: Extras | None) -> list[Path]:
    """Every file that may be written or removed for a case."""
    maps = [output / f"{case}.nii.gz", output / f"{case}_body.nii.gz", _mask_path(output, case)]
    return list(dict.fromkeys(maps + (extras.files(case) if extras is not None else [])))


def _stored(output: Path, case: str) -> AnomalyMap:
    """The map of an earlier run.

    Raises:
        CaseError: it cannot be read.
    """
    try:
        score, body = (
            read_volume(output / f"{name}.nii.gz", case) for name in (case, f"{case}_body")
        )
    except CaseError as error:
        raise CaseError(
            case, f"its map of an earlier run cannot be used; add --overwrite ({error.reason})"
        ) from error
    return AnomalyMap(score, body)


def _stored_of(raw: RawImage, output: Path) -> AnomalyMap:
    """The map of an earlier run, which has to lie where the scan does.

    Raises:
        CaseError: it cannot be read, or is that of another scan.
    """
    stored = _stored(output, raw.case)
    found, expected = Geometry.of_image(stored.score), raw.geometry
    close = (
        np.allclose(getattr(found, name), getattr(expected, name), atol=_CLOSE) for name in _PLACE
    )
    if found.size != expected.size or not all(close):
        raise CaseError(
            raw.case,
            "the map that is there is that of another scan: add --overwrite, or give another -o",
        )
    return stored


def _refuse_or_mask(
    output: Path, case: str, source: Source, threshold: float | None, extras: Extras | None
) -> None:
    """Refuses the map of an earlier run if it is not the one asked for; writes its mask."""
    foreign = extras.foreign(case, source_identity(source)) if extras else ""
    if foreign:
        raise CaseError(case, foreign)
    if threshold is not None:
        stored = _stored(output, case)
        write_image(_above(stored.score, stored.body, threshold), _mask_path(output, case))


def _mask_path(output: Path, case: str) -> Path:
    return output / f"{case}_mask.nii.gz"


def _above(score: sitk.Image, body: sitk.Image, threshold: float) -> sitk.Image:
    """Voxels of the body above the threshold, uint8."""
    return sitk.Cast(score > threshold, sitk.sitkUInt8) * body
