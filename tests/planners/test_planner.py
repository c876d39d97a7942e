"""The whole plan: golden plans of five kinds of CT, and its use by nnU-Net.

The golden numbers follow from the rules by hand: spacing from 144 mm and the number of voxels,
patch from the nearest multiple of the strides, the rest from the memory formula. A change of a
rule or of a constant changes them and has to be meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from screener_nnu.descriptors import descriptor_of
from screener_nnu.errors import ScreenerError
from screener_nnu.planners.planner import ScreenerPlanner
from screener_nnu.planners.presets import PRESETS
from screener_nnu.planners.settings_check import check_settings
from screener_nnu.plans import JitterSettings, Plan, ScreenerSettings

torch.set_num_threads(1)
Triple = tuple[float, float, float]
INTENSITIES = {
    "mean": -60.0, "median": -20.0, "std": 310.0, "min": -1022.0, "max": 1500.0,
    "percentile_00_5": -990.0, "percentile_99_5": 420.0,
}  # fmt: skip

# Median spacing (mm) and body (mm), z, y, x.
THIN = ((1.5, 0.75, 0.75), (400.0, 320.0, 420.0))
THICK = ((5.0, 0.75, 0.75), (400.0, 320.0, 420.0))
COARSE = ((2.5, 3.906, 3.906), (285.0, 255.0, 445.0))
CROPPED = ((3.27, 2.0, 2.0), (150.0, 200.0, 250.0))


def fingerprint(data: tuple[Triple, Triple], cases: int = 40) -> dict[str, Any]:
    """Cases around the median, which the planner has to take, not the mean."""
    spacing, extent = data
    factors = np.linspace(0.8, 1.2, cases - 1 if cases % 2 == 0 else cases)
    factors = np.append(factors, [1.0] * (cases - len(factors)))
    return {
        "spacings": [[s * f for s in spacing] for f in factors],
        "body_extents_mm": [[e * f for e in extent] for f in factors],
        "foreground_intensity_properties_per_channel": {"0": INTENSITIES},
        "hu_histogram": {"edges": [-1024.0, -100.0, 100.0, 3072.0], "counts": [1, 2, 1]},
        "cases": {f"case_{i:03d}": {"image": f"/data/{i}.nii.gz"} for i in range(cases)},
    }


def make(data: tuple[Triple, Triple], **request: Any) -> tuple[Plan, ScreenerSettings]:
    plan = ScreenerPlanner(fingerprint(data), "Dataset901_Trunk", **request).plan()
    return plan, plan.settings


def numbers(settings: ScreenerSettings) -> tuple[Any, ...]:
    pre, stage = settings.preprocessing, settings.descriptor
    return (
        pre.spacing,
        settings.crop_size,
        settings.density.pooling,
        (stage.head_width, stage.positives, stage.volumes_per_step),
    )


def test_thin_slice_ct_with_the_paper_preset_is_the_paper() -> None:
    plan, settings = make(THIN, preset="paper")
    assert numbers(settings) == ((2.25, 1.5, 1.5), (64, 96, 96), (2, 3, 3), (8192, 1024, 8))
    grid = [n // k for n, k in zip(settings.crop_size, settings.density.pooling, strict=True)]
    assert grid == [32, 32, 32]
    contrast = settings.descriptor
    assert (contrast.loss, contrast.channels, contrast.scale_range) == (
        "vicreg",
        32,
        (2 / 3, 4 / 3),
    )
    assert contrast.optimiser.steps == 300_000 and contrast.optimiser.warmup_steps == 10_000
    density = settings.density.optimiser
    assert density.steps == 500_000 and density.warmup_steps == 10_000
    assert settings.condition.kind == "masking_invariant"
    # Spacings up to (6, 4, 4) mm for the condition.
    widest = [s * settings.condition.contrast.scale_range[1] for s in (2.25, 1.5, 1.5)]
    np.testing.assert_allclose(widest, (6, 4, 4))
    density = settings.density
    assert (density.kind, density.flow_steps, density.hidden, density.noise) == (
        "flow",
        64,
        512,
        0.1,
    )
    assert (density.optimiser.steps, density.volumes_per_step) == (500_000, 4)
    # Stored finer than the network sees, as the authors did.
    assert settings.preprocessing.storage_spacing == (1.5, 1.0, 1.0)
    configuration = plan.configuration
    assert configuration["patch_size"] == [64, 96, 96] and configuration["batch_size"] == 8
    assert configuration["spacing"] == [2.25, 1.5, 1.5]


GOLDEN = [
    # 24 GB hold the paper's step with a head of 2048; the next smaller width is the first to go.
    (THIN, "balanced", None, (2.25, 1.5, 1.5), (64, 96, 96), (2, 3, 3), (2048, 1024, 8)),
    (THIN, "paper", 24.0, (2.25, 1.5, 1.5), (64, 96, 96), (2, 3, 3), (2048, 1024, 8)),
    # 8 GB: head, positives and volumes are used up, network and crop are not touched.
    (THIN, "paper", 8.0, (2.25, 1.5, 1.5), (64, 96, 96), (2, 3, 3), (512, 512, 2)),
    # The cpu crop: 32 x 48 x 48 are 15 % above 40^3, so the plane gives in.
    (THIN, "cpu", None, (4.7173, 3.1449, 3.1449), (32, 40, 40), (2, 2, 2), (512, 512, 4)),
    # Slices of 5 mm: 144 mm are 29 slices, 32 the nearest multiple; half the crop buys a batch.
    # In 24 GB two more pairs would not fit.
    (THICK, "paper", None, (5.0, 1.5, 1.5), (32, 96, 96), (1, 3, 3), (8192, 1024, 16)),
    (THICK, "balanced", None, (5.0, 1.5, 1.5), (32, 96, 96), (1, 3, 3), (8192, 1024, 8)),
    # Coarse trunks: the data's own voxels; 144 mm are 58 x 37 x 37 of them. One voxel of 3.9 mm is
    # nearest to 4.5 mm, but 28 x 40 x 40 positions are too many: both give in.
    (COARSE, "balanced", None, (2.5, 3.906, 3.906), (56, 40, 40), (2, 2, 2), (8192, 1024, 16)),
    (COARSE, "cpu", None, (3.6, 3.906, 3.906), (40, 40, 40), (2, 2, 2), (512, 512, 4)),
    # Crops around an organ: 150 mm of slices hold 45, of which 40 are a multiple of 8.
    (CROPPED, "balanced", None, (3.27, 2.0, 2.0), (40, 80, 80), (2, 2, 2), (8192, 1024, 12)),
    (CROPPED, "cpu", None, (4.7173, 3.1449, 3.1449), (28, 48, 48), (2, 3, 3), (512, 512, 4)),
]


@pytest.mark.parametrize(
    ("data", "preset", "memory_gb", "spacing", "crop", "pooling", "step"), GOLDEN
)
def test_golden_plans(
    data: tuple[Triple, Triple],
    preset: str,
    memory_gb: float | None,
    spacing: Triple,
    crop: tuple[int, int, int],
    pooling: tuple[int, int, int],
    step: tuple[int, int, int],
) -> None:
    plan, settings = make(data, preset=preset, memory_gb=memory_gb)
    assert numbers(settings) == (spacing, crop, pooling, step)
    assert settings.memory_gb == (memory_gb or PRESETS[preset].memory_gb)
    widths = plan.architecture["arch_kwargs"]
    assert widths["features_per_stage"][0] == PRESETS[preset].base_width
    # The condition trains on the same step.
    contrast = settings.condition.contrast
    assert (contrast.head_width, contrast.positives, contrast.volumes_per_step) == step
    # Only the paper stores finer than its grid.
    if preset != "paper":
        assert settings.preprocessing.storage_spacing == spacing


@pytest.mark.parametrize(
    ("preset", "kind", "descriptor"),
    [
        ("cpu", "experts", "dense_with_filters"),
        ("balanced", "flow", "dense"),
        ("paper", "flow", "dense"),
    ],
)
def test_kind_of_the_density(preset: str, kind: str, descriptor: str) -> None:
    """The plan's descriptor, with filters where two experts need them, and only there."""
    settings = make(THIN, preset=preset)[1]
    assert (settings.density.kind, descriptor_of(settings.density)) == (kind, descriptor)
    other = settings.override(["density.kind=gaussian"])
    assert descriptor_of(other.density) == settings.density.descriptor == "dense"


