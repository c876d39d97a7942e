"""What the scores of the models of a detector are divided by: medians on held-out images."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from tqdm import tqdm

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.inference.volume import body_cells, images_of
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.sampling.crops import as_batch
from screener_nnu.sampling.spread import spread
from screener_nnu.scoring.igd import IgdDetector, Scale

logger = logging.getLogger(__name__)

_MAX_SCANS = 24
# Below it, a model makes no difference between images at all.
_LEAST = 1e-8


def map_medians(
    detector: IgdDetector, images: torch.Tensor, bodies: torch.Tensor
) -> dict[str, Scale]:
    """Median score of the body's voxels by each model; images are not scored as a whole.

    Args:
        detector: without scales.
        images: (B, C, D, H, W).
        bodies: (B, 1, D, H, W) masks.
    """
    found = {}
    for name in detector.models:
        pairs = zip(images.split(1), bodies.split(1), strict=True)
        scores = [detector.map_of(name, image)[_voxels(body[0])] for image, body in pairs]
        found[name] = Scale(map=_median(torch.cat(scores)))
    return found


def image_scales(detector: IgdDetector, folder: Path, names: Iterable[str]) -> dict[str, Scale]:
    """Median scores of voxels and of whole images, of up to 24 held-out scans.

    A median hardly moves where some of them are abnormal.

    Args:
        detector: without scales, on its device.
        folder: of the cases.
        names: of the scans.

    Raises:
        ScreenerError: none can be read.
    """
    cases, device = CaseFolder(folder), next(detector.parameters()).device
    maps: dict[str, list[torch.Tensor]] = {name: [] for name in detector.models}
    wholes: dict[str, list[float]] = {name: [] for name in detector.models}
    for case in tqdm(spread(names, _MAX_SCANS), desc="scales", unit="scan"):
        try:
            image = as_batch(images_of(cases, case)("equalised").to(device))
            body = cases.read(case, "body")
        except CaseError as error:
            logger.warning("left out: %s", error)
            continue
        mask = (body_cells(body, image.shape[2:], (1, 1, 1)) > 0.5).to(device)[None, None]
        for name in detector.models:
            # Of a large scan a median of every few voxels says the same.
            own = detector.map_of(name, image)[_voxels(mask[0])]
            maps[name].append(own[:: max(1, len(own) // 100_000)].cpu())
            wholes[name].append(detector.image_score_of(name, image, mask))
    if not any(maps.values()):
        raise ScreenerError(f"no validation scan in {folder} can be read")
    return {
        name: Scale(_median(torch.cat(own)), _median(torch.tensor(wholes[name])))
        for name, own in maps.items()
    }


def _voxels(mask: torch.Tensor) -> torch.Tensor:
    """The body's voxels, or all where there are none."""
    return mask if mask.any() else torch.ones_like(mask)


def _median(values: torch.Tensor) -> float:
    return max(_LEAST, float(values.median()))
