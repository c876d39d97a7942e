"""Anomaly maps of scans in the geometry of the input."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk  # noqa: N813
import torch
from tqdm import tqdm

from screener_nnu.inference.images import write_image
from screener_nnu.inference.pipeline import Pipeline, memory_budget, scan_bytes
from screener_nnu.inference.volume import score_map
from screener_nnu.plans import ScreenerSettings
from screener_nnu.preprocessing.mapping import mask_to_input_geometry, to_input_geometry
from screener_nnu.preprocessing.prepare import prepare_image
from screener_nnu.preprocessing.reading import RawImage, read_image
from screener_nnu.scoring.student import Student
from screener_nnu.scoring.teacher import Teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnomalyMap:
    """Map (float32, nats) and body mask (uint8) in the geometry of the scan."""

    score: sitk.Image
    body: sitk.Image


# Case name, file or folder of the scan, the scan, and its map.
After = Callable[[str, Path, RawImage, AnomalyMap], None]


@dataclass(frozen=True)
class Predictor:
    """A trained model and what it needs.

    Attributes:
        scorer: teacher or student, on the device.
        plan: nnU-Net's plan dictionary of the model.
        lowest: score (nats) that voxels outside the body get.
        device: of the scorer.
    """

    scorer: Teacher | Student
    plan: dict[str, Any]
    lowest: float
    device: torch.device

    def predict(self, raw: RawImage) -> AnomalyMap:
        """The anomaly map of one scan."""
        settings = ScreenerSettings.from_dict(self.plan["screener"]).preprocessing
        prepared = prepare_image(raw, settings)
        body, frame = prepared.body, prepared.frame
        scores = score_map(
            self.scorer, prepared.hu, prepared.equalised, self.plan, self.device, body
        )
        score = to_input_geometry(scores, frame, self.lowest, body, self.device)
        return AnomalyMap(score, mask_to_input_geometry(body, frame))


def predict_files(
    predictor: Predictor,
    images: dict[str, Path],
    output: Path,
    threshold: float | None = None,
    overwrite: bool = False,
    after: After | None = None,
) -> dict[str, str]:
    """Writes `<case>.nii.gz` and `<case>_body.nii.gz`, and a mask above a threshold if asked for.

    Maps that are there already are left alone. The next scan is read and the last one written
    while one is computed.

    Args:
        predictor: a trained model.
        images: file or folder of each scan by case name.
        output: folder of the maps.
        threshold: of the mask (nats).
        overwrite: predict again what is there.
        after: called with case name, path, scan and map of each new map, in the writing thread and
            before the map gets its name, which stands for a finished case. A `ScreenerError` that
            it raises is reported for that case, whose map is then left out.

    Returns:
        Why each scan that was skipped has no map.
    """
    output.mkdir(parents=True, exist_ok=True)
    there = {c for c in images if (output / f"{c}.nii.gz").is_file() and not overwrite}
    for case in there:
        _write_mask(output, case, threshold)

    def write(case: str, path: Path, raw: RawImage, result: AnomalyMap) -> None:
        write_image(result.body, output / f"{case}_body.nii.gz")
        if threshold is not None:
            write_image(_above(result.score, result.body, threshold), _mask_path(output, case))
        if after is not None:
            after(case, path, raw, result)
        write_image(result.score, output / f"{case}.nii.gz")

    settings = ScreenerSettings.from_dict(predictor.plan["screener"]).preprocessing
    pipeline = Pipeline(
        lambda case, path: read_image(path, case),
        predictor.predict,
        write,
        lambda path: scan_bytes(path, settings),
        memory_budget(),
    )
    wanted = {case: path for case, path in images.items() if case not in there}
    skipped: dict[str, str] = {}
    with tqdm(total=len(images), initial=len(there), desc="prediction", unit="scan") as progress:
        for outcome in pipeline.run(wanted):
            progress.update()
            if outcome.reason:
                skipped[outcome.case] = outcome.reason
                logger.warning("skipped %s: %s", outcome.case, outcome.reason)
    return skipped


def _write_mask(output: Path, case: str, threshold: float | None) -> None:
    """The mask of a map of an earlier run."""
    if threshold is None:
        return
    score, body = (
        sitk.ReadImage(str(output / f"{name}.nii.gz")) for name in (case, f"{case}_body")
    )
    write_image(_above(score, body, threshold), _mask_path(output, case))


def _mask_path(output: Path, case: str) -> Path:
    return output / f"{case}_mask.nii.gz"


def _above(score: sitk.Image, body: sitk.Image, threshold: float) -> sitk.Image:
    """Voxels of the body above the threshold, uint8."""
    return sitk.Cast(score > threshold, sitk.sitkUInt8) * body
