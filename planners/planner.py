"""`ScreenerPlanner`: fingerprint, preset and memory target in, plan out. A pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.planners.architecture import feature_elements, plan_architecture
from screener_nnu.planners.grid import nearest_multiple, plan_pooling, strides_and_kernels
from screener_nnu.planners.memory import BYTES_PER_ELEMENT, GB, USABLE, Fit, fit_to_memory
from screener_nnu.planners.presets import Preset, preset_named
from screener_nnu.planners.split import split_cases
from screener_nnu.plans import (
    CONFIGURATION,
    ConditionSettings,
    ContrastSettings,
    DensitySettings,
    DistillationSettings,
    InferenceSettings,
    Plan,
    PositionSettings,
    PreprocessingSettings,
    ScreenerSettings,
    Shape,
    Spacing,
    StockPlan,
)
from screener_nnu.preprocessing.equalise import global_levels
from screener_nnu.preprocessing.resampling import (
    RESAMPLING_DATA,
    RESAMPLING_PROBABILITIES,
    RESAMPLING_SEG,
)

# Of a plan; coarser than any network has been made for.
_LARGEST_VOXEL_MM = 20.0


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
        self.median_spacing = tuple(np.median(fingerprint["spacings"], axis=0))
        self.median_extent = tuple(np.median(fingerprint["body_extents_mm"], axis=0))

    def plan(self) -> Plan:
        """The whole plan: nnU-Net's keys and `screener`."""
        fit = fit_to_memory(
            self.preset,
            self.median_spacing,
            self.median_extent,
            self.memory_gb,
            self.given_spacing,
        )
        values = {
            "dataset_name": self.dataset,
            "plans_name": self.plans_name,
            "original_median_spacing_after_transp": [float(s) for s in self.median_spacing],
            "original_median_shape_after_transp": self._median_shape(self.median_spacing),
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {CONFIGURATION: self._configuration(fit)},
            "experiment_planner_used": type(self).__name__,
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": self.fingerprint[
                "foreground_intensity_properties_per_channel"
            ],
        }
        return StockPlan(values).with_settings(self._settings(fit))

    def _median_shape(self, spacing: tuple[float, ...]) -> list[int]:
        return [int(round(e / s)) for e, s in zip(self.median_extent, spacing, strict=True)]

    def _configuration(self, fit: Fit) -> dict[str, Any]:
        return {
            "data_identifier": f"{self.plans_name}_{CONFIGURATION}",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": self._finetuning_batch(fit),
            "patch_size": list(fit.patch),
            "median_image_size_in_voxels": self._median_shape(fit.spacing),
            "spacing": list(fit.spacing),
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
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
        reasons = {}
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
        split = split_cases(usable, self.num_test, self.seed)
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
                    optimiser=preset.position, volumes_per_step=preset.volumes
                ),
            ),
            density=DensitySettings(
                optimiser=preset.density_steps,
                pooling=plan_pooling(fit.spacing, fit.patch, preset.pooled_mm),
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
        return PreprocessingSettings(
            spacing=fit.spacing,
            storage_spacing=storage,  # type: ignore[arg-type]
            hu_clip=(intensities["percentile_00_5"], intensities["percentile_99_5"]),
            equalisation=fit.preset.equalisation,
            hu_levels=self._hu_levels(),
        )

    def _hu_levels(self) -> tuple[float, ...]:
        histogram = self.fingerprint["hu_histogram"]
        counts, edges = (np.asarray(histogram[key], dtype=float) for key in ("counts", "edges"))
        return global_levels(counts, edges, PreprocessingSettings.hu_window)

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
        return tuple(fit.preset.tile_factor * p for p in fit.patch)  # type: ignore[return-value]

    def _distillation_crop(self, fit: Fit) -> Shape:
        """As the preset says, to the nearest multiples that the network's strides allow."""
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
        return {
            "spacing": f"{mm} mm (z, y, x): {why}",
            "crop_size": f"{list(fit.patch)} voxels span {span} mm; the nearest multiples that "
            "the network's strides allow, within the median body",
            "network": f"{fit.preset.base_width} channels in the first stage, twice as many in "
            f"each further one, up to {fit.preset.max_width}",
            "memory": f"{fit.estimate_gb:.1f} GB of {self.memory_gb:.0f} GB estimated for a "
            f"descriptor step; {given_way}",
            "pooling": f"divisors of the crop nearest to {fit.preset.pooled_mm} mm, at most 32^3 "
            "positions a crop",
            "volumes_per_step": f"{fit.preset.volumes} pairs a step, as many as memory and the "
            "paper's number of voxels a step allow",
            "student_crop": f"{list(student_crop)} voxels, {fit.preset.distillation_volumes} a "
            f"step; predictions use tiles of {list(tile)} at most",
            "hu_clip": "0.5th and 99.5th percentile of body voxels, as nnU-Net does for CT",
            "split": f"{len(train)} scans to train on; 5 % (1 to 50) to validate; "
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
