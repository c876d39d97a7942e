"""What is planned otherwise for pictures: their size, the crop, and how a preset changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.planners.grid import nearest_multiple, strides_and_kernels
from screener_nnu.planners.presets import Preset
from screener_nnu.plans import Shape, Spacing
from screener_nnu.preprocessing.volumes import PICTURE_DEPTH

# Longest side of a picture on the plan's grid (pixels): networks of photographs see too little of
# less, and benchmarks of images have no more.
_LONGEST = (112, 256)
# Sides of the grid are multiples of it, so that coarse features fill it.
_STEP = 16
# Side of a crop of self-supervision, as a part of the picture's.
_CROP_SHARE = 0.75
# Pixels of a position: the finest stride of PaDiM's features.
POOLING: Shape = (1, 4, 4)
# Pictures are small: as many are worth one scan.
_MORE_PICTURES = 12
#: Pictures that calibration is measured on at most.
CALIBRATED = 500
#: Share of the pictures that are held out as normal ones, and how many at most.
VALIDATION_SHARE, MOST_VALIDATION = 0.1, 500


def picture_grid(
    shapes: list[list[float]], given: tuple[int, int] | None = None
) -> tuple[tuple[int, int], Spacing]:
    """Pixels (y, x) of all pictures on the plan's grid, and the voxel size that a median one has.

    Args:
        shapes: body boxes (z, y, x) of the pictures.
        given: pixels in place of those that are planned.

    Example:
        >>> picture_grid([[1, 480, 640]])
        ((192, 256), (999.0, 2.5, 2.5))
    """
    median = np.median(np.array(shapes)[:, 1:], axis=0)
    if given is None:
        longest = float(np.clip(median.max(), *_LONGEST))
        sides = [nearest_multiple(n * longest / median.max(), _STEP) for n in median]
    else:
        sides = list(given)
    rows, columns = (round(float(n / side), 4) for n, side in zip(median, sides, strict=True))
    return (sides[0], sides[1]), (PICTURE_DEPTH, rows, columns)


def usable_size(size: tuple[int, int]) -> tuple[int, int]:
    """A size of pictures that a user asked for.

    Raises:
        ScreenerError: a side has less than 16 or more than 4096 pixels.
    """
    if not all(_STEP <= side <= 4096 for side in size):
        raise ScreenerError(
            f"--picture_size {size[0]} {size[1]} is out of range: {_STEP} to 4096 rows and columns"
        )
    return size


def picture_crop(spacing: Spacing, size: tuple[int, int]) -> Shape:
    """Crop (1, y, x) of self-supervision: three quarters of a picture, as the strides allow."""
    crop: Shape = (1, *(max(_STEP, round(_CROP_SHARE * side)) for side in size))  # type: ignore[assignment]
    for _ in range(8):
        _, _, divisor = strides_and_kernels(spacing, crop)
        fitted: Shape = tuple(  # type: ignore[assignment]
            nearest_multiple(_CROP_SHARE * n, d, max(n, d))
            for n, d in zip((1 / _CROP_SHARE, *size), divisor, strict=True)
        )
        if fitted == crop:
            break
        crop = fitted
    return crop


def picture_tile(size: tuple[int, int], divisor: Shape) -> Shape:
    """Tile that holds a whole picture."""
    z, y, x = (-(-n // d) * d for n, d in zip((1, *size), divisor, strict=True))
    return z, y, x


def of_pictures(preset: Preset, spacing: Spacing) -> Preset:
    """The preset for pictures: as they are, blurred by pixels, and more of them at a time."""
    in_plane = float(np.mean(spacing[1:]))
    return replace(
        preset,
        equalisation="none",
        jitter=replace(preset.jitter, blur_sigma_mm=in_plane),
        max_scans=_MORE_PICTURES * preset.max_scans,
        density_volumes=2 * preset.density_volumes,
        distillation_volumes=max(4, preset.distillation_volumes),
        finetuning_batch=max(12, preset.finetuning_batch),
    )


def highest_value(fingerprint: Mapping[str, Any]) -> float:
    """Value of white: that of the depth, or the next power of two above 16-bit values."""
    highest = float(fingerprint["highest"])
    if highest <= 255:
        return highest
    found = max(
        values["max"]
        for values in fingerprint["foreground_intensity_properties_per_channel"].values()
    )
    return float(2 ** int(np.ceil(np.log2(found + 1))) - 1)
