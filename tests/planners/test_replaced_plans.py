"""Scans that are replaced after planning: the plan stays, and what rests on them is named."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import ScreenerError
from screener_nnu.planners.records import RECORDS_FILE
from screener_nnu.planners.run import plan_dataset, preprocess_planned
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import read_plan
from screener_nnu.preprocessing.case_files import CaseFolder

NAME = "Dataset901_Tiny"
PLANS = "ScreenerPlans"
Run = Callable[..., None]


@pytest.fixture
def images(world: Any) -> Path:
    """`imagesTr` of a planned and prepared data set whose scans a test may change."""
    shared = (world.root / "raw").resolve()
    (world.root / "raw").unlink()
    shutil.copytree(shared, world.root / "raw")
    return world.raw / "imagesTr"


@pytest.fixture
def run(images: Path) -> Run:
    """The command, in this process; words are settings."""

    def planned(*words: str, plans: str = PLANS, prepare: bool = True, **request: Any) -> None:
        asked = {"preset": "cpu", "num_test": 1, "plans_name": plans, **request}
        plan_dataset(["901"], None, 1, asked, overrides=words)
        if prepare:
            preprocess_planned(NAME, plans, 0)

    return planned


def file_of(images: Path, case: str) -> Path:
    return images / f"{case}_0000.nii.gz"


def replace_scan(images: Path, case: str, add: float = 200.0) -> None:
    """Another scan in the place of one: denser by far, so that the percentiles move."""
    path = file_of(images, case)
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    changed = sitk.GetImageFromArray(np.where(array > -300, array * 1.5 + add, array))
    changed.CopyInformation(image)
    sitk.WriteImage(sitk.Cast(changed, sitk.sitkInt16), str(path))


def plan_of(world: Any, plans: str = PLANS) -> Any:
    return read_plan(world.preprocessed / f"{plans}.json").settings


def begin(world: Any, *stages: str, plans: str = PLANS) -> None:
    for stage in stages:
        world.stage(stage, plans).mkdir(parents=True)
        (world.stage(stage, plans) / "checkpoint_latest.pth").touch()


def hu_clip_of_fingerprint(world: Any) -> tuple[float, float]:
    values = json.loads((world.preprocessed / "screener_fingerprint.json").read_text())
    values = values["foreground_intensity_properties_per_channel"]["0"]
    return values["percentile_00_5"], values["percentile_99_5"]


def test_plan_stays_and_the_scan_is_prepared_again(
    world: Any, images: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    path = world.preprocessed / f"{PLANS}.json"
    before, cases = path.read_bytes(), CaseFolder(world.cases)
    train = plan_of(world).split.train
    old = {case: cases.read(case, "hu") for case in train}
    # Twice, and each time a run more: the fingerprint is then that of the new scans already.
    for number, case in enumerate(train[:2], 1):
        replace_scan(images, case)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            run()
        assert hu_clip_of_fingerprint(world) != plan_of(world).preprocessing.hu_clip
        assert f"1 scan was replaced since it was prepared: {case}" in caplog.messages
        assert any("though its scans are not what they were" in m for m in caplog.messages)
        changed = {c for c in train if not np.array_equal(cases.read(c, "hu"), old[c])}
        assert changed == set(train[:number])
        caplog.clear()
        run()
        assert not [m for m in caplog.messages if "replaced" in m]
    assert path.read_bytes() == before


def test_another_request_is_refused_as_ever(world: Any, images: Path, run: Run) -> None:
    replace_scan(images, plan_of(world).split.train[0])
    before = (world.preprocessed / f"{PLANS}.json").read_bytes()
    for _ in range(2):
        with pytest.raises(ScreenerError, match=f"{PLANS}.json was planned with other settings"):
            run("preprocessing.equalisation=adaptive")
        with pytest.raises(ScreenerError, match=f"split of .*{PLANS}.json have changed; give"):
            run(num_test=2)
    assert (world.preprocessed / f"{PLANS}.json").read_bytes() == before
    run()
    run(plans="Another", prepare=False)
    assert plan_of(world, "Another").preprocessing.hu_clip == hu_clip_of_fingerprint(world)


def test_unusable_scan_leaves_the_plans_and_its_old_case_goes(
    world: Any, images: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    derive_plan(NAME, "Variant", ["seed=1"])
    case = plan_of(world).split.train[0]
    file_of(images, case).write_bytes(b"torn")
    run()
    for plans in (PLANS, "Variant"):
        settings = plan_of(world, plans)
        assert case not in settings.split.train and case in settings.left_out
    assert case not in CaseFolder(world.cases).finished()
    # The plan with cases of its own goes on with the old case until it is run, too.
    assert case in plan_of(world, "Fine").split.train
    assert "Fine still have cases of the scans as they were before" in caplog.text
    before = (world.preprocessed / f"{PLANS}.json").read_bytes()
    run()
    assert (world.preprocessed / f"{PLANS}.json").read_bytes() == before


def test_trained_stages_are_named_with_their_commands(
    world: Any, images: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    derive_plan(NAME, "Variant", ["seed=1"])
    derive_plan(NAME, "Without", ["seed=2"])
    train = plan_of(world).split.train
    path = world.preprocessed / "Without.json"
    plan = json.loads(path.read_text())
    plan["screener"]["split"]["train"].remove(train[1])
    path.write_text(json.dumps(plan))
    begin(world, "descriptor", "density")
    begin(world, "density", plans="Variant")
    begin(world, "density", plans="Without")
    replace_scan(images, train[1])
    run()
    (message,) = [m for m in caplog.messages if "trained on scans as they were" in m]
    assert "descriptor, density of ScreenerPlans; density of Variant; what is trained" in message
    assert message.splitlines()[1:] == [
        "    screener_train 901 3d_fullres descriptor --restart",
        "    screener_train 901 3d_fullres density --restart",
        "    screener_train 901 3d_fullres density -p Variant --restart",
    ]
    assert (world.stage("density") / "checkpoint_latest.pth").is_file()
    caplog.clear()
    run()
    assert "--restart" not in caplog.text


def test_pool_names_its_own_stages(
    world: Any, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from screener_nnu.paths import stage_folder

    def run_pool() -> None:
        request = {"preset": "cpu", "num_test": 1, "plans_name": PLANS}
        assert plan_dataset(["901"], (903, "Pool"), 1, request) == "Dataset903_Pool"
        preprocess_planned("Dataset903_Pool", PLANS, 0)

    run_pool()
    folder = stage_folder("Dataset903_Pool", "position", PLANS)
    folder.mkdir(parents=True)
    (folder / "checkpoint_final.pth").touch()
    plan = read_plan(world.preprocessed.with_name("Dataset903_Pool") / f"{PLANS}.json")
    case = plan.settings.split.train[0]
    replace_scan(images, case.removeprefix("901_"))
    caplog.clear()
    run_pool()
    assert f"1 scan was replaced since it was prepared: {case}" in caplog.messages
    assert "    screener_train 903 3d_fullres position --restart" in caplog.text


def test_scans_that_vanished_or_came_are_named(
    world: Any, images: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = plan_of(world).split.train[:2]
    file_of(images, first).rename(file_of(images, "a_new_one"))
    file_of(images, second).unlink()
    words = f"no longer there: {first}, {second}; new: a_new_one"
    for _ in range(2):
        with pytest.raises(ScreenerError, match=f"{PLANS}.json have changed .{words}.; give"):
            run()
    assert f"no longer there, of the scans of an earlier run: {first}, {second}" in caplog.messages
    with pytest.raises(ScreenerError, match=f"no longer there: {first}, {second}; put them back"):
        preprocess_planned(NAME, PLANS, 0)


def test_data_sets_of_an_earlier_version_go_on(
    world: Any, images: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing tells their scans; only what is newer than its case is made again."""
    run()  # the plan as the command writes it
    folder = world.preprocessed
    fingerprint = json.loads((folder / "screener_fingerprint.json").read_text())
    del fingerprint["sources"]
    (folder / "screener_fingerprint.json").write_text(json.dumps(fingerprint))
    records = [json.loads(line) for line in (folder / RECORDS_FILE).read_text().splitlines()]
    old = [{k: v for k, v in r.items() if k not in ("source", "body_share")} for r in records]
    (folder / RECORDS_FILE).write_text("".join(json.dumps(r) + "\n" for r in old))
    for marker in world.cases.glob("*.json"):
        values, times = json.loads(marker.read_text()), marker.stat()
        del values["source"]
        marker.write_text(json.dumps(values))
        os.utime(marker, ns=(times.st_atime_ns, times.st_mtime_ns))
    stamps = {file.name: file.stat().st_mtime_ns for file in world.cases.iterdir()}
    plan = (folder / f"{PLANS}.json").read_bytes()
    case = plan_of(world).split.train[0]
    replace_scan(images, case)
    caplog.clear()
    run()
    assert (folder / f"{PLANS}.json").read_bytes() == plan
    after = {file.name: file.stat().st_mtime_ns for file in world.cases.iterdir()}
    assert {n for n in after if after[n] != stamps[n]} == {n for n in stamps if n.startswith(case)}
    assert f"1 scan was replaced since it was prepared: {case}" in caplog.messages


