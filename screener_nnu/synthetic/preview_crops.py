"""Crops of prepared cases, as image-level pre-training sees them, for a preview of its images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from screener_nnu.plans import Plan, Shape
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.preprocessing.modality import PICTURE
from screener_nnu.sampling.crops import resize_boxes, voxels_per_crop
from screener_nnu.sampling.randomness import numpy_generator

# Places of a crop that are tried until half of it is body.
_PLACES = 20


def read_crops(folder: Path, names: Sequence[str], plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """A crop of each case, of the size that the plan trains on; of pictures by default the whole.

    Args:
        folder: of the prepared cases.
        names: of the cases.
        plan: that they are prepared for.

    Returns:
        Equalised images (B, C, D, H, W) in [0, 1] and body masks (B, D, H, W).

    Raises:
        CaseError: a case cannot be read.
    """
    cases, settings = CaseFolder(folder), plan.settings
    size = settings.pretext.crop_size
    if not size and settings.preprocessing.modality == PICTURE:
        size = tuple(np.max([cases.shape(name, "equalised") for name in names], axis=0).tolist())
    z, y, x = size or settings.crop_size
    preprocessing = settings.preprocessing
    stored = voxels_per_crop((z, y, x), preprocessing.spacing, preprocessing.storage_spacing)
    extent = [max(1, round(n)) for n in stored]
    images, bodies = [], []
    for index, name in enumerate(names):
        generator = numpy_generator(settings.seed, "preview", index)
        image, body = _read(cases, name, extent, generator)
        images.append(resize_boxes([torch.from_numpy(image)], (z, y, x)))
        bodies.append(F.interpolate(torch.from_numpy(body)[None, None].float(), (z, y, x)))
    return torch.cat(images), torch.cat(bodies)[:, 0] > 0


def _read(
    cases: CaseFolder, name: str, extent: Sequence[int], generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Image (C, D, H, W) or (D, H, W) and body of a box; beyond the border there is air."""
    body = cases.read(name, "body")
    free = np.maximum(0, np.subtract(body.shape, extent))
    places = [generator.integers(0, free + 1) for _ in range(_PLACES)]
    shares = [min(_part(body, place, extent).mean(), 0.5) for place in places]
    place = places[int(np.argmax(shares))]
    start: Shape = tuple(place.tolist())
    stop: Shape = tuple(np.minimum(place + extent, body.shape).tolist())
    image = cases.read_box(name, "equalised", start, stop)
    return _padded(image, extent), _padded(_part(body, place, extent), extent)


def _part(body: np.ndarray, start: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    return body[tuple(slice(a, a + n) for a, n in zip(start, extent, strict=True))]


def _padded(values: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    missing = [(0, n - m) for n, m in zip(extent, values.shape[-3:], strict=True)]
    return np.pad(values, [(0, 0)] * (values.ndim - 3) + missing)
