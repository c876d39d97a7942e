"""Plans of pictures: size, crop, tiles, colours, and whether nnU-Net can use them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from screener_nnu.baselines import image_size
from screener_nnu.errors import ScreenerError
from screener_nnu.planners.pictures import picture_crop, picture_grid
from screener_nnu.planners.planner import ScreenerPlanner
from screener_nnu.planners.presets import PRESETS
from screener_nnu.planners.settings_check import check_settings
from screener_nnu.planners.stored import planning_basis
from screener_nnu.plans import Plan, StockPlan

torch.set_num_threads(1)


def intensities(mean: float, highest: float) -> dict[str, float]:
    return {
        "mean": mean, "median": mean, "std": 40.0, "min": 0.5, "max": highest,
        "percentile_00_5": 1.5, "percentile_99_5": highest - 5,
    }  # fmt: skip


def fingerprint(
    rows: int = 480, columns: int = 640, colours: int = 1, cases: int = 41, highest: float = 254.5
) -> dict[str, Any]:
    """Pictures around a median size."""
    factors = np.linspace(0.6, 1.4, cases)
    boxes = [[1, round(rows * f), round(columns * f)] for f in factors]
    return {
        "modality": "picture",
        "highest": 255.0 if highest < 256 else 65535.0,
        "spacings": [[999.0, 1.0, 1.0]] * cases,
        "shapes_after_crop": boxes,
        "body_extents_mm": [[999.0, float(r), float(c)] for _, r, c in boxes],
        "foreground_intensity_properties_per_channel": {
            str(i): intensities(100.0 + 10 * i, highest) for i in range(colours)
        },
        "hu_histogram": {"edges": [0.0, 100.0, 256.0], "counts": [2, 1]},
        "cases": {f"case_{i:03d}": {"image": f"/data/{i}.png"} for i in range(cases)},
    }


def make(data: dict[str, Any] | None = None, preset: str = "cpu", **request: Any) -> Plan:
    return ScreenerPlanner(data or fingerprint(), "Dataset601_Photos", preset, **request).plan()


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [
        # The longer side becomes 256 at most and 112 at least; multiples of 16.
        (480, 640, (192, 256)),
        (640, 480, (256, 192)),
        (2848, 4288, (176, 256)),
        (28, 28, (112, 112)),
        (150, 200, (144, 208)),
        (256, 256, (256, 256)),
        # A strip keeps its shorter side.
        (20, 2000, (16, 256)),
    ],
)
def test_size_of_pictures_on_the_grid(rows: int, columns: int, size: tuple[int, int]) -> None:
    found, spacing = picture_grid([[1, rows, columns]])
    assert found == size
    # So that a picture of the median size has that many pixels.
    np.testing.assert_allclose(spacing, (999, rows / size[0], columns / size[1]), atol=1e-4)
    crop = picture_crop(spacing, found)
    _, height, width = crop
    assert crop[0] == 1 and height <= size[0] and width <= size[1]
    assert 0.5 < height * width / (size[0] * size[1]) <= 1


def test_the_median_counts() -> None:
    boxes = [[1, 300, 400], [1, 30, 40], [1, 310, 410]]
    assert picture_grid(boxes) == picture_grid([[1, 300, 400]])


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("preset", ["cpu", "balanced", "paper"])
@pytest.mark.parametrize(("rows", "columns"), [(480, 640), (28, 28), (576, 720)])
def test_nnunet_reads_the_plan_and_builds_its_network(
    colours: int, preset: str, rows: int, columns: int, tmp_path: Path
) -> None:
    plan = make(fingerprint(rows, columns, colours), preset)
    check_settings(plan)
    file = tmp_path / "ScreenerPlans.json"
    file.write_text(json.dumps(plan.to_dict()))
    manager = PlansManager(str(file))
    assert manager.available_configurations == ["2d"]
    assert manager.image_reader_writer_class.__name__ == "NaturalImage2DIO"
    configuration = manager.get_configuration("2d")
    assert len(configuration.patch_size) == len(configuration.spacing) == 2
    assert configuration.normalization_schemes == ["CTNormalization"] * colours
    assert configuration.use_mask_for_norm == [False] * colours
    assert configuration.preprocessor_class.__name__ == "DefaultPreprocessor"
    assert (1, *configuration.patch_size) == plan.settings.crop_size
    for n, divisor in zip(plan.settings.crop_size, plan.divisor, strict=True):
        assert n % divisor == 0
    assert plan.divisor[0] == 1 and plan.channels == colours
    with torch.device("meta"):
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            colours,
            2,
            allow_init=False,
            deep_supervision=False,
        )
        image = torch.zeros(2, colours, *configuration.patch_size)
    assert network(image).shape == (2, 2, *configuration.patch_size)
    halved = configuration.resampling_fn_data(
        np.ones((colours, 1, 8, 6), np.float32), (1, 4, 3), (999, 1, 1), (999, 2, 2)
    )
    assert np.asarray(halved).shape == (colours, 1, 4, 3)


def test_a_plan_is_a_pure_function_and_survives_json() -> None:
    data = fingerprint(colours=3)
    before = copy.deepcopy(data)
    groups = {f"case_{i:03d}": f"patient {i // 3}" for i in range(41)}
    first, again = (make(data, groups=groups, num_test=4) for _ in range(2))
    assert first == again == Plan.from_dict(json.loads(json.dumps(first.to_dict())))
    assert data == before
    assert StockPlan(first.values).configuration_name == "2d"


def test_what_is_kept_of_a_fingerprint_makes_the_same_plan() -> None:
    """When pictures are replaced, plans are compared with those of what was kept."""
    for highest in (254.5, 4064.0):
        data = fingerprint(highest=highest)
        assert make(planning_basis(data)) == make(data)


def test_a_whole_picture_is_one_tile_and_the_crop_of_the_student() -> None:
    plan = make()
    settings = plan.settings
    tile = settings.inference.teacher_tile
    assert settings.preprocessing.picture_size == (192, 256)
    assert tile == settings.inference.student_tile == settings.density.crop_size
    assert tile == settings.distillation.crop_size
    assert all(n >= side for n, side in zip(tile[1:], (192, 256), strict=True))
    assert not any(n % d for n, d in zip(tile, plan.divisor, strict=True))
    assert settings.density.pooling == (1, 4, 4)
    assert settings.preprocessing.storage_spacing == settings.preprocessing.spacing


def test_presets_are_the_same_beside_what_pictures_need() -> None:
    for name, preset in PRESETS.items():
        settings = make(preset=name).settings
        assert settings.preprocessing.equalisation == "none"
        assert settings.descriptor.optimiser == preset.descriptor
        assert (settings.density.kind, settings.density.descriptor) == ("flow", "dense")
        assert settings.density.max_scans == 12 * preset.max_scans
        # A blur of one pixel, as of one voxel.
        assert settings.jitter.blur_sigma_mm == pytest.approx(2.5)
    assert settings.calibration.max_scans == 500


@pytest.mark.parametrize(
    ("highest", "white"), [(254.5, 255), (4064.0, 4095), (4128.0, 8191), (65504.0, 65535)]
)
def test_white_is_that_of_the_depth(highest: float, white: float) -> None:
    settings = make(fingerprint(highest=highest)).settings.preprocessing
    assert settings.hu_window == settings.hu_clip == (0, white)


def test_size_spacing_and_aspect_as_asked_for() -> None:
    settings = make(picture_size=(96, 80), keep_aspect=True).settings.preprocessing
    assert settings.picture_size == (96, 80) and settings.keep_aspect
    assert settings.spacing == (999.0, 5.0, 8.0)
    by_spacing = make(spacing=(1.0, 4.0, 5.0)).settings
    assert by_spacing.preprocessing.picture_size == ()
    assert by_spacing.preprocessing.spacing[1:] == (4.0, 5.0)
    assert by_spacing.inference.teacher_tile[1:] >= (120, 128)
    with pytest.raises(ScreenerError, match="15 80 is out of range: 16 to 4096"):
        make(picture_size=(15, 80))
    for request in ({"picture_size": (96, 80)}, {"keep_aspect": True}):
        with pytest.raises(ScreenerError, match="beside --spacing"):
            make(spacing=(1.0, 4.0, 5.0), **request)


def test_no_picture_is_too_small() -> None:
    data = fingerprint()
    data["body_extents_mm"][0] = [999.0, 3.0, 900.0]
    plan = make(data)
    assert not plan.settings.left_out
    split = plan.settings.split
    assert len(split.validation) == 4 and len(split.train) == 37


def test_groups_are_not_parted() -> None:
    groups = {f"case_{i:03d}": str(i % 7) for i in range(41)}
    split = make(groups=groups, num_test=5).settings.split
    parts = [{groups[c] for c in cases} for cases in (split.train, split.validation, split.test)]
    assert all(parts) and sum(map(len, parts)) == 7


def test_what_was_planned_has_its_reasons() -> None:
    reasons = make().settings.reasons
    assert reasons["modality"] == "picture"
    assert "[192, 256]" in reasons["spacing"]
    assert "pixels" in reasons["crop_size"] and "10 %" in reasons["split"]


def test_a_size_that_nobody_wrote_is_rounded_up_to_what_the_network_takes() -> None:
    plan = make(fingerprint(512, 768))
    settings = plan.settings
    assert settings.preprocessing.picture_size == (176, 256) and plan.divisor == (1, 32, 32)
    check_settings(plan)
    assert image_size(plan) == (1, 192, 256)
    assert settings.image_size(()) == (1, 176, 256)
    assert settings.image_size((1, 64, 96)) == (1, 64, 96)
    written = plan.with_settings(settings.override(["baseline.crop_size=[1, 176, 256]"]))
    with pytest.raises(ScreenerError, match="baseline.crop_size .* multiple of"):
        check_settings(written)