def test_changed_description_is_named_and_the_copy_stays(
    world: Any, images: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run(prepare=False)
    assert "dataset.json" not in caplog.text
    raw, copy = world.raw / "dataset.json", world.preprocessed / "dataset.json"
    before = copy.read_bytes()
    raw.write_text(json.dumps({**json.loads(raw.read_text()), "name": "another"}))
    run(prepare=False)
    assert copy.read_bytes() == before
    expected = f"{raw} has changed since it was copied to {copy}, which stays"
    assert any(message.startswith(expected) for message in caplog.messages)
    copy.unlink()
    caplog.clear()
    run(prepare=False)
    assert json.loads(copy.read_text()) == json.loads(raw.read_text())
    assert "dataset.json" not in caplog.text


@pytest.mark.parametrize("content", ['{"spacings": [[', "[1]", ""])
def test_damaged_fingerprint_names_the_way_out(world: Any, run: Run, content: str) -> None:
    path = world.preprocessed / "screener_fingerprint.json"
    path.write_text(content)
    for action in (run, lambda: preprocess_planned(NAME, PLANS, 0)):
        with pytest.raises(ScreenerError, match=f"{path} is damaged .*delete it and run screener_"):
            action()
    path.unlink()
    with pytest.raises(ScreenerError, match=f"no {path}: run screener_plan_and_preprocess first"):
        preprocess_planned(NAME, PLANS, 0)
    run()
    path.write_text('{"cases": {"a": 5}}')
    with pytest.raises(ScreenerError, match=f"{path} is damaged"):
        preprocess_planned(NAME, PLANS, 0)


@pytest.mark.parametrize(
    "content", ['{"screener": {', "5", "[]", '{"screener": 5}', "crop_size", "split", "left_out"]
)
def test_damaged_plan_is_named_with_its_whole_path(
    world: Any, run: Run, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.preprocessed / f"{PLANS}.json"
    if content[0] in "{5[":
        path.write_text(content)
    else:  # a setting that was edited by hand
        plan = json.loads(path.read_text())
        plan["screener"][content] = "as before"
        path.write_text(json.dumps(plan))
    monkeypatch.chdir(world.root)
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", kind)
    actions: list[Callable[[], None]] = [run, lambda: preprocess_planned(NAME, PLANS, 0)]
    for action in [*actions, lambda: derive_plan(NAME, "Variant", ["seed=1"])]:
        with pytest.raises(ScreenerError, match=str(path)):
            action()


def test_two_runs_at_once(images: Path, world: Any) -> None:
    """Parts that are started together read each scan once and make the same as one run."""
    shutil.rmtree(world.preprocessed)
    program = "from screener_nnu.commands.plan_and_preprocess import main; main()"
    words = ["-d", "901", "--preset", "cpu", "--num_test", "1", "-np", "1", "--parts", "2"]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, *words, "--part", str(part)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for part in (0, 1)
    ]
    said = [run.communicate(timeout=240)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    lines = (world.preprocessed / RECORDS_FILE).read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == [f"phantom_{i:04d}" for i in range(6)]
    assert CaseFolder(world.cases).finished() == [f"phantom_{i:04d}" for i in range(6)]
    assert sum("fingerprint: 100%" in text for text in said) == 1
