"""Anomaly maps of scans in the geometry of the input."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from tqdm import tqdm

from screener_nnu.errors import CaseError
from screener_nnu.inference.images import write_image
from screener_nnu.inference.volume import score_map
from screener_nnu.plans import ScreenerSettings
from screener_nnu.preprocessing.mapping import mask_to_input_geometry, to_input_geometry
from screener_nnu.preprocessing.prepare import prepare_image
from screener_nnu.preprocessing.reading import RawImage, Source, read_image
from screener_nnu.scoring.student import Student
from screener_nnu.scoring.teacher import Teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnomalyMap:
    """Map (float32, nats) and body mask (uint8) in the geometry of the scan."""

    score: sitk.Image
    body: sitk.Image


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
        scores = score_map(self.scorer, prepared.hu, prepared.equalised, self.plan, self.device)
        score = to_input_geometry(scores, prepared.frame, self.lowest)
        body = mask_to_input_geometry(prepared.body, prepared.frame)
        values = sitk.GetArrayFromImage(score)
        values[sitk.GetArrayViewFromImage(body) == 0] = self.lowest
        filled = sitk.GetImageFromArray(values.astype(np.float32))
        filled.CopyInformation(score)
        return AnomalyMap(filled, body)


def predict_files(
    predictor: Predictor,
    images: Mapping[str, Source],
    output: Path,
    threshold: float | None = None,
    overwrite: bool = False,
) -> dict[str, str]:
    """Writes `<case>.nii.gz` and `<case>_body.nii.gz`, and a mask above a threshold if asked for.

    Maps that are there already are left alone.

    Returns:
        Why each scan that was skipped has no map.
    """
    output.mkdir(parents=True, exist_ok=True)
    skipped: dict[str, str] = {}
    for case, path in tqdm(images.items(), desc="prediction", unit="scan"):
        target = output / f"{case}.nii.gz"
        if target.is_file() and not overwrite:
            _write_mask(output, case, threshold)
            continue
        try:
            result = predictor.predict(read_image(path, case))
        except CaseError as error:
            skipped[case] = error.reason
            logger.warning("skipped %s: %s", case, error.reason)
            continue
        write_image(result.body, output / f"{case}_body.nii.gz")
        write_image(result.score, target)
        _write_mask(output, case, threshold)
    return skipped


def _write_mask(output: Path, case: str, threshold: float | None) -> None:
    """Voxels of the body above the threshold, from the written map: it may be of an earlier run."""
    if threshold is None:
        return
    score, body = (
        sitk.ReadImage(str(output / f"{name}.nii.gz")) for name in (case, f"{case}_body")
    )
    mask = sitk.Cast(score > threshold, sitk.sitkUInt8) * body
    write_image(mask, output / f"{case}_mask.nii.gz")
