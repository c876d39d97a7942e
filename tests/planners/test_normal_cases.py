"""Cases that are known to be normal: the list, its place in the plan, and what becomes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.commands.plan_and_preprocess import main as plan_and_preprocess
from screener_nnu.errors import ScreenerError
from screener_nnu.planners.dropping import drop_cases
from screener_nnu.planners.normal_cases import read_normal_cases, with_normal_cases
from screener_nnu.plans import SplitSettings, read_plan
from screener_nnu.sharing.scrub import case_counts, case_names, plan_without_cases

CASES = {f"case_{number}": Path() for number in range(6)}
SPLIT = SplitSettings(("case_0", "case_1", "case_2"), ("case_3",), ("case_4",))
Run = Callable[..., None]


def listed(folder: Path, *lines: str) -> Path:
    path = folder / "normal ones.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_name_a_line(tmp_path: Path) -> None:
    path = listed(tmp_path, "# healthy", "", "  case_4 ", "case_1\r", "case_1", "   # case_2")
    assert read_normal_cases(path, CASES) == ("case_1", "case_4")
    path.write_bytes("\ufeffcase_2\r\ncase_0".encode())
    assert read_normal_cases(path, CASES) == ("case_0", "case_2")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"# none\n\n", "names no case: write one a line, or leave --normal_cases out"),
        (b"\xff\xfecase_1", "is no text in UTF-8"),
        (b"case_1\nanna_0000.nii.gz\nbert", "names 2 .* .anna_0000.nii.gz, bert.: .* as case_0,"),
        (b"\n".join(b"x%d" % n for n in range(9)), r"names 9 .* .x0, x1, x2, x3, x4 and 4 more."),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "normal.txt"
    path.write_bytes(content)
    with pytest.raises(ScreenerError, match=f"normal.txt {message}"):
        read_normal_cases(path, CASES)
    with pytest.raises(ScreenerError, match="missing.txt does not exist"):
        read_normal_cases(tmp_path / "missing.txt", CASES)


def test_only_training_cases_are_kept() -> None:
    found = with_normal_cases(SPLIT, ("case_2", "case_3", "case_4", "case_0", "case_5"))
    assert found == SplitSettings(SPLIT.train, SPLIT.validation, SPLIT.test, ("case_0", "case_2"))
    assert found.presumed_normal == ("case_0", "case_2")
    assert with_normal_cases(SPLIT, ()) == SPLIT and SPLIT.presumed_normal == SPLIT.train
    words = "the 3 normal cases .* none is to train on .1 validate, 1 are kept for evaluation"
    with pytest.raises(ScreenerError, match=words):
        with_normal_cases(SPLIT, ("case_3", "case_4", "case_5"))


def test_normal_cases_of_a_plan_are_for_training() -> None:
    with pytest.raises(ValueError, match="normal must be cases of train, but case_3 are none"):
        SplitSettings(SPLIT.train, SPLIT.validation, normal=("case_3", "case_0"))


@pytest.fixture
def run(world: Any) -> Run:
    """The command, on a planned and prepared data set."""

    def planned(*words: str, prepare: bool = True) -> None:
        more = () if prepare else ("--no_preprocessing",)
        usual = ("-d", "901", "--preset", "cpu", "--num_test", "1", "-np", "1")
        plan_and_preprocess([*usual, *more, *words])

    planned()  # the plan as the command writes it
    return planned


def settings_of(world: Any, plans: str = "ScreenerPlans") -> Any:
    return read_plan(world.preprocessed / f"{plans}.json").settings


def error_of(capsys: pytest.CaptureFixture[str], run: Run, *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(*words)
    return capsys.readouterr().err


def test_the_plan_knows_them_and_later_runs_keep_them(
    world: Any, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = settings_of(world).split
    names = (split.train[2], split.validation[0], split.train[0])
    cases = sorted(world.cases.glob("*.json"))
    stamps = [path.stat().st_mtime_ns for path in cases]
    caplog.set_level("INFO")
    run("--normal_cases", str(listed(tmp_path, *names)))
    settings = settings_of(world)
    assert settings.split.normal == (split.train[0], split.train[2])
    assert SplitSettings(*split_of(settings)) == split
    assert "4 scans to train on, 2 of them known to be normal;" in settings.reasons["split"]
    assert any("2 of them known to be normal" in message for message in caplog.messages)
    # No case depends on it.
    assert [path.stat().st_mtime_ns for path in cases] == stamps

    caplog.clear()
    before = (world.preprocessed / "ScreenerPlans.json").read_bytes()
    run()
    assert (world.preprocessed / "ScreenerPlans.json").read_bytes() == before
    assert any("knows 2 cases as normal, which stays so" in m for m in caplog.messages)
    # Another list is taken over, and another plan has none of it.
    run("--normal_cases", str(listed(tmp_path, split.train[1])))
    assert settings_of(world).split.normal == (split.train[1],)
    run("-p", "Other", prepare=False)
    assert settings_of(world, "Other").split.normal == ()
    assert "known to be normal" not in settings_of(world, "Other").reasons["split"]


def split_of(settings: Any) -> tuple[Any, Any, Any]:
    return settings.split.train, settings.split.validation, settings.split.test


def test_a_begun_stage_keeps_its_list(
    world: Any, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = settings_of(world).split.train[:2]
    run("--normal_cases", str(listed(tmp_path, first)))
    world.stage("descriptor").mkdir(parents=True)
    (world.stage("descriptor") / "checkpoint_latest.pth").touch()
    before = (world.preprocessed / "ScreenerPlans.json").read_bytes()
    message = error_of(capsys, run, "--normal_cases", str(listed(tmp_path, second)))
    assert "(descriptor) were begun with other normal cases" in message and "with -p" in message
    run("--normal_cases", str(listed(tmp_path, first)))
    run()
    assert (world.preprocessed / "ScreenerPlans.json").read_bytes() == before


def test_a_list_that_does_not_fit_is_refused_before_images_are_read(
    world: Any, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.preprocessed / "screener_fingerprint_cases.jsonl").unlink()
    message = error_of(capsys, run, "--normal_cases", str(listed(tmp_path, "nobody")))
    assert "names 1 that are no cases of the data set (nobody)" in message
    assert not (world.preprocessed / "screener_fingerprint_cases.jsonl").exists()
    other = settings_of(world).split.test[0]
    message = error_of(capsys, run, "--normal_cases", str(listed(tmp_path, other)))
    assert "none is to train on" in message and "name more of them" in message


def test_cases_of_a_pool_have_their_names(world: Any, run: Run, tmp_path: Path) -> None:
    words = ("--pool", "903", "Pool", "--normal_cases")
    case = settings_of(world).split.train[0]
    with pytest.raises(SystemExit):
        run(*words, str(listed(tmp_path, case)), prepare=False)
    names = [f"901_{name}" for name in split_of(settings_of(world))[0]]
    run(*words, str(listed(tmp_path, *names)), prepare=False)
    pooled = read_plan(world.preprocessed.with_name("Dataset903_Pool") / "ScreenerPlans.json")
    assert pooled.settings.split.normal and set(pooled.settings.split.normal) <= set(names)


def test_replaced_scans_leave_the_list_alone(world: Any, run: Run, tmp_path: Path) -> None:
    """The plan of the scans as they were stays, and so does what it knows of them."""
    first, second = settings_of(world).split.train[:2]
    run("--normal_cases", str(listed(tmp_path, first)))
    shared = (world.root / "raw").resolve()
    (world.root / "raw").unlink()
    shutil.copytree(shared, world.root / "raw")
    path = world.raw / "imagesTr" / f"{second}_0000.nii.gz"
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    denser = sitk.GetImageFromArray(np.where(array > -300, array + 300, array).astype(np.int16))
    denser.CopyInformation(image)
    sitk.WriteImage(denser, str(path))
    before = (world.preprocessed / "ScreenerPlans.json").read_bytes()
    run()
    assert (world.preprocessed / "ScreenerPlans.json").read_bytes() == before
    with pytest.raises(SystemExit):
        run("--normal_cases", str(listed(tmp_path, second)))
    assert (world.preprocessed / "ScreenerPlans.json").read_bytes() == before


def test_unusable_cases_leave_the_list(world: Any, run: Run, tmp_path: Path) -> None:
    first, second = settings_of(world).split.train[:2]
    run("--normal_cases", str(listed(tmp_path, first, second)))
    path, folder = world.preprocessed / "ScreenerPlans.json", "ScreenerPlans_screener"
    drop_cases(path, folder, {first: "torn"})
    assert settings_of(world).split.normal == (second,)
    run()  # a case that left the plan does not make it another one
    assert settings_of(world).split.normal == (second,)
    # An empty list would take all cases for normal.
    with pytest.raises(ScreenerError, match="none of the normal cases of .* can be used"):
        drop_cases(path, folder, {second: "torn"})
    assert settings_of(world).split.normal == (second,)


def test_model_files_count_them_and_name_none(world: Any, run: Run, tmp_path: Path) -> None:
    split = settings_of(world).split
    run("--normal_cases", str(listed(tmp_path, *split.train[:3])))
    plan = read_plan(world.preprocessed / "ScreenerPlans.json")
    assert case_names(plan) == {*split.train, *split.validation, *split.test}
    assert case_counts(plan)["normal"] == 3
    text = json.dumps(plan_without_cases(plan))
    assert not [case for case in case_names(plan) if case in text]