@pytest.mark.parametrize(
    ("data", "preset", "crop", "volumes"),
    [
        # One crop of about as many voxels as four of the patch (40^3, 32 x 40 x 40, 28 x 48 x 48).
        (COARSE, "cpu", (64, 64, 64), 8),
        (THIN, "cpu", (48, 64, 64), 8),
        (CROPPED, "cpu", (44, 80, 80), 8),
        (THIN, "paper", (64, 96, 96), 8),
    ],
)
def test_crops_of_the_student(
    data: tuple[Triple, Triple], preset: str, crop: tuple[int, int, int], volumes: int
) -> None:
    plan, settings = make(data, preset=preset)
    assert (settings.distillation.crop_size, settings.distillation.volumes_per_step) == (
        crop,
        volumes,
    )
    assert not any(n % d for n, d in zip(crop, plan.divisor, strict=True))


@pytest.mark.parametrize(
    ("preset", "learns", "size"),
    [("cpu", "condition", "density"), ("balanced", "score", "distillation")],
)
def test_what_the_student_learns(preset: str, learns: str, size: str) -> None:
    """A processor has no time to teach a UNet the score, and the others follow the paper."""
    _, settings = make(THIN, preset=preset)
    assert settings.distillation.learns == learns
    crop = list(getattr(settings, size).crop_size)
    assert f"the teacher's {learns} from crops of " in settings.reasons["student"]
    assert f"{crop} voxels" in settings.reasons["student"]
    drawn = settings.density if learns == "condition" else None
    assert drawn is None or settings.distillation.max_scans == drawn.max_scans > 0


