"""`ScreenerPlanner`: fingerprint, preset and memory target in, plan out. A pure function."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.planners.architecture import feature_elements, plan_architecture
from screener_nnu.planners.memory import BYTES_PER_ELEMENT, GB, USABLE, Fit, fit_to_memory
from screener_nnu.planners.normal_cases import with_normal_cases
from screener_nnu.planners.pictures import PicturePlanning
from screener_nnu.planners.presets import Preset, preset_named
from screener_nnu.planners.split import split_cases
from screener_nnu.planners.volumes import VolumePlanning, usable_width
from screener_nnu.plans import (
    CONDITION,
    PICTURES,
    BaselineSettings,
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
    SplitSettings,
    StartSettings,
    StockPlan,
)
from screener_nnu.preprocessing.equalise import global_levels
from screener_nnu.preprocessing.modality import CT, MODALITIES
from screener_nnu.preprocessing.resampling import (
    RESAMPLING_DATA,
    RESAMPLING_PROBABILITIES,
    RESAMPLING_SEG,
)


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
        normal: cases that are known to be normal; empty where nothing is known.
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
        normal: Collection[str] = (),
    ) -> None:
        """Keeps the inputs; `plan` does the work.

        Raises:
            ScreenerError: a request that no plan of such images can meet.
        """
        self.fingerprint = fingerprint
        self.dataset = dataset
        self.preset = preset_named(preset)
        if width is not None:
            self.preset = usable_width(width, self.preset)
        self.memory_gb = memory_gb or self.preset.memory_gb
        self.num_test = num_test
        self.seed = seed
        self.plans_name = plans_name
        self.sources = sources or {name: dataset for name in fingerprint["cases"]}
        self.modality = MODALITIES[fingerprint.get("modality", CT)]
        self.groups, self.keep_aspect = groups or {}, keep_aspect
        self.normal = normal
        pictures = self.modality.configuration == PICTURES
        self.kind: VolumePlanning = (
            PicturePlanning(fingerprint, self.modality, spacing, picture_size)
            if pictures
            else VolumePlanning(fingerprint, self.modality, spacing)
        )
        if (picture_size is not None or keep_aspect) and not (pictures and spacing is None):
            raise ScreenerError(
                "--picture_size and --keep_aspect are for pictures that are resized: leave them "
                "out of scans, and beside --spacing"
            )

    def plan(self) -> Plan:
        """The whole plan: nnU-Net's keys and `screener`."""
        fit = fit_to_memory(*self.kind.aim(self.preset), self.memory_gb)
        values = {
            "dataset_name": self.dataset,
            "plans_name": self.plans_name,
            "original_median_spacing_after_transp": [float(s) for s in self.kind.median_spacing],
            "original_median_shape_after_transp": self._median_shape(self.kind.median_spacing),
            "image_reader_writer": self.kind.reader,
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

    def _median_shape(self, spacing: tuple[float, ...]) -> list[int]:
        extent = self.kind.median_extent
        return [int(round(e / s)) for e, s in zip(extent, spacing, strict=True)]

    def _configuration(self, fit: Fit) -> dict[str, Any]:
        axes = self.kind.axes
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

    def _settings(self, fit: Fit) -> ScreenerSettings:
        preset = fit.preset
        left_out = self.kind.left_out(fit)
        usable = {case: source for case, source in self.sources.items() if case not in left_out}
        groups = {case: group for case, group in self.groups.items() if case in usable}
        split = split_cases(usable, self.num_test, self.seed, groups, *self.kind.held_out)
        split = with_normal_cases(split, self.normal)
        contrast, reads = self._contrast(preset), preset.student == CONDITION
        tile, student_crop = self.kind.tile(fit), self.kind.student_crop(fit)
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
                    extent_mm=self.kind.position_extent(fit),
                ),
            ),
            density=DensitySettings(
                optimiser=preset.density_steps,
                pooling=self.kind.pooling(fit),
                crop_size=tile,
                # Two experts were measured on CT alone.
                kind=preset.density if self.modality.name == CT else "flow",
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
                learns=preset.student,
                # A head sees positions, as the density does.
                volumes_per_step=preset.density_volumes if reads else preset.distillation_volumes,
                max_scans=preset.max_scans if reads else preset.distillation_scans,
            ),
            pretext=self.kind.pretext(fit),
            igd=self.kind.igd(fit),
            baseline=BaselineSettings(preset.baseline, crops_per_step=preset.baseline_crops),
            # Two at least: one start tells views of different scans apart.
            start=StartSettings(
                preset.baseline, crops_per_step=max(2, preset.distillation_volumes)
            ),
            inference=InferenceSettings(teacher_tile=tile, student_tile=tile),
            calibration=CalibrationSettings(self.kind.calibrated),
            split=split,
            workers=preset.workers,
            reasons=self._reasons(fit, split, tile, student_crop),
            left_out=left_out,
        )

    def _preprocessing(self, fit: Fit) -> PreprocessingSettings:
        # Pictures of one size are stored at that size.
        fine = fit.preset.name == "paper" and not self.kind.picture_size
        storage = tuple(
            round(max(s * 2 / 3, m), 4) if fine else s
            for s, m in zip(fit.spacing, self.kind.median_spacing, strict=True)
        )
        window = self.kind.window()
        return PreprocessingSettings(
            spacing=fit.spacing,
            storage_spacing=storage,  # type: ignore[arg-type]
            hu_clip=self.kind.clip(),
            hu_window=window,
            body_threshold=self.modality.threshold,
            equalisation=fit.preset.equalisation,
            hu_levels=self._hu_levels(window),
            modality=self.modality.name,
            picture_size=self.kind.picture_size,
            keep_aspect=self.keep_aspect,
        )

    def _hu_levels(self, window: Range) -> tuple[float, ...]:
        histogram = self.fingerprint["hu_histogram"]
        counts, edges = (np.asarray(histogram[key], dtype=float) for key in ("counts", "edges"))
        return global_levels(counts, edges, window)

    def _contrast(self, preset: Preset) -> ContrastSettings:
        return ContrastSettings(
            optimiser=preset.descriptor,
            loss=preset.loss,
            channels=_channels(preset),
            head_width=preset.head_width,
            volumes_per_step=preset.volumes,
            positives=preset.positives,
        )

    def _reasons(
        self, fit: Fit, split: SplitSettings, tile: Shape, student_crop: Shape
    ) -> dict[str, str]:
        """A sentence for each planned number."""
        mm = " x ".join(f"{s:.2f}" for s in fit.spacing)
        given_way = "; ".join(fit.given_way) or "nothing had to give way"
        share, most = self.kind.held_out
        known = f", {len(split.normal)} of them known to be normal" if split.normal else ""
        return {
            "modality": self.modality.name,
            "spacing": f"{mm} mm (z, y, x): {self.kind.why_spacing(fit)}",
            "crop_size": self.kind.why_crop(fit),
            "network": f"{fit.preset.base_width} channels in the first stage, twice as many in "
            f"each further one, up to {fit.preset.max_width}",
            "memory": f"{fit.estimate_gb:.1f} GB of {self.memory_gb:.0f} GB estimated for a "
            f"descriptor step; {given_way}",
            "channels": f"{_channels(fit.preset)} of descriptor and condition: the preset's, and "
            "no more than the last stage of the network has, of which they are a linear map",
            "pooling": self.kind.why_pooling(fit),
            "volumes_per_step": f"{fit.preset.volumes} pairs a step, as many as memory and the "
            "paper's number of voxels a step allow",
            "student": _why_student(fit.preset, tile, student_crop),
            "hu_clip": self.kind.why_clip(),
            "split": f"{len(split.train)} scans to train on{known}; {100 * share:.0f} % (1 to "
            f"{most}) to validate; {self.num_test} kept for evaluation",
        }


def _why_student(preset: Preset, tile: Shape, crop: Shape) -> str:
    learns = f"{list(crop)} voxels, {preset.distillation_volumes} a step"
    if preset.student == CONDITION:
        learns = f"at most {list(tile)} voxels, one a scan"
    return (
        f"learns the teacher's {preset.student} from crops of {learns}; predictions use tiles of "
        f"{list(tile)} at most"
    )


def _channels(preset: Preset) -> int:
    """Of descriptor and condition.

    They are a linear map of the network's last stage. With more of them than that has, some
    directions would be exactly empty, and a density would model noise there.
    """
    return min(preset.channels, preset.base_width)
