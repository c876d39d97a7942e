from __future__ import annotations

import json
from typing import Any

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.plan import read_source_plan, target_plan, write_target_plan

SOURCE, TARGET = "Dataset901_Trunk", "Dataset502_Lesions"


def make(world: Any, start: str = "student") -> dict[str, Any]:
    plan = read_source_plan(SOURCE, "ScreenerPlans")
    return target_plan(plan, source=SOURCE, target=TARGET, start=start, reader="NibabelIO")


def test_starts_have_their_own_name_and_share_the_cases(world: Any) -> None:
    student, scratch = make(world), make(world, "scratch")
    assert (student["plans_name"], scratch["plans_name"]) == (
        "Screener901_student",
        "Screener901_scratch",
    )
    assert student["configurations"] == scratch["configurations"]
    block = student["configurations"]["3d_fullres"]
    assert block["data_identifier"] == "Screener901_3d_fullres"
    assert student["dataset_name"] == TARGET and student["image_reader_writer"] == "NibabelIO"


def test_network_and_normalisation_are_those_of_the_source(world: Any) -> None:
    source = read_source_plan(SOURCE, "ScreenerPlans")
    made = make(world)
    key = "foreground_intensity_properties_per_channel"
    assert made[key] == source[key]
    block, origin = made["configurations"]["3d_fullres"], source["configurations"]["3d_fullres"]
    assert {k for k in block if block[k] != origin.get(k)} == {"data_identifier"}


def test_names_of_pretraining_cases_stay_behind(world: Any) -> None:
    assert "secret_patient_name" not in json.dumps(make(world))


def test_changed_plan_of_a_trained_model_is_refused_unless_restarted(world: Any) -> None:
    plan = make(world)
    path = write_target_plan(plan)
    write_target_plan(plan)
    changed = {**plan, "transpose_forward": [2, 0, 1]}
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
    plan["configurations"]["3d_fullres"]["normalization_schemes"] = ["ZScoreNormalization"]
    world.plan_file.write_text(json.dumps(plan))
    with pytest.raises(ScreenerError, match="ZScoreNormalization"):
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
    [("", "not valid JSON"), ("[]", "no JSON object"), ("{}", "3d_fullres: name another one")],
)
def test_a_source_plan_that_is_none(world: Any, text: str, reason: str) -> None:
    world.plan_file.write_text(text)
    with pytest.raises(ScreenerError, match=f"{world.plan_file} .*{reason}"):
        read_source_plan(SOURCE, "ScreenerPlans")