def test_what_gave_way_stands_in_the_plan() -> None:
    _, settings = make(THIN, preset="paper", memory_gb=8.0)
    assert (
        "head 8192 -> 2048; head 2048 -> 512; positives 1024 -> 512" in settings.reasons["memory"]
    )
    assert "of 8 GB" in settings.reasons["memory"]
    _, untouched = make(THIN, preset="paper")
    assert "nothing had to give way" in untouched.reasons["memory"]
    for key in (
        "spacing", "crop_size", "pooling", "volumes_per_step", "student", "hu_clip", "split",
    ):  # fmt: skip
        assert len(untouched.reasons[key].split()) > 5


def test_a_plan_is_a_pure_function_and_survives_json() -> None:
    first, settings = make(THIN, preset="cpu", seed=3, num_test=5)
    again, _ = make(THIN, preset="cpu", seed=3, num_test=5)
    assert first == again == Plan.from_dict(json.loads(json.dumps(first.to_dict())))
    other, _ = make(THIN, preset="cpu", seed=4, num_test=5)
    assert other.settings.split != first.settings.split
    assert len(settings.split.test) == 5 and settings.seed == 3


def test_split_is_stratified_by_the_given_sources() -> None:
    made = fingerprint(THIN, 40)
    sources = {case: "DatasetA" if i < 30 else "DatasetB" for i, case in enumerate(made["cases"])}
    plan = ScreenerPlanner(made, "Dataset901_T", preset="cpu", num_test=8, sources=sources).plan()
    test = [sources[case] for case in plan.settings.split.test]
    assert 5 <= test.count("DatasetA") <= 7 and len(test) == 8


def test_intensities_of_the_fingerprint_become_clip_and_normalisation() -> None:
    plan, settings = make(THIN, preset="cpu")
    assert settings.preprocessing.hu_clip == (-990.0, 420.0)
    assert plan.values["foreground_intensity_properties_per_channel"]["0"] == INTENSITIES
    assert plan.configuration["normalization_schemes"] == ["CTNormalization"]


def test_scans_below_half_a_crop_are_left_out_by_name() -> None:
    """The cpu crop is (32, 40, 40) of 4.72 x 3.14 x 3.14 mm: 75 x 63 x 63 mm are half of it."""
    made = fingerprint(THIN, 40)
    made["body_extents_mm"][3] = [74.0, 320.0, 420.0]
    made["body_extents_mm"][7] = [400.0, 62.0, 420.0]
    made["body_extents_mm"][9] = [76.0, 64.0, 64.0]
    plan = ScreenerPlanner(made, "Dataset901_T", preset="cpu").plan()
    planned = {case for cases in asdict(plan.settings.split).values() for case in cases}
    assert set(made["cases"]) - planned == {"case_003", "case_007"}
    reasons = plan.settings.left_out
    assert set(reasons) == {"case_003", "case_007"}
    assert "74 x 320 x 420 mm" in reasons["case_003"] and "75 x 63 x 63 mm" in reasons["case_003"]


def test_a_width_of_ones_own_changes_the_network_alone() -> None:
    usual, slim = (make(COARSE, preset="cpu", **width)[0].to_dict() for width in ({}, {"width": 8}))
    features = [
        p["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].pop("features_per_stage")
        for p in (usual, slim)
    ]
    assert features == [[16, 32, 64, 128], [8, 16, 32, 64]]
    reasons = [p["screener"].pop("reasons") for p in (usual, slim)]
    assert "8 channels" in reasons[1]["network"] and reasons[0]["network"] != reasons[1]["network"]
    # More channels than the last stage has would leave directions empty.
    networks = [
        contrast.pop("channels")
        for p in (usual, slim)
        for contrast in (p["screener"]["descriptor"], p["screener"]["condition"]["contrast"])
    ]
    assert networks == [16, 16, 8, 8] and reasons[1]["channels"].startswith("8 of descriptor")
    assert usual == slim


@pytest.mark.parametrize("width", [0, -8, 129])
def test_an_impossible_width_is_refused(width: int) -> None:
    with pytest.raises(ScreenerError, match="1 to 128"):
        make(COARSE, preset="cpu", width=width)


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ScreenerError, match="no preset 'huge'.*paper, balanced, cpu"):
        make(THIN, preset="huge")


