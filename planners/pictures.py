"""What is planned otherwise for pictures: their size, the crop, and how a preset changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.planners.grid import nearest_multiple, strides_and_kernels
from screener_nnu.planners.memory import Fit, Grid
from screener_nnu.planners.presets import PAPER_CROP_VOXELS, Preset
from screener_nnu.planners.volumes import VolumePlanning, usable_spacing
from screener_nnu.plans import IgdSettings, PretextSettings, Range, Shape, Spacing
from screener_nnu.preprocessing.modality import Modality
from screener_nnu.preprocessing.volumes import PICTURE_DEPTH
from screener_nnu.pretext_settings import PACKAGE, PACKAGED_ARCHITECTURE

# Longest side of a picture on the plan's grid (pixels): networks of photographs see too little of
# less, and benchmarks of images have no more.
_LONGEST = (112, 256)
# Sides of the grid are multiples of it, so that coarse features fill it.
_STEP = 16
# Side of a crop of self-supervision, as a part of the picture's.
_CROP_SHARE = 0.75
# Pixels of a position: the finest stride of PaDiM's features.
_POOLING: Shape = (1, 4, 4)
# Pictures are small: as many are worth one scan.
_MORE_PICTURES = 12


class PicturePlanning(VolumePlanning):
    """What is planned otherwise for pictures than for volumes.

    Args:
        fingerprint: of the data set.
        modality: of its images.
        spacing: voxel size in place of one size in pixels for all pictures.
        size: pixels (y, x) of all pictures that a user asked for.
    """

    reader = "NaturalImage2DIO"
    axes = slice(1, 3)
    held_out = (0.1, 500)
    calibrated = 500

    def __init__(
        self,
        fingerprint: Mapping[str, Any],
        modality: Modality,
        spacing: Spacing | None,
        size: tuple[int, int] | None,
    ) -> None:
        """Plans the size of the pictures.

        Raises:
            ScreenerError: a spacing or a size that no plan can have.
        """
        # A picture has one slice, whatever it is said to measure.
        in_plane = None if spacing is None else usable_spacing((1.0, *spacing[1:]))
        super().__init__(fingerprint, modality, None)
        if in_plane is not None:
            self.given_spacing = (PICTURE_DEPTH, *in_plane[1:])
        else:
            given = None if size is None else usable_size(size)
            # In pixels, which are 1 x 1.
            planned = picture_grid(fingerprint["body_extents_mm"], given)
            self.picture_size, self.given_spacing = planned

    def aim(self, preset: Preset) -> tuple[Preset, Grid]:
        """The preset for pictures, and their grid, on which memory has no say."""
        spacing = self.given_spacing
        assert spacing is not None
        crop = picture_crop(spacing, self._pixels(spacing))
        return of_pictures(preset, spacing), lambda _: (spacing, crop)

    def pooling(self, fit: Fit) -> Shape:
        """Pixels of a position of the density."""
        return _POOLING

    def tile(self, fit: Fit) -> Shape:
        """Tile of prediction, which holds a whole picture."""
        _, _, divisor = strides_and_kernels(fit.spacing, fit.patch)
        z, y, x = (
            -(-n // d) * d for n, d in zip((1, *self._pixels(fit.spacing)), divisor, strict=True)
        )
        return z, y, x

    def student_crop(self, fit: Fit) -> Shape:
        """A whole picture."""
        return self.tile(fit)

    def pretext(self, fit: Fit) -> PretextSettings:
        """Image-level pre-training on whole pictures, from weights of photographs, as published."""
        return PretextSettings(
            optimiser=fit.preset.pretext,
            algorithm="sgd",
            backbone=PACKAGED_ARCHITECTURE,
            weights=PACKAGE,
            crop_size=self.tile(fit),
            images_per_step=4 if fit.preset.crop_voxels < PAPER_CROP_VOXELS else 32,
        )

    def igd(self, fit: Fit) -> IgdSettings:
        """The auto-encoder of whole pictures and of patches of them, as published."""
        small = fit.preset.crop_voxels < PAPER_CROP_VOXELS
        images, patches, width = (4, 16, 256) if small else (16, 32, 512)
        optimiser = fit.preset.igd
        return IgdSettings(optimiser, images_per_step=images, patches=patches, width=width)

    def position_extent(self, fit: Fit) -> float:
        """Length that the position network spans: ten times the crop."""
        return 10 * max(n * s for n, s in zip(fit.patch[1:], fit.spacing[1:], strict=True))

    def window(self) -> Range:
        """From black to white."""
        return 0.0, highest_value(self.fingerprint)

    def clip(self) -> Range:
        """From black to white, that of all channels."""
        return self.window()

    def left_out(self, fit: Fit) -> dict[str, str]:
        """None: pictures are resized, or resampled to about the median one."""
        return {}

    def why_spacing(self, fit: Fit) -> str:
        """Why the pixels have their size."""
        return f"of a median picture that is resized to {list(self._pixels(fit.spacing))}"

    def why_crop(self, fit: Fit) -> str:
        """Why the crop of self-supervision has its size."""
        return f"{list(fit.patch)} pixels, about three quarters of a picture's sides"

    def why_pooling(self, fit: Fit) -> str:
        """Why a position of the density has its size."""
        return "the finest stride of the networks of photographs"

    def why_clip(self) -> str:
        """Why values are clipped where they are."""
        return "all values that pictures of this depth can have"

    def _pixels(self, spacing: Spacing) -> tuple[int, int]:
        """Of a median picture on the grid (y, x)."""
        if self.picture_size:
            return self.picture_size[0], self.picture_size[1]
        _, rows, columns = (round(e / s) for e, s in zip(self.median_extent, spacing, strict=True))
        return rows, columns


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


def of_pictures(preset: Preset, spacing: Spacing) -> Preset:
    """The preset for pictures: as they are, blurred by pixels, and more of them at a time."""
    in_plane = float(np.mean(spacing[1:]))
    return replace(
        preset,
        equalisation="none",
        jitter=replace(preset.jitter, blur_sigma_mm=in_plane),
        max_scans=_MORE_PICTURES * preset.max_scans,
        distillation_scans=_MORE_PICTURES * preset.distillation_scans,
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
