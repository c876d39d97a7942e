"""What is planned for volumes: their grid and tiles, their window, and the reasons for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.planners.grid import nearest_multiple, plan_pooling, strides_and_kernels
from screener_nnu.planners.memory import Fit, Grid, volume_grid
from screener_nnu.planners.presets import PAPER_CROP_VOXELS, Preset
from screener_nnu.planners.split import HELD_OUT
from screener_nnu.plans import (
    CalibrationSettings,
    IgdSettings,
    PositionSettings,
    PreprocessingSettings,
    PretextSettings,
    Range,
    Shape,
    Spacing,
)
from screener_nnu.preprocessing.modality import CT, Modality

# Of a plan; coarser than any network has been made for.
_LARGEST_VOXEL_MM = 20.0
# Standard deviations beyond which no value of a scan lies.
_FAR = 1000.0


class VolumePlanning:
    """Plans what volumes and pictures need each in their own way; this is that of volumes.

    Args:
        fingerprint: of the data set.
        modality: of its images.
        spacing: voxel size (z, y, x) in mm that a user asked for.

    Attributes:
        reader: class by which stock nnU-Net reads the images.
        axes: those (z, y, x) that nnU-Net's configuration speaks of.
        held_out: share of the images that validate, and how many at most.
        calibrated: images that calibration is measured on at most.
        picture_size: pixels (y, x) of all pictures on the grid; empty where they keep their own.
        given_spacing: voxel size in place of the one that the data and the preset give.
    """

    reader: ClassVar[str] = "SimpleITKIO"
    axes: ClassVar[slice] = slice(0, 3)
    held_out: ClassVar[tuple[float, int]] = HELD_OUT
    calibrated: ClassVar[int] = CalibrationSettings.max_scans
    picture_size: tuple[int, ...] = ()
    given_spacing: Spacing | None

    def __init__(
        self, fingerprint: Mapping[str, Any], modality: Modality, spacing: Spacing | None
    ) -> None:
        """Refuses a spacing that no plan can have.

        Raises:
            ScreenerError: see above.
        """
        self.fingerprint, self.modality = fingerprint, modality
        self.given_spacing: Spacing | None = None if spacing is None else usable_spacing(spacing)
        self.median_spacing = tuple(np.median(fingerprint["spacings"], axis=0))
        self.median_extent = tuple(np.median(fingerprint["body_extents_mm"], axis=0))

    def aim(self, preset: Preset) -> tuple[Preset, Grid]:
        """What memory has its say on: a preset, and the grid."""
        return preset, volume_grid(self.median_spacing, self.median_extent, self.given_spacing)

    def pooling(self, fit: Fit) -> Shape:
        """Voxels of a position of the density."""
        return plan_pooling(fit.spacing, fit.patch, fit.preset.pooled_mm)

    def tile(self, fit: Fit) -> Shape:
        """Voxels of a tile of prediction."""
        return tuple(fit.preset.tile_factor * p for p in fit.patch)  # type: ignore[return-value]

    def student_crop(self, fit: Fit) -> Shape:
        """As the preset says, to the nearest multiples that the network's strides allow."""
        _, _, divisor = strides_and_kernels(fit.spacing, fit.patch)
        factor = fit.preset.distillation_factor
        z, y, x = (nearest_multiple(factor * n, d) for n, d in zip(fit.patch, divisor, strict=True))
        return z, y, x

    def pretext(self, fit: Fit) -> PretextSettings:
        """Image-level pre-training of the UNet's encoder on crops of self-supervision.

        An image gives eight views of a crop to half a UNet, where the descriptor has two of a whole
        one.
        """
        steps = fit.preset.pretext
        optimiser = replace(
            fit.preset.descriptor,
            steps=steps.steps,
            steps_per_epoch=steps.steps_per_epoch,
            warmup_steps=steps.steps // 20,
        )
        images = max(2, fit.preset.volumes // 2)
        return PretextSettings(optimiser=optimiser, images_per_step=images)

    def igd(self, fit: Fit) -> IgdSettings:
        """The auto-encoder of crops of self-supervision; maps of a volume are large."""
        small = fit.preset.crop_voxels < PAPER_CROP_VOXELS
        images, width = (2, 128) if small else (4, 512)
        return IgdSettings(fit.preset.igd, images_per_step=images, width=width)

    def position_extent(self, fit: Fit) -> float:
        """Length (mm) that the position network spans: a body's."""
        return PositionSettings.extent_mm

    def window(self) -> Range:
        """Values that become 0 and 1, of scans without a window of their own."""
        if self.modality.name == CT:
            return PreprocessingSettings.hu_window
        return self._percentiles()

    def clip(self) -> Range:
        """Bounds before resampling; stock nnU-Net clips nothing that it standardises by scan."""
        return self._percentiles() if self.modality.name == CT else (-_FAR, _FAR)

    def _percentiles(self) -> Range:
        found = self.fingerprint["foreground_intensity_properties_per_channel"]["0"]
        return found["percentile_00_5"], found["percentile_99_5"]

    def left_out(self, fit: Fit) -> dict[str, str]:
        """Cases whose body is smaller than half a crop on any axis, and why: no pair fits in."""
        half = np.multiply(fit.patch, fit.spacing) / 2
        reasons: dict[str, str] = {}
        extents = zip(self.fingerprint["cases"], self.fingerprint["body_extents_mm"], strict=True)
        for case, extent in extents:
            if (np.array(extent) < half).any():
                reasons[case] = (
                    f"its body of {_millimetres(extent)} is smaller than half a crop "
                    f"({_millimetres(half)}); take a longer scan, or leave it out of imagesTr"
                )
        return reasons

    def why_spacing(self, fit: Fit) -> str:
        """Why the voxels have their size."""
        data = " x ".join(f"{s:.2f}" for s in self.median_spacing)
        if self.given_spacing is not None:
            return f"as asked for; the data's median is {data} mm"
        return (
            f"{fit.preset.crop_voxels} voxels span about 144 mm, and the data's median of {data} "
            "mm is not upsampled"
        )

    def why_crop(self, fit: Fit) -> str:
        """Why the crop of self-supervision has its size."""
        span = " x ".join(f"{p * s:.0f}" for p, s in zip(fit.patch, fit.spacing, strict=True))
        return (
            f"{list(fit.patch)} voxels span {span} mm; the nearest multiples that the network's "
            "strides allow, within the median body"
        )

    def why_pooling(self, fit: Fit) -> str:
        """Why a position of the density has its size."""
        return (
            f"divisors of the crop nearest to {fit.preset.pooled_mm} mm, at most 32^3 positions a "
            "crop"
        )

    def why_clip(self) -> str:
        """Why values are clipped where they are."""
        if self.modality.name == CT:
            return "0.5th and 99.5th percentile of body voxels, as nnU-Net does for CT"
        return "nothing is clipped: nnU-Net standardises MR scan by scan"


def usable_width(width: int, preset: Preset) -> Preset:
    """The preset with another width of the UNet's first stage.

    Raises:
        ScreenerError: the width is out of range.
    """
    if not 1 <= width <= preset.max_width:
        raise ScreenerError(
            f"a width of {width} channels is out of range: 1 to {preset.max_width} with the preset "
            f"{preset.name}"
        )
    return replace(preset, base_width=width)


def _millimetres(extent: Iterable[float]) -> str:
    return " x ".join(f"{value:.0f}" for value in extent) + " mm"


def usable_spacing(spacing: Spacing) -> Spacing:
    """A voxel size (mm) that a user asked for.

    Raises:
        ScreenerError: it is not three numbers above 0, or larger than any network was made for.
    """
    if len(spacing) != 3 or not all(0 < s <= _LARGEST_VOXEL_MM for s in spacing):
        raise ScreenerError(
            f"a spacing of {' x '.join(f'{s:g}' for s in spacing)} mm is out of range: three "
            f"numbers (z, y, x), above 0 and at most {_LARGEST_VOXEL_MM:g}"
        )
    z, y, x = (float(s) for s in spacing)
    return z, y, x
