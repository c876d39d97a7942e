"""Settings to JSON and back, and what is said about files that are not a plan of ours."""

from __future__ import annotations

import copy
import json
import pickle
import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import (
    ConditionSettings,
    ContrastSettings,
    DensitySettings,
    DistillationSettings,
    InferenceSettings,
    JitterSettings,
    OptimiserSettings,
    Plan,
    PreprocessingSettings,
    ScreenerSettings,
    SplitSettings,
    StockPlan,
    read_plan,
    write_json,
)


def settings() -> ScreenerSettings:
    """No two numbers alike, so that a mix-up shows."""
    optimiser = OptimiserSettings(13, 12, 11, 0.25, 0.5, 0.75, 1.25)
    contrast = ContrastSettings(optimiser, "infonce", 14, 15, 16, 17, (0.6, 1.4), 0.2)
    return ScreenerSettings(
        preset="cpu",
        memory_gb=18.0,
        data_identifier="Plans_screener",
        seed=19,
        crop_size=(20, 21, 22),
        preprocessing=PreprocessingSettings((2.5, 1.5, 1.25), (2.0, 1.0, 0.75), (-900.0, 400.0)),
        jitter=JitterSettings(noise=0.3),
        descriptor=contrast,
        condition=ConditionSettings(contrast, "sincos"),
        density=DensitySettings(optimiser, (2, 3, 4), (24, 25, 26), "gaussian"),
        distillation=DistillationSettings(optimiser, (27, 28, 29)),
        inference=InferenceSettings((30, 31, 32), (33, 34, 35)),
        split=SplitSettings(("a", "b"), ("c",)),
        workers=36,
        reasons={"spacing": "because"},
    )


def test_round_trip_through_json_keeps_values_and_types() -> None:
    before = settings()
    text = json.dumps(before.to_dict())
    after = ScreenerSettings.from_dict(json.loads(text))
    assert after == before
    assert json.dumps(after.to_dict()) == text
    assert type(after.crop_size) is tuple and type(after.split.train) is tuple
    assert type(after.preprocessing.spacing[0]) is float


def test_every_setting_is_written() -> None:
    values = settings().to_dict()
    for owner, node in ((ScreenerSettings, values), (DensitySettings, values["density"])):
        assert set(node) == {f.name for f in fields(owner)}
    assert values["condition"]["contrast"]["optimiser"]["eps"] == 0.75


def test_whole_numbers_are_read_as_floats_where_floats_belong() -> None:
    values = settings().to_dict()
    values["memory_gb"] = 24
    read = ScreenerSettings.from_dict(values)
    assert read.memory_gb == 24.0 and type(read.memory_gb) is float


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("seed", "x", r"screener\.seed must be int"),
        ("crop_size", [1, 2], r"screener\.crop_size needs 3 values, but has 2"),
        ("crop_size", None, r"screener\.crop_size must be a list"),
        ("descriptor.loss", None, r"screener\.descriptor\.loss must be str"),
        ("split.train", [1], r"screener\.split\.train must be str"),
        ("low_precision_cpu", 1, r"screener\.low_precision_cpu must be bool"),
        ("jitter", [1], r"screener\.jitter must hold settings"),
        ("reasons", 3, r"screener\.reasons must be dict, but is 3"),
    ],
)
def test_wrong_types_name_their_place(place: str, value: Any, message: str) -> None:
    values = settings().to_dict()
    node = values
    *parents, leaf = place.split(".")
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    with pytest.raises(ScreenerError, match=message):
        ScreenerSettings.from_dict(values)


def test_missing_and_unknown_settings_are_named_with_the_way_out() -> None:
    values = settings().to_dict()
    del values["density"]["pooling"]
    values["density"]["sigma"] = 1
    with pytest.raises(ScreenerError, match=r"screener\.density.*pooling") as error:
        ScreenerSettings.from_dict(values)
    assert "screener_plan_and_preprocess" in str(error.value)


