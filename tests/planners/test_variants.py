"""Another setting is another plan: settings by words, and runs that are never overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.paths import plan_file, stage_folder
from screener_nnu.planners.planner import ScreenerPlanner
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import Plan, ScreenerSettings, read_plan, write_json

DATASET = "Dataset901_Trunk"


def made_plan(**request: Any) -> Plan:
    values = dict.fromkeys(("mean", "median", "std", "min", "max"), 0.0)
    fingerprint = {
        "spacings": [[1.5, 0.75, 0.75]] * 10,
        "body_extents_mm": [[400.0, 320.0, 420.0]] * 10,
        "foreground_intensity_properties_per_channel": {
            "0": {**values, "percentile_00_5": -990.0, "percentile_99_5": 420.0}
        },
        "hu_histogram": {"edges": [-1024.0, -100.0, 100.0, 3072.0], "counts": [1, 2, 1]},
        "cases": {f"case_{i}": {} for i in range(10)},
    }
    return ScreenerPlanner(fingerprint, DATASET, preset="cpu", **request).plan()


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path / kind))
    write_json(plan_file(DATASET, "ScreenerPlans"), made_plan().to_dict())
    return tmp_path


def settings_of(name: str) -> ScreenerSettings:
    return read_plan(plan_file(DATASET, name)).settings


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("descriptor.loss=vicreg", ("descriptor", "loss"), "vicreg"),
        ("descriptor.head_width=2048", ("descriptor", "head_width"), 2048),
        ("jitter.noise=0", ("jitter", "noise"), 0.0),
        ("jitter.noise=5e-2", ("jitter", "noise"), 0.05),
        ("distillation.mirror=false", ("distillation", "mirror"), False),
        ("distillation.mirror=False", ("distillation", "mirror"), False),
        ("density.crop_size=[32, 48,48]", ("density", "crop_size"), (32, 48, 48)),
        (
            "condition.contrast.scale_range=[0.5, 2]",
            ("condition", "contrast", "scale_range"),
            (0.5, 2.0),
        ),
        ("density.descriptor_plans=Other", ("density", "descriptor_plans"), "Other"),
        ('density.descriptor_plans=""', ("density", "descriptor_plans"), ""),
        ('split.test=["case_1"]', ("split", "test"), ("case_1",)),
        ("seed=7", ("seed",), 7),
    ],
)
def test_one_setting_changes_and_all_others_stay(
    word: str, path: tuple[str, ...], value: object
) -> None:
    derive_plan(DATASET, "Variant", [word])
    before, after = settings_of("ScreenerPlans").to_dict(), settings_of("Variant")
    found: Any = after
    for name in path:
        found = getattr(found, name)
    assert found == value and type(found) is type(value)
    node: Any = before
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = list(value) if isinstance(value, tuple) else value
    assert after.to_dict() == before


def test_several_settings_and_the_name_of_the_plan() -> None:
    derive_plan(DATASET, "Variant", ["descriptor.loss=vicreg", "seed=1"])
    plan = read_plan(plan_file(DATASET, "Variant"))
    settings = plan.settings
    assert plan.name == "Variant"
    assert (settings.descriptor.loss, settings.seed) == ("vicreg", 1)
    # The cases are those of the plan it comes from.
    assert settings.data_identifier == "ScreenerPlans_screener"
    assert settings_of("ScreenerPlans") == made_plan().settings


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("descriptor.los=vicreg", r"no setting 'descriptor\.los'; known here: .*head_width.*loss"),
        ("desc.loss=vicreg", r"no setting 'desc\.loss'; known here: .*descriptor.*jitter"),
        ("descriptor.loss.x=1", r"no setting 'descriptor\.loss\.x'"),
        ("descriptor.loss", "not of the form key=value"),
        ("descriptor.loss=3", r"screener\.descriptor\.loss must be str, but is 3"),
        ("seed=abc", r"screener\.seed must be int, but is 'abc'"),
        ("seed=1.5", r"screener\.seed must be int, but is 1\.5"),
        ("seed=true", r"screener\.seed must be int, but is True"),
        ("jitter.noise=true", r"screener\.jitter\.noise must be float, but is True"),
        ("distillation.mirror=1", r"mirror must be bool, but is 1"),
        ("density.crop_size=[1, 2]", r"crop_size needs 3 values, but has 2"),
        ("density.crop_size=40", r"crop_size must be a list, but is 40"),
        ("density.crop_size=[1, 2, 3.5]", r"crop_size must be int, but is 3\.5"),
        ("descriptor=5", r"screener\.descriptor must hold settings, but is 5"),
    ],
)
def test_wrong_settings_are_named(word: str, message: str) -> None:
    with pytest.raises(ScreenerError, match=message):
        derive_plan(DATASET, "Variant", [word])
    assert not plan_file(DATASET, "Variant").exists()


def test_a_variant_may_come_from_another_plan() -> None:
    derive_plan(DATASET, "First", ["seed=1"])
    derive_plan(DATASET, "Second", ["descriptor.loss=vicreg"], from_plans="First")
    assert settings_of("Second").seed == 1
    derive_plan(DATASET, "Copy", [], from_plans="First")
    assert settings_of("Copy") == settings_of("First")


def test_missing_source_names_the_command() -> None:
    with pytest.raises(ScreenerError, match="screener_plan_and_preprocess"):
        derive_plan(DATASET, "Variant", ["seed=1"], from_plans="Nowhere")


def test_a_trained_plan_refuses_other_settings_but_takes_its_own() -> None:
    derive_plan(DATASET, "Variant", ["seed=1"])
    folder = stage_folder(DATASET, "density", "Variant")
    folder.mkdir(parents=True)
    derive_plan(DATASET, "Variant", ["seed=3"])  # a refused run leaves an empty folder behind
    derive_plan(DATASET, "Variant", ["seed=1"])
    (folder / "checkpoint_latest.pth").touch()
    before = plan_file(DATASET, "Variant").read_bytes()
    with pytest.raises(ScreenerError, match=r"Variant has other settings.*\(density\).*-p"):
        derive_plan(DATASET, "Variant", ["seed=2"])
    for same in (["seed=1"], []):
        derive_plan(DATASET, "Variant", same)
    assert plan_file(DATASET, "Variant").read_bytes() == before
    derive_plan(DATASET, "Variant", ["seed=2"], restart=True)
    assert settings_of("Variant").seed == 2


def test_an_untrained_variant_may_change_and_keeps_earlier_words() -> None:
    derive_plan(DATASET, "Variant", ["seed=1"])
    other = stage_folder(DATASET, "density", "ScreenerPlans")  # another plan's
    other.mkdir(parents=True)
    (other / "checkpoint_final.pth").touch()
    derive_plan(DATASET, "Variant", ["jitter.noise=0.2"])
    assert (settings_of("Variant").seed, settings_of("Variant").jitter.noise) == (1, 0.2)


def test_a_name_without_a_plan_is_no_variant() -> None:
    """A slip of the pen would otherwise train all stages once more, with the usual settings."""
    with pytest.raises(ScreenerError, match="no plan Vicreg .*Vicreg.json.: correct the name"):
        derive_plan(DATASET, "Vicreg", [])
    assert not plan_file(DATASET, "Vicreg").exists()
