from __future__ import annotations

import json
from typing import Any

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.plan import read_source_plan, target_plan, write_target_plan
from screener_nnu.plans import StockPlan

SOURCE, TARGET = "Dataset901_Trunk", "Dataset502_Lesions"


def make(world: Any, start: str = "student") -> StockPlan:
    plan = read_source_plan(SOURCE, "ScreenerPlans")
    return target_plan(plan, source=SOURCE, target=TARGET, start=start, reader="NibabelIO")


def test_starts_have_their_own_name_and_share_the_cases(world: Any) -> None:
    student, scratch = make(world), make(world, "scratch")
    assert (student.name, scratch.name) == ("Screener901_student", "Screener901_scratch")
    assert student.values["configurations"] == scratch.values["configurations"]
    assert student.configuration["data_identifier"] == "Screener901_3d_fullres"
    assert student.dataset == TARGET and student.values["image_reader_writer"] == "NibabelIO"


def test_network_and_normalisation_are_those_of_the_source(world: Any) -> None:
    source = read_source_plan(SOURCE, "ScreenerPlans")
    made = make(world)
    key = "foreground_intensity_properties_per_channel"
    assert made.values[key] == source.values[key]
    block, origin = made.configuration, source.configuration
    assert {k for k in block if block[k] != origin.get(k)} == {"data_identifier"}


def test_names_of_pretraining_cases_stay_behind(world: Any) -> None:
    assert "secret_patient_name" in world.plan_file.read_text()
    assert "secret_patient_name" not in json.dumps(make(world).to_dict())


def test_changed_plan_of_a_trained_model_is_refused_unless_restarted(world: Any) -> None:
    plan = make(world)
    path = write_target_plan(plan)
    write_target_plan(plan)
    changed = StockPlan({**plan.values, "transpose_forward": [2, 0, 1]})
    write_target_plan(changed)  # nothing trained yet
    write_target_plan(plan)
    fold = world.results / "nnUNetTrainer__Screener901_student__3d_fullres" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_best.pth").touch()
    write_target_plan(plan)
    with pytest.raises(ScreenerError, match="--restart"):
        write_target_plan(changed)
    write_target_plan(changed, restart=True)
    assert json.loads(path.read_text())["transpose_forward"] == [2, 0, 1]


def test_missing_and_foreign_plans_are_refused(world: Any) -> None:
    with pytest.raises(ScreenerError, match="no plan"):
        read_source_plan(SOURCE, "Other")
    plan = json.loads(world.plan_file.read_text())
    plan["configurations"]["3d_fullres"]["normalization_schemes"] = ["NoNormalization"]
    world.plan_file.write_text(json.dumps(plan))
    with pytest.raises(ScreenerError, match="NoNormalization"):
        read_source_plan(SOURCE, "ScreenerPlans")


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"plans_name": "mine"}', "was not written by screener_finetune"),
        ("torn", "not valid JSON"),
    ],
)
def test_a_plan_of_somebody_else_stays(world: Any, text: str, reason: str, restart: bool) -> None:
    path = world.preprocessed / "Screener901_student.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ScreenerError, match=f"{path} .*{reason}|{path} {reason}") as caught:
        write_target_plan(make(world), restart)
    assert "move it away" in str(caught.value) and path.read_text() == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ("[]", "no JSON object"),
        ("{}", "3d_fullres or 2d: name another one"),
    ],
)
def test_a_source_plan_that_is_none(world: Any, text: str, reason: str) -> None:
    world.plan_file.write_text(text)
    with pytest.raises(ScreenerError, match=f"{world.plan_file} .*{reason}"):
        read_source_plan(SOURCE, "ScreenerPlans")
