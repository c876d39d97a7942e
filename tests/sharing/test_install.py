"""Where a model is put, what is in its way, and fine-tuning from it."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.commands.finetune import main as finetune
from screener_nnu.commands.install_model import main as install
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.training import fine_tune
from screener_nnu.sharing import placing
from screener_nnu.sharing.install import install_model
from screener_nnu.sharing.source import resolve_source

_round_trip = runpy.run_path(str(Path(__file__).with_name("test_round_trip.py")))
tree, error_of = _round_trip["tree"], _round_trip["error_of"]


def test_twice_is_once(
    model_files: dict[str, Path], empty_world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_files["teacher"]
    install([str(path)])
    said = capsys.readouterr().out
    assert hashlib.sha256(path.read_bytes()).hexdigest() in said
    assert "descriptor, condition, density, distillation" in said
    assert "screener_predict -d 901 -i" in said
    before = tree(empty_world.root)
    for words in ([], ["--overwrite"], ["--number", "901"]):
        install([str(path), *words])
        assert "installed from this file before: nothing to do" in capsys.readouterr().out
        assert tree(empty_world.root) == before
    # Another file of the same data set is another model.
    assert "exists: install" in error_of(capsys, install, model_files["student"])
    assert tree(empty_world.root) == before


def test_layout_is_that_of_a_trained_data_set(
    model_files: dict[str, Path], empty_world: Any, trained_once: Any
) -> None:
    install([str(model_files["teacher"])])
    found = {str(p.relative_to(empty_world.root)) for p in empty_world.root.rglob("*.*")}
    trained = {str(p.relative_to(trained_once.root)) for p in trained_once.root.rglob("*.*")}
    own = {"screener_model.json", "MODEL_CARD.md", ".screener_install.lock"}
    assert {name for name in found - trained if Path(name).name not in own} == set()
    assert sum(name.endswith("checkpoint_final.pth") for name in found) == 4


def test_changed_files_are_not_taken_for_the_model(
    model_files: dict[str, Path], empty_world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_files["student"]
    install([str(path)])
    checkpoint = empty_world.stage("distillation") / "checkpoint_final.pth"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "its files were changed since" in error_of(capsys, install, path)
    install([str(path), "--overwrite"])
    assert checkpoint.read_bytes() == content


@pytest.mark.parametrize("kind", ["preprocessed", "results", "raw"])
@pytest.mark.parametrize("name", ["Dataset901_Tiny", "Dataset901_Mine"])
def test_an_existing_data_set_stays(
    kind: str,
    name: str,
    model_files: dict[str, Path],
    empty_world: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    precious = empty_world.root / kind / name / "precious"
    precious.parent.mkdir()
    precious.write_text("years of work")
    before = tree(empty_world.root)
    message = error_of(capsys, install, model_files["student"])
    assert "--number" in message and name in message
    assert tree(empty_world.root) == before
    if (kind, name) == ("raw", "Dataset901_Mine"):
        # Raw scans never move, and two names for a number would confuse every command.
        message = error_of(capsys, install, model_files["student"], "--overwrite")
        assert "holds raw scans under the number" in message
        assert tree(empty_world.root) == before
        return
    install([str(model_files["student"]), "--overwrite"])
    said = capsys.readouterr().out
    if kind == "raw":
        assert precious.read_text() == "years of work"
        return
    kept = empty_world.root / kind / f"replaced_{name}_1" / "precious"
    assert kept.read_text() == "years of work" and str(kept.parent) in said
    assert resolve_source("901", "ScreenerPlans") == ("Dataset901_Tiny", "ScreenerPlans")


@pytest.mark.parametrize("number", ["0", "1000", "-1"])
def test_numbers_that_are_none(
    number: str,
    model_files: dict[str, Path],
    empty_world: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = error_of(capsys, install, model_files["student"], "--number", number)
    assert "choose one from 1 to 999" in message


def test_a_failed_rename_takes_everything_back(
    model_files: dict[str, Path], empty_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = empty_world.root / "preprocessed" / "Dataset901_Tiny" / "precious"
    precious.parent.mkdir()
    precious.write_text("years of work")
    before = tree(empty_world.root)
    rename, calls = Path.rename, []

    def fail_third(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 3:
            raise PermissionError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_third)
    with pytest.raises(ScreenerError, match="nothing was installed: no"):
        install_model(model_files["student"], overwrite=True)
    assert tree(empty_world.root) == before
    assert list((empty_world.root / "results").iterdir()) == []


class KilledError(BaseException):
    """Stands for a process that is gone: nothing is cleaned up."""


def test_a_killed_installation_is_taken_up(
    model_files: dict[str, Path], empty_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_between(moves: list[tuple[Path, Path]]) -> None:
        source, target = moves[0]
        source.rename(target)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("screener_nnu.sharing.install.move_all", killed_between)
        patch.setattr(placing.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KilledError):
            install_model(model_files["student"])
    assert (empty_world.root / "results" / "Dataset901_Tiny").is_dir()
    assert not (empty_world.root / "preprocessed" / "Dataset901_Tiny").exists()
    assert install_model(model_files["student"]).fresh
    assert not install_model(model_files["student"]).fresh
    assert list(empty_world.root.glob("*/.installing_*")) == []


def test_a_full_disk_is_seen_before_it_is_full(
    model_files: dict[str, Path], empty_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from screener_nnu.sharing import install as module

    usage = SimpleNamespace(free=1 << 20)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ScreenerError, match="has 1 MB left, and the model needs 6[4-9] MB"):
        install_model(model_files["student"])


def test_a_source_may_be_a_file(model_files: dict[str, Path], empty_world: Any) -> None:
    path = str(model_files["student"])
    assert resolve_source(path, "ScreenerPlans") == ("Dataset901_Tiny", "ScreenerPlans")
    before = tree(empty_world.root)
    # A plan that is not inside: the student's is meant.
    assert resolve_source(path, "Other") == ("Dataset901_Tiny", "ScreenerPlans")
    assert tree(empty_world.root) == before


def test_a_source_that_has_another_number_here(
    model_files: dict[str, Path], empty_world: Any
) -> None:
    (empty_world.root / "preprocessed" / "Dataset901_Mine").mkdir()
    path = model_files["student"]
    with pytest.raises(ScreenerError, match="screener_install_model --number N"):
        resolve_source(str(path), "ScreenerPlans")
    install([str(path), "--number", "905"])
    assert resolve_source(str(path), "ScreenerPlans")[0] == "Dataset905_Tiny"


def test_missing_files_are_named(empty_world: Any, tmp_path: Path) -> None:
    with pytest.raises(ScreenerError, match=f"no file {tmp_path}/absent.zip"):
        resolve_source(str(tmp_path / "absent.zip"), "ScreenerPlans")
    assert list((empty_world.root / "preprocessed").iterdir()) == []


def write_labelled(folder: Path) -> None:
    """Three cases with a bright cube."""
    rng = np.random.default_rng(1)
    for index in range(3):
        label = np.zeros((20, 24, 24), np.uint8)
        label[6:12, 8:14, 8:14] = 1
        image = (rng.normal(40, 10, label.shape) + 100 * label).astype(np.int16)
        image[:, :4] = -1000  # air, as around a person
        for kind, array, end in (("images", image, "_0000"), ("labels", label, "")):
            (folder / f"{kind}Tr").mkdir(parents=True, exist_ok=True)
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((9.0, 9.0, 12.0))
            sitk.WriteImage(volume, str(folder / f"{kind}Tr" / f"case_{index}{end}.nii.gz"))
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.mark.slow
def test_fine_tuning_from_a_file(
    model_files: dict[str, Path],
    empty_world: Any,
    light_nnunet: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_labelled(empty_world.root / "raw" / "Dataset502_Cubes")
    started: list[Any] = []

    def seen(run: Any, *others: Any) -> float:
        started.append(run)
        return fine_tune(run, *others)

    monkeypatch.setattr("screener_nnu.finetuning.training.fine_tune", seen)
    words = ["-d", "502", "--source", str(model_files["student"]), "-f", "0", "-device", "cpu"]
    finetune([*words, "-np", "1", "--epochs", "1", "--iterations", "1"])
    said = capsys.readouterr().out
    assert "mean validation Dice" in said
    # Every tensor but the heads is transferred.
    last = next(line for line in said.splitlines() if line.startswith("all "))
    moved, known = int(last.split()[1]), int(last.split()[3])
    assert known - moved == sum(
        int(line.split()[-2]) for line in said.splitlines() if line.endswith(" reset")
    )
    (run,) = started
    assert run.plans_name == "Screener901_student"
    assert run.weights == empty_world.stage("distillation") / "checkpoint_final.pth"