def test_settings_of_a_newer_version_are_named_with_the_way_out() -> None:
    values = settings().to_dict()
    values["density"]["sigma"] = 1
    with pytest.raises(ScreenerError, match=r"screener\.density .* has the settings sigma.*update"):
        ScreenerSettings.from_dict(values)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("descriptor.optimiser.steps=0", "must be at least 1, but is 0"),
        ("descriptor.optimiser.steps=-3", "must be at least 1, but is -3"),
        ("density.optimiser.steps_per_epoch=0", "must be at least 1, but is 0"),
        ("distillation.optimiser.steps=2.5", "must be int, but is 2.5"),
        ("descriptor.optimiser.learning_rate=NaN", "must be a finite number, but is nan"),
        ("descriptor.optimiser.learning_rate=1e999", "must be a finite number, but is inf"),
        ("descriptor.optimiser.learning_rate=0", "must be above 0, but is 0"),
        ("descriptor.optimiser.learning_rate=fast", "must be float, but is 'fast'"),
        ("descriptor.optimiser.eps=0", "must be above 0"),
        ("descriptor.volumes_per_step=0", "must be at least 1"),
        ("condition.contrast.positives=0", "must be at least 1"),
        ("condition.position.volumes_per_step=0", "must be at least 1"),
        ("condition.masks.probability=1.5", "must be at least 0 and at most 1, but is 1.5"),
        ("descriptor.scale_range=[2, 1]", "must be a lower value, then a higher one"),
        ("descriptor.scale_range=[0, 1]", "must be above 0"),
        ("descriptor.vicreg_weights=[1, -1, 1]", "must be at least 0"),
        ("density.pooling=[2, 0, 2]", "must be at least 1"),
        ("density.pooling=2", "must be a list"),
        ("density.volumes_per_step=0", "must be at least 1"),
        ("density.kernel_size=4", "must be odd, but is 4"),
        ("density.keep=first", "must be best or last, but is first"),
        ("distillation.target=doctor", "must be teacher or hu_rarity, but is doctor"),
        ("distillation.tail_weight=-1", "must be at least 0"),
        ("distillation.clip_sigma=0", "must be above 0"),
        ("inference.overlap=1", "must be at least 0 and below 1"),
        ("inference.student_tile=[16, 16, 0]", "must be at least 1"),
        ("preprocessing.hu_window=[300, 300]", "must be a lower and a higher value"),
        ("preprocessing.spacing=[1, -1, 1]", "must be above 0"),
        ("preprocessing.equalisation=some", "must be adaptive or global or none"),
        ("calibration.max_scans=-1", "must be at least 0"),
        ("workers=-1", "must be at least 0"),
        ("seed=-1", "must be at least 0"),
    ],
)
def test_values_that_cannot_be_trained_with_are_refused(assignment: str, message: str) -> None:
    key, _, text = assignment.partition("=")
    with pytest.raises(ScreenerError) as error:
        settings().override([assignment])
    assert f"screener.{key} {message}" in str(error.value)
    values = settings().to_dict()  # and in a plan that was changed by hand
    *parents, leaf = key.split(".")
    node = values
    for parent in parents:
        node = node[parent]
    node[leaf] = json.loads(text) if text[0] in "-0123456789[N" else text
    with pytest.raises(ScreenerError, match=re.escape(message)):
        ScreenerSettings.from_dict(values)


def test_a_warm_up_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ScreenerError, match=r"density\.optimiser: warmup_steps .* steps \(4\)"):
        settings().override(["density.optimiser.steps=4"])
    short = ["density.optimiser.steps=4", "density.optimiser.warmup_steps=4"]
    assert settings().override(short).density.optimiser.steps == 4


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("density.pooling", "setting 'density.pooling' is not of the form key=value"),
        ("density.sigma=1", "no setting 'density.sigma'; known here: body_only, "),
        ("densty.noise=1", "no setting 'densty.noise'; known here: baseline, "),
        ("seed.x=1", "no setting 'seed.x'"),
        ("=3", "no setting ''"),
        ("density=3", "screener.density must hold settings, but is 3"),
    ],
)
def test_overrides_that_name_no_setting_are_refused(assignment: str, message: str) -> None:
    with pytest.raises(ScreenerError) as error:
        settings().override([assignment])
    assert message in str(error.value)


def test_settings_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        settings().seed = 1  # type: ignore[misc]


