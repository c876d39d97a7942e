"""Where things lie in nnU-Net's folders, and what is said when they are not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.paths import (
    cases_folder,
    dataset_name,
    finished_checkpoint,
    plan_file,
    preprocessed_folder,
    raw_folder,
    results_folder,
    set_default_folders,
    stage_folder,
)
from screener_nnu.stages import STAGES, trainer_name

NAME = "Dataset007_Trunk"
KINDS = ("raw", "preprocessed", "results")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path / kind))
    return tmp_path


@pytest.fixture
def no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in KINDS:
        # Set first, so that what the code sets is taken back after the test.
        monkeypatch.setenv(f"nnUNet_{kind}", "x")
        monkeypatch.delenv(f"nnUNet_{kind}")
    return tmp_path


def test_unset_folders_lie_under_home(no_folders: Path) -> None:
    set_default_folders()
    for kind in KINDS:
        expected = no_folders / "screener_nnu" / f"nnUNet_{kind}"
        assert os.environ[f"nnUNet_{kind}"] == str(expected)
    assert raw_folder(NAME) == no_folders / "screener_nnu" / "nnUNet_raw" / NAME
    assert not (no_folders / "screener_nnu").exists()


def test_folders_that_are_set_stay(no_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", "/data/raw")
    set_default_folders()
    assert os.environ["nnUNet_raw"] == "/data/raw"
    assert os.environ["nnUNet_results"] == str(no_folders / "screener_nnu" / "nnUNet_results")


def test_paths_need_no_call_before_them(no_folders: Path) -> None:
    assert results_folder(NAME) == no_folders / "screener_nnu" / "nnUNet_results" / NAME


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", [7, "7", "007"])
def test_a_number_is_found_in_any_of_the_folders(
    folders: Path, kind: str, asked: int | str
) -> None:
    (folders / kind / NAME).mkdir()
    (folders / kind / "Dataset070_Other").mkdir()
    (folders / kind / "Dataset007_file.txt").write_text("not a folder")
    assert dataset_name(asked) == NAME


def test_one_dataset_in_all_folders_is_one_dataset(folders: Path) -> None:
    for kind in KINDS:
        (folders / kind / NAME).mkdir()
    assert dataset_name(7) == NAME


def test_a_full_name_is_taken_as_it_is(folders: Path) -> None:
    assert dataset_name("Dataset123_New") == "Dataset123_New"


def test_unknown_ambiguous_and_odd_datasets(folders: Path) -> None:
    with pytest.raises(ScreenerError, match=r"no dataset 7: looked for Dataset007_\* in") as error:
        dataset_name(7)
    assert all(str(folders / kind) in str(error.value) for kind in KINDS)
    (folders / "raw" / NAME).mkdir()
    (folders / "results" / "Dataset007_Again").mkdir()
    with pytest.raises(ScreenerError, match="more than once.*Dataset007_Again.*Dataset007_Trunk"):
        dataset_name(7)
    with pytest.raises(ScreenerError, match="'trunk' is neither a dataset number nor a name"):
        dataset_name("trunk")


def test_layout_is_that_of_nnunet(folders: Path) -> None:
    (folders / "raw" / NAME).mkdir()
    assert raw_folder(7) == folders / "raw" / NAME
    preprocessed = folders / "preprocessed" / NAME
    assert preprocessed_folder(7) == preprocessed
    assert plan_file(7, "Mine") == preprocessed / "Mine.json"
    assert cases_folder(7, "Mine_screener") == preprocessed / "Mine_screener"
    assert results_folder(7) == folders / "results" / NAME
    for stage, trainer in ((stage, trainer_name(stage)) for stage in STAGES):
        expected = folders / "results" / NAME / f"{trainer}__Mine__3d_fullres" / "fold_all"
        assert stage_folder(7, stage, "Mine") == expected


def test_finished_checkpoint(folders: Path) -> None:
    path = stage_folder(NAME, "density", "ScreenerPlans") / "checkpoint_final.pth"
    path.parent.mkdir(parents=True)
    (path.parent / "checkpoint_latest.pth").touch()
    with pytest.raises(ScreenerError, match="density stage of ScreenerPlans has not been trained"):
        finished_checkpoint(NAME, "density", "ScreenerPlans")
    path.touch()
    assert finished_checkpoint(7, "density", "ScreenerPlans") == path


@pytest.mark.parametrize(
    ("plans", "command"),
    [
        ("ScreenerPlans", "screener_train 7 3d_fullres descriptor"),
        ("Mine", "screener_train 7 3d_fullres descriptor -p Mine"),
    ],
)
def test_a_missing_stage_names_the_command_that_trains_it(
    folders: Path, plans: str, command: str
) -> None:
    with pytest.raises(ScreenerError) as error:
        finished_checkpoint(NAME, "descriptor", plans)
    assert str(error.value).splitlines()[-1].strip() == command
    # The command is one that the command line takes.
    from screener_nnu.commands.train import _parser

    arguments = _parser().parse_args(command.split()[1:])
    assert (arguments.stage, arguments.plans) == ("descriptor", plans)