def test_data_folders_of_stock_and_screener_are_apart() -> None:
    plan, settings = make(THIN, preset="cpu", plans_name="Mine")
    stock = plan.configuration["data_identifier"]
    assert stock == "Mine_3d_fullres" and settings.data_identifier == "Mine_screener"
    assert plan.name == "Mine"


@pytest.mark.parametrize("data", [THIN, THICK, COARSE, CROPPED])
@pytest.mark.parametrize("preset", ["cpu", "balanced"])
def test_nnunet_reads_the_plan_and_finds_its_functions(
    data: tuple[Triple, Triple], preset: str, tmp_path: Path
) -> None:
    plan, settings = make(data, preset=preset)
    file = tmp_path / "ScreenerPlans.json"
    file.write_text(json.dumps(plan.to_dict()))
    manager = PlansManager(str(file))
    assert manager.dataset_name == "Dataset901_Trunk" and manager.plans_name == "ScreenerPlans"
    assert manager.transpose_forward == [0, 1, 2]
    assert manager.image_reader_writer_class.__name__ == "SimpleITKIO"
    configuration = manager.get_configuration("3d_fullres")
    divisor = plan.divisor
    assert tuple(configuration.patch_size) == settings.crop_size
    for patch, multiple in zip(configuration.patch_size, divisor, strict=True):
        assert patch % multiple == 0
    assert configuration.preprocessor_class.__name__ == "DefaultPreprocessor"
    check_resampling(configuration.resampling_fn_data, 1, False)
    check_resampling(configuration.resampling_fn_seg, 1, True)
    check_resampling(configuration.resampling_fn_probabilities, 2, False)
    with torch.device("meta"):
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            1,
            2,
            allow_init=False,
            deep_supervision=False,
        )
        image = torch.zeros(1, 1, *configuration.patch_size)
    assert network(image).shape == (1, 2, *configuration.patch_size)


def check_resampling(function: Callable[..., Any], channels: int, labels: bool) -> None:
    """The plan's function halves an image: means of pairs, or labels that were there."""
    array = np.zeros((channels, 4, 6, 8), np.float32)
    array[:, :, :, 4:] = 3
    result = np.asarray(function(array, (2, 3, 4), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)))
    assert result.shape == (channels, 2, 3, 4)
    np.testing.assert_allclose(result[:, :, :, 0], 0, atol=1e-6)
    np.testing.assert_allclose(result[:, :, :, 3], 3, atol=1e-6)
    if labels:
        assert set(np.unique(result)) == {0.0, 3.0}


def test_one_patch_runs_through_the_cpu_network() -> None:
    plan, settings = make(COARSE, preset="cpu")
    architecture = plan.architecture
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        3,
        deep_supervision=True,
    )
    with torch.no_grad():
        outputs = network(torch.randn(1, 1, *settings.crop_size))
    assert outputs[0].shape == (1, 3, *settings.crop_size)
    assert torch.isfinite(outputs[0]).all()


def test_contrast_follows_the_preset() -> None:
    """The paper's for long trainings; short ones keep what jitter and CLAHE would hide."""
    _, paper = make(THIN, preset="paper")
    assert paper.preprocessing.equalisation == "adaptive" and paper.jitter == JitterSettings()
    assert paper.jitter.noise == 0.1 and paper.jitter.brightness == (0.8, 1.2)
    _, cpu = make(THIN, preset="cpu")
    assert cpu.preprocessing.equalisation == "none"
    assert cpu.jitter.noise == 0.05 and cpu.jitter.brightness == (0.97, 1.03)
    for settings in (paper, cpu):
        levels = settings.preprocessing.hu_levels
        assert levels[0] == -1000 and levels[-1] == 300 and all(np.diff(levels) > 0)


def test_a_spacing_of_ones_own_is_that_of_all_parts() -> None:
    plan = make(THIN, preset="cpu", spacing=(3.0, 2.0, 2.0))
    settings = plan[0].settings
    assert plan[0].configuration["spacing"] == [3.0, 2.0, 2.0]
    assert settings.preprocessing.spacing == settings.preprocessing.storage_spacing == (3, 2, 2)
    assert settings.crop_size == tuple(plan[0].configuration["patch_size"])
    # As many voxels as the preset has, about as wide as they allow.
    assert 0.5 < np.prod(settings.crop_size) / PRESETS["cpu"].crop_voxels <= 1.1
    assert "as asked for" in settings.reasons["spacing"]
    check_settings(plan[0])


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (-2.0, 1.0, 1.0), (1.0, 1.0, 30.0)])
def test_an_impossible_spacing_is_refused(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(ScreenerError, match="is out of range: three numbers"):
        make(COARSE, preset="cpu", spacing=spacing)