def test_override_leaves_the_original_alone() -> None:
    before = settings()
    after = before.override(["density.pooling=[1, 2, 2]", "seed=3"])
    assert after.density.pooling == (1, 2, 2) and after.seed == 3
    assert before == settings()
    assert before.override([]) == before


VALUES: dict[str, Any] = {
    "dataset_name": "Dataset901_Trunk",
    "plans_name": "ScreenerPlans",
    "configurations": {
        "3d_fullres": {
            "architecture": {
                "network_class_name": "PlainConvUNet",
                "arch_kwargs": {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 3]]},
            },
            "spacing": [3.0, 2.0, 2.0],
        }
    },
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": -60.0, "std": 310.0, "percentile_99_5": 420.0, "percentile_00_5": -990.0}
    },
    "screener": settings().to_dict(),
}


def test_a_plan_tells_what_nnunet_reads_of_it() -> None:
    plan = Plan.from_dict(VALUES)
    assert (plan.name, plan.dataset) == ("ScreenerPlans", "Dataset901_Trunk")
    assert plan.configuration["spacing"] == [3.0, 2.0, 2.0]
    assert plan.architecture["network_class_name"] == "PlainConvUNet"
    assert plan.divisor == (2, 4, 6)
    found = plan.intensities
    assert (found.low, found.high, found.mean, found.std) == (-990.0, 420.0, -60.0, 310.0)
    assert StockPlan(VALUES).intensities == found


def test_a_plan_never_changes() -> None:
    values = copy.deepcopy(VALUES)
    plan = Plan.from_dict(values)
    values["configurations"].clear()
    plan.to_dict()["configurations"].clear()
    assert plan.to_dict() == VALUES
    other = plan.with_settings(plan.settings.override(["seed=9", "density.kind=gaussian"]))
    assert plan == Plan.from_dict(VALUES) != other
    assert other == Plan.from_dict(other.to_dict())
    assert other.settings.seed == other.values["screener"]["seed"] == 9
    with pytest.raises(FrozenInstanceError):
        plan.settings = other.settings  # type: ignore[misc]


def test_a_plan_crosses_a_process_border_and_is_a_key() -> None:
    plan = Plan.from_dict(VALUES)
    there = pickle.loads(pickle.dumps(plan))
    assert there == plan and hash(there) == hash(plan)
    other = plan.with_settings(plan.settings.override(["seed=9"]))
    assert {plan: 1, other: 2}[there] == 1


def test_settings_that_an_older_plan_lacks_stay_out_of_its_dictionary() -> None:
    values = copy.deepcopy(VALUES)
    del values["screener"]["calibration"]
    plan = Plan.from_dict(values)
    assert plan.settings == settings() and "calibration" not in plan.to_dict()["screener"]


def test_plan_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "ScreenerPlans.json"
    write_json(path, VALUES)
    read = read_plan(path)
    assert read == Plan(VALUES, settings()) and read.to_dict() == VALUES
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_missing_plan_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ScreenerError, match=r"no plan .*Plans\.json: run screener_plan_and_prep"):
        read_plan(tmp_path / "Plans.json")


def test_plan_of_stock_nnunet_is_told_apart(tmp_path: Path) -> None:
    write_json(tmp_path / "nnUNetPlans.json", {"plans_name": "nnUNetPlans"})
    with pytest.raises(ScreenerError, match="plan of stock nnU-Net"):
        read_plan(tmp_path / "nnUNetPlans.json")


def test_a_plan_spoiled_by_hand_is_named(tmp_path: Path) -> None:
    (tmp_path / "Plans.json").write_text('{"screener": {,}')
    with pytest.raises(ScreenerError, match=r"Plans\.json"):
        read_plan(tmp_path / "Plans.json")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})

    def fails(source: Path, target: Path) -> None:
        assert json.loads(source.read_text()) == {"a": 2} and source.parent == target.parent
        raise OSError("disk full")

    monkeypatch.setattr("screener_nnu.files.os.replace", fails)
    with pytest.raises(Exception, match="disk full"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_case_error_crosses_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(CaseError("scan_7", "it is a cat; leave it out")))
    assert isinstance(error, ScreenerError)
    assert (error.case, error.reason) == ("scan_7", "it is a cat; leave it out")
    assert str(error) == "scan_7: it is a cat; leave it out"
