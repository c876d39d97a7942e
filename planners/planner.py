"""`ScreenerPlanner`: fingerprint, preset and memory target in, plan out. A pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.planners.architecture import feature_elements, plan_architecture
from screener_nnu.planners.grid import nearest_multiple, plan_pooling, strides_and_kernels
from screener_nnu.planners.memory import (
    BYTES_PER_ELEMENT,
    GB,
    USABLE,
    Fit,
    Grid,
    fit_to_memory,
    volume_grid,
)
from screener_nnu.planners.pictures import (
    CALIBRATED,
    MOST_VALIDATION,
    POOLING,
    VALIDATION_SHARE,
    highest_value,
    of_pictures,
    picture_crop,
    picture_grid,
    picture_tile,
    usable_size,
)
from screener_nnu.planners.presets import Preset, preset_named
from screener_nnu.planners.split import split_cases
from screener_nnu.plans import (
    PICTURES,
    CalibrationSettings,
    ConditionSettings,
    ContrastSettings,
    DensitySettings,
    DistillationSettings,
    InferenceSettings,
    Plan,
    PositionSettings,
    PreprocessingSettings,
    Range,
    ScreenerSettings,
    Shape,
    Spacing,
    StockPlan,
)
from screener_nnu.preprocessing.equalise import global_levels
from screener_nnu.preprocessing.modality import CT, MODALITIES, MR, PICTURE
from screener_nnu.preprocessing.resampling import (
    RESAMPLING_DATA,
    RESAMPLING_PROBABILITIES,
    RESAMPLING_SEG,
)

# Of a plan; coarser than any network has been made for.
_LARGEST_VOXEL_MM = 20.0
_CLIP_REASONS = {
    CT: "0.5th and 99.5th percentile of body voxels, as nnU-Net does for CT",
    MR: "nothing is clipped: nnU-Net standardises MR scan by scan",
    PICTURE: "all values that pictures of this depth can have",
}
# Standard deviations beyond which no value of a scan lies.
_FAR = 1000.0


class ScreenerPlanner:
    """Plans one pre-training data set.

    Args:
        fingerprint: of `screener_nnu.planners.fingerprint.summarise`.
        dataset: full name `DatasetXXX_Name` of the (pooled) data set.
        preset: `paper`, `balanced` or `cpu`.
        memory_gb: device memory in place of the preset's.
        num_test: scans that only evaluation may read.
        seed: of split and training.
        plans_name: name of the plan file.
        sources: source data set of each case, for the stratified split.
        width: channels of the UNet's first stage in place of the preset's; deeper stages double.
        spacing: voxel size (z, y, x) in mm in place of the one that the data and the preset give.
        picture_size: pixels (y, x) of pictures in place of the planned ones.
        keep_aspect: see `PreprocessingSettings`.
        groups: group of each case that has one; the split parts none.
    """

    def __init__(
        self,
        fingerprint: dict[str, Any],
        dataset: str,
        preset: str = "balanced",
        memory_gb: float | None = None,
        num_test: int = 0,
        seed: int = 12345,
        plans_name: str = "ScreenerPlans",
        sources: Mapping[str, str] | None = None,
        width: int | None = None,
        spacing: Spacing | None = None,
        picture_size: tuple[int, int] | None = None,
        keep_aspect: bool = False,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        """Keeps the inputs; `plan` does the work."""
        self.fingerprint = fingerprint
        self.dataset = dataset
        self.preset = preset_named(preset)
        if width is not None:
            self.preset = replace(self.preset, base_width=_usable_width(width, self.preset))
        self.memory_gb = memory_gb or self.preset.memory_gb
        self.num_test = num_test
        self.seed = seed
        self.plans_name = plans_name
        self.sources = sources or {name: dataset for name in fingerprint["cases"]}
        self.given_spacing = None if spacing is None else _usable_spacing(spacing)
        self.modality = MODALITIES[fingerprint.get("modality", CT)]
        self.groups, self.keep_aspect = groups or {}, keep_aspect
        self.picture_size: tuple[int, ...] = ()
        if self.modality.configuration == PICTURES and self.given_spacing is None:
            given = None if picture_size is None else usable_size(picture_size)
            # In pixels, which are 1 x 1.
            shapes = fingerprint["body_extents_mm"]
            self.picture_size, self.given_spacing = picture_grid(shapes, given)
        elif picture_size is not None or keep_aspect:
            raise ScreenerError(
                "--picture_size and --keep_aspect are for pictures that are resized: leave them "
                "out of scans, and beside --spacing"
            )
        self.median_spacing = tuple(np.median(fingerprint["spacings"], axis=0))
        self.median_extent = tuple(np.median(fingerprint["body_extents_mm"], axis=0))

    def plan(self) -> Plan:
        """The whole plan: nnU-Net's keys and `screener`."""
        fit = fit_to_memory(*self._aim(), self.memory_gb)
        values = {
            "dataset_name": self.dataset,
            "plans_name": self.plans_name,
            "original_median_spacing_after_transp": [float(s) for s in self.median_spacing],
            "original_median_shape_after_transp": self._median_shape(self.median_spacing),
            "image_reader_writer": "NaturalImage2DIO" if self._pictures else "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {self.modality.configuration: self._configuration(fit)},
            "experiment_planner_used": type(self).__name__,
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": self.fingerprint[
                "foreground_intensity_properties_per_channel"
            ],
        }
        return StockPlan(values).with_settings(self._settings(fit))

    @property
    def _pictures(self) -> bool:
        return self.modality.configuration == PICTURES

    def _aim(self) -> tuple[Preset, Grid]:
        """What memory has its say on: a preset, and the grid."""
        spacing = self.given_spacing
        if not self._pictures:
            return self.preset, volume_grid(self.median_spacing, self.median_extent, spacing)
        assert spacing is not None
        crop = picture_crop(spacing, self._picture_pixels(spacing))
        return of_pictures(self.preset, spacing), lambda _: (spacing, crop)

    def _picture_pixels(self, spacing: Spacing) -> tuple[int, int]:
        """Of a median picture on the grid (y, x)."""
        if self.picture_size:
            return self.picture_size[0], self.picture_size[1]
        _, rows, columns = (round(e / s) for e, s in zip(self.median_extent, spacing, strict=True))
        return rows, columns

    def _median_shape(self, spacing: tuple[float, ...]) -> list[int]:
        return [int(round(e / s)) for e, s in zip(self.median_extent, spacing, strict=True)]

    def _configuration(self, fit: Fit) -> dict[str, Any]:
        # nnU-Net's configurations of planes speak of two axes.
        axes = slice(1 if self._pictures else 0, 3)
        channels = len(self.fingerprint["foreground_intensity_properties_per_channel"])
        return {
            "data_identifier": f"{self.plans_name}_{self.modality.configuration}",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": self._finetuning_batch(fit),
            "patch_size": list(fit.patch[axes]),
            "median_image_size_in_voxels": self._median_shape(fit.spacing)[axes],
            "spacing": list(fit.spacing[axes]),
            "normalization_schemes": [self.modality.scheme] * channels,
            "use_mask_for_norm": [False] * channels,
            "resampling_fn_data": RESAMPLING_DATA["name"],
            "resampling_fn_seg": RESAMPLING_SEG["name"],
            "resampling_fn_data_kwargs": RESAMPLING_DATA["kwargs"],
            "resampling_fn_seg_kwargs": RESAMPLING_SEG["kwargs"],
            "resampling_fn_probabilities": RESAMPLING_PROBABILITIES["name"],
            "resampling_fn_probabilities_kwargs": RESAMPLING_PROBABILITIES["kwargs"],
            "batch_dice": False,
            "architecture": plan_architecture(fit.spacing, fit.patch, fit.preset),
        }

    def _finetuning_batch(self, fit: Fit) -> int:
        architecture = plan_architecture(fit.spacing, fit.patch, fit.preset)
        elements, _ = feature_elements(architecture, fit.patch)
        fits = int((USABLE * self.memory_gb - 2) * GB / (elements * BYTES_PER_ELEMENT))
        return int(np.clip(fits, 2, fit.preset.finetuning_batch))

    def left_out(self, fit: Fit) -> dict[str, str]:
        """Cases whose body is smaller than half a crop on any axis, and why: no pair fits in."""
        half = np.multiply(fit.patch, fit.spacing) / 2
        reasons: dict[str, str] = {}
        if self._pictures:  # they are resized, or resampled to about a picture
            return reasons
        extents = zip(self.fingerprint["cases"], self.fingerprint["body_extents_mm"], strict=True)
        for case, extent in extents:
            if (np.array(extent) < half).any():
                reasons[case] = (
                    f"its body of {_millimetres(extent)} is smaller than half a crop "
                    f"({_millimetres(half)}); take a longer scan, or leave it out of imagesTr"
                )
        return reasons

    def _settings(self, fit: Fit) -> ScreenerSettings:
        preset = fit.preset
        left_out = self.left_out(fit)
        usable = {case: source for case, source in self.sources.items() if case not in left_out}
        held_out = (VALIDATION_SHARE, MOST_VALIDATION) if self._pictures else ()
        groups = {case: group for case, group in self.groups.items() if case in usable}
        split = split_cases(usable, self.num_test, self.seed, groups, *held_out)
        contrast = self._contrast(preset)
        tile = self._tile(fit)
        student_crop = self._distillation_crop(fit)
        return ScreenerSettings(
            preset=preset.name,
            memory_gb=float(self.memory_gb),
            data_identifier=f"{self.plans_name}_screener",
            seed=self.seed,
            crop_size=fit.patch,
            preprocessing=self._preprocessing(fit),
            jitter=preset.jitter,
            descriptor=contrast,
            condition=ConditionSettings(
                contrast=replace(contrast, optimiser=preset.condition, scale_range=(2 / 3, 8 / 3)),
                position=PositionSettings(
                    optimiser=preset.position,
                    volumes_per_step=preset.volumes,
                    extent_mm=self._position_extent(fit),
                ),
            ),
            density=DensitySettings(
                optimiser=preset.density_steps,
                pooling=POOLING
                if self._pictures
                else plan_pooling(fit.spacing, fit.patch, preset.pooled_mm),
                crop_size=tile,
                kind=preset.density,
                hidden=preset.hidden,
                flow_steps=preset.flow_steps,
                volumes_per_step=preset.density_volumes,
                whole_scans=preset.whole_scans,
                max_scans=preset.max_scans,
                positions=preset.scan_positions,
            ),
            distillation=DistillationSettings(
                optimiser=preset.distillation,
                crop_size=student_crop,
                volumes_per_step=preset.distillation_volumes,
            ),
            inference=InferenceSettings(teacher_tile=tile, student_tile=tile),
            calibration=CalibrationSettings(*((CALIBRATED,) if self._pictures else ())),
            split=split,
            workers=preset.workers,
            reasons=self._reasons(fit, split.train, tile, student_crop),
            left_out=left_out,
        )

    def _preprocessing(self, fit: Fit) -> PreprocessingSettings:
        intensities = self.fingerprint["foreground_intensity_properties_per_channel"]["0"]
        fine = fit.preset.name == "paper"
        storage = tuple(
            round(max(s * 2 / 3, m), 4) if fine else s
            for s, m in zip(fit.spacing, self.median_spacing, strict=True)
        )
        window = self._window()
        settings = PreprocessingSettings(
            spacing=fit.spacing,
            storage_spacing=storage,  # type: ignore[arg-type]
            hu_clip=(intensities["percentile_00_5"], intensities["percentile_99_5"]),
            hu_window=window,
            body_threshold=self.modality.threshold,
            equalisation=fit.preset.equalisation,
            hu_levels=self._hu_levels(window),
            modality=self.modality.name,
            picture_size=self.picture_size,
            keep_aspect=self.keep_aspect,
        )
        # Stock nnU-Net clips nothing that it standardises scan by scan, and a picture's own range
        # is that of all channels.
        return replace(settings, hu_clip=self._clip(settings.hu_clip))

    def _window(self) -> Range:
        """Values that become 0 and 1, of scans without a window of their own."""
        if self._pictures:
            return 0.0, highest_value(self.fingerprint)
        if self.modality.name == CT:
            return PreprocessingSettings.hu_window
        found = self.fingerprint["foreground_intensity_properties_per_channel"]["0"]
        return found["percentile_00_5"], found["percentile_99_5"]

    def _clip(self, planned: Range) -> Range:
        """Bounds before resampling."""
        if self._pictures:
            return self._window()
        return planned if self.modality.name == CT else (-_FAR, _FAR)

    def _hu_levels(self, window: Range) -> tuple[float, ...]:
        histogram = self.fingerprint["hu_histogram"]
        counts, edges = (np.asarray(histogram[key], dtype=float) for key in ("counts", "edges"))
        return global_levels(counts, edges, window)

    def _position_extent(self, fit: Fit) -> float:
        """Length (mm) that the position network spans: ten times the picture, or a body's."""
        if not self._pictures:
            return PositionSettings.extent_mm
        return 10 * max(n * s for n, s in zip(fit.patch[1:], fit.spacing[1:], strict=True))

    def _contrast(self, preset: Preset) -> ContrastSettings:
        return ContrastSettings(
            optimiser=preset.descriptor,
            loss=preset.loss,
            channels=preset.channels,
            head_width=preset.head_width,
            volumes_per_step=preset.volumes,
            positives=preset.positives,
        )

    def _tile(self, fit: Fit) -> Shape:
        if self._pictures:
            _, _, divisor = strides_and_kernels(fit.spacing, fit.patch)
            return picture_tile(self._picture_pixels(fit.spacing), divisor)
        return tuple(fit.preset.tile_factor * p for p in fit.patch)  # type: ignore[return-value]

    def _distillation_crop(self, fit: Fit) -> Shape:
        """As the preset says, to the nearest multiples that the network's strides allow."""
        if self._pictures:
            return self._tile(fit)
        _, _, divisor = strides_and_kernels(fit.spacing, fit.patch)
        factor = fit.preset.distillation_factor
        z, y, x = (nearest_multiple(factor * n, d) for n, d in zip(fit.patch, divisor, strict=True))
        return z, y, x

    def _reasons(
        self, fit: Fit, train: tuple[str, ...], tile: Shape, student_crop: Shape
    ) -> dict[str, str]:
        """A sentence for each planned number."""
        mm = " x ".join(f"{s:.2f}" for s in fit.spacing)
        data = " x ".join(f"{s:.2f}" for s in self.median_spacing)
        span = " x ".join(f"{p * s:.0f}" for p, s in zip(fit.patch, fit.spacing, strict=True))
        why = f"{fit.preset.crop_voxels} voxels span about 144 mm, and the data's median of {data} "
        why += "mm is not upsampled"
        if self.given_spacing is not None:
            why = f"as asked for; the data's median is {data} mm"
        given_way = "; ".join(fit.given_way) or "nothing had to give way"
        crop = f"{list(fit.patch)} voxels span {span} mm; the nearest multiples that the network's "
        crop += "strides allow, within the median body"
        pooling = f"divisors of the crop nearest to {fit.preset.pooled_mm} mm, at most 32^3 "
        pooling += "positions a crop"
        held_out = "5 % (1 to 50)"
        if self._pictures:
            why = (
                f"of a median picture that is resized to {list(self._picture_pixels(fit.spacing))}"
            )
            crop = f"{list(fit.patch)} pixels, about three quarters of a picture's sides"
            pooling = "the finest stride of the networks of photographs"
            held_out = "10 % (1 to 500)"
        return {
            "modality": self.modality.name,
            "spacing": f"{mm} mm (z, y, x): {why}",
            "crop_size": crop,
            "network": f"{fit.preset.base_width} channels in the first stage, twice as many in "
            f"each further one, up to {fit.preset.max_width}",
            "memory": f"{fit.estimate_gb:.1f} GB of {self.memory_gb:.0f} GB estimated for a "
            f"descriptor step; {given_way}",
            "pooling": pooling,
            "volumes_per_step": f"{fit.preset.volumes} pairs a step, as many as memory and the "
            "paper's number of voxels a step allow",
            "student_crop": f"{list(student_crop)} voxels, {fit.preset.distillation_volumes} a "
            f"step; predictions use tiles of {list(tile)} at most",
            "hu_clip": _CLIP_REASONS[self.modality.name],
            "split": f"{len(train)} scans to train on; {held_out} to validate; "
            f"{self.num_test} kept for evaluation",
        }


def _usable_width(width: int, preset: Preset) -> int:
    if not 1 <= width <= preset.max_width:
        raise ScreenerError(
            f"a width of {width} channels is out of range: 1 to {preset.max_width} with the preset "
            f"{preset.name}"
        )
    return width


def _millimetres(extent: Iterable[float]) -> str:
    return " x ".join(f"{value:.0f}" for value in extent) + " mm"


def _usable_spacing(spacing: Spacing) -> Spacing:
    if len(spacing) != 3 or not all(0 < s <= _LARGEST_VOXEL_MM for s in spacing):
        raise ScreenerError(
            f"a spacing of {' x '.join(f'{s:g}' for s in spacing)} mm is out of range: three "
            f"numbers (z, y, x), above 0 and at most {_LARGEST_VOXEL_MM:g}"
        )
    z, y, x = (float(s) for s in spacing)
    return z, y, x
