"""Maps of scans as prediction makes them: in the geometry of the input, with the body's mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.typing import NDArray

from screener_nnu.detectors import ModelRef
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.inference.images import find_images, find_pictures, kind_of
from screener_nnu.inference.predict import AnomalyMap, Predictor
from screener_nnu.inference.volume import score_map
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.preprocessing.image_files import is_volume
from screener_nnu.preprocessing.mapping import mask_to_input_geometry, to_input_geometry
from screener_nnu.preprocessing.reading import Source, read_image
from screener_nnu.preprocessing.volumes import Geometry, read_labels


@dataclass(frozen=True)
class ScoredScan:
    """A map and the body, (z, y, x) of the input.

    Attributes:
        score: nats, float32.
        body: voxels of the body.
        voxel_ml: volume of a voxel (ml).
        annotated: voxels of pathology; None without annotation.
    """

    score: NDArray[np.float32]
    body: NDArray[np.bool_]
    voxel_ml: float
    annotated: NDArray[np.bool_] | None = None

    def in_body(self, case: str) -> NDArray[np.float32]:
        """The scores of the body `(n,)`.

        Raises:
            CaseError: no body, scores that are no finite numbers, or one score everywhere.
        """
        scores = self.score[self.body]
        if scores.size < 2:
            raise CaseError(case, "the scan has no body: leave it out")
        if not np.isfinite(scores).all():
            raise CaseError(
                case, "its map holds NaN or infinite scores: train the model anew, or leave it out"
            )
        if scores.min() == scores.max():
            raise CaseError(
                case, f"every voxel of the body has the same score ({scores[0]:.4g} nats)"
            )
        return scores


ScanSource = dict[str, Callable[[], ScoredScan]]
"""How to get each scan, by name; nothing is read before it is called."""


def load_predictor(model: ModelRef, device: torch.device) -> tuple[Predictor, float]:
    """A trained model, as `screener_predict` loads it, and a score that is high.

    The high score is that of two standard deviations above the mean of training scans.
    """
    loaded = model.load(device)
    statistics = loaded.map_statistics
    high = statistics["mean"] + 2 * statistics["std"]
    return Predictor.of(loaded, device), high


@dataclass(frozen=True)
class StoredScan:
    """A prepared case, whose frame says how its map lies in the input; the raw scan is not read.

    Its HU were rounded when they were stored, which is all that differs from prediction.

    Attributes:
        predictor: gives the model, here or in a worker.
        folder: of the cases.
        case: its name.
    """

    predictor: Callable[[], Predictor]
    folder: Path
    case: str

    def __call__(self) -> ScoredScan:
        """Scores it."""
        model, cases, case = self.predictor(), CaseFolder(self.folder), self.case
        frame = cases.frame(case)
        hu, equalised, body = (cases.read(case, kind) for kind in ("hu", "equalised", "body"))
        scores = score_map(model.scorer, hu, equalised, model.plan, model.device, body)
        score = to_input_geometry(scores, frame, model.lowest, body, model.device)
        return _scored(AnomalyMap(score, mask_to_input_geometry(body, frame)))


@dataclass(frozen=True)
class ImageScan:
    """A raw scan, predicted as it is.

    Attributes:
        predictor: gives the model, here or in a worker.
        case, source: its name, and where it lies.
        mask: of its annotation, if it has one.
    """

    predictor: Callable[[], Predictor]
    case: str
    source: Source
    mask: Path | None = None

    def __call__(self) -> ScoredScan:
        """Scores it."""
        model = self.predictor()
        modality = model.plan.settings.preprocessing.modality
        result = model.predict(read_image(self.source, self.case, modality))
        mask = None if self.mask is None else read_mask(self.mask, self.case, result.score)
        return _scored(result, mask)


def stored_scans(
    predictor: Callable[[], Predictor], folder: Path, names: Sequence[str]
) -> ScanSource:
    """Prepared cases of a folder."""
    return {name: StoredScan(predictor, folder, name) for name in names}


def image_scans(
    predictor: Callable[[], Predictor],
    images: Mapping[str, Source],
    masks: dict[str, Path] | None = None,
) -> ScanSource:
    """Raw scans; with masks those that have one."""
    if masks is None:
        return {case: ImageScan(predictor, case, path) for case, path in images.items()}
    return {c: ImageScan(predictor, c, p, masks[c]) for c, p in images.items() if c in masks}


def find_masks(folder: Path, images: Mapping[str, Source]) -> dict[str, Path]:
    """Annotations by case name.

    Raises:
        ScreenerError: no folder, or no annotation has the name of a scan.
    """
    if not folder.is_dir():
        raise ScreenerError(f"{folder} is not a folder")
    some = any(is_volume(p) for p in folder.iterdir()) or find_pictures(folder)
    found = find_images(folder) if some else {}
    masks = {c: path for c, path in found.items() if c in images and isinstance(path, Path)}
    if not masks:
        raise ScreenerError(
            f"no mask in {folder} has the name of a scan, such as "
            f"{next(iter(images), 'case')}{kind_of(images).labels}"
        )
    return masks


def read_mask(path: Path, case: str, reference: sitk.Image) -> NDArray[np.bool_]:
    """Annotated voxels (z, y, x): those above zero.

    Raises:
        CaseError: the file is damaged, lies elsewhere than the scan, or holds no whole numbers.
    """
    return read_labels(path, case, Geometry.of_image(reference)) > 0


def _scored(result: AnomalyMap, annotated: NDArray[np.bool_] | None = None) -> ScoredScan:
    score = sitk.GetArrayFromImage(result.score).astype(np.float32, copy=False)
    body = sitk.GetArrayFromImage(result.body) > 0
    return ScoredScan(score, body, math.prod(result.score.GetSpacing()) / 1000.0, annotated)
