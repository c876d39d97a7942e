"""Exported on one machine, installed on another: the same maps, and nobody's name."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.commands.export_model import main as export
from screener_nnu.commands.install_model import main as install
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import read_plan
from screener_nnu.sharing.source import resolve_source


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Files with the time of their last change and their content."""
    return {
        str(p.relative_to(root)): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in root.rglob("*")
        if p.is_file() and p.name != ".screener_install.lock"
    }


def train_anew(world: Any, stage: str) -> None:
    """What another training would leave: the same checkpoint with other weights."""
    path = world.stage(stage) / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    next(iter(checkpoint["network_weights"].values())).add_(1)
    torch.save(checkpoint, path)


def error_of(capsys: pytest.CaptureFixture[str], main: Any, *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    assert end.value.code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_maps_are_the_same_bit_for_bit(
    kind: str,
    model_files: dict[str, Path],
    source_maps: dict[str, Any],
    empty_world: Any,
    predicted: Any,
    tmp_path: Path,
) -> None:
    install([str(model_files[kind])])
    for model in {"student", kind}:
        found = predicted(source_maps["scan"], tmp_path / model, model)
        np.testing.assert_array_equal(found, source_maps[model])
        assert found.std() > 0
    assert not np.array_equal(source_maps["student"], source_maps["teacher"])


def test_another_number_and_the_same_map(
    model_files: dict[str, Path],
    source_maps: dict[str, Any],
    empty_world: Any,
    predicted: Any,
    tmp_path: Path,
) -> None:
    install([str(model_files["teacher"]), "--number", "17"])
    assert (empty_world.root / "preprocessed" / "Dataset017_Tiny").is_dir()
    plan = read_plan(empty_world.root / "preprocessed/Dataset017_Tiny/ScreenerPlans.json")
    assert plan.dataset == "Dataset017_Tiny"
    for kind in ("student", "teacher"):
        found = predicted(source_maps["scan"], tmp_path / kind, kind, "17")
        np.testing.assert_array_equal(found, source_maps[kind])


def test_without_the_teacher_its_absence_is_named(
    model_files: dict[str, Path],
    empty_world: Any,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    from screener_nnu.commands.predict import main as predict
    from screener_nnu.commands.train import main as train

    install([str(model_files["student"])])
    scan = tmp_path / "scan_0000.nii.gz"
    scan.touch()
    words = ["-d", "901", "-i", scan, "-o", tmp_path / "o", "--teacher", "-device", "cpu"]
    assert (
        "installed from a model file that does not hold the density stage of ScreenerPlans"
        in error_of(capsys, predict, *words)
    )
    # What cannot be trained says so at once, not deep in a reader of no scans.
    message = error_of(capsys, train, "901", "3d_fullres", "descriptor", "-device", "cpu")
    assert "names no scans to train the descriptor" in message and "--teacher" in message


def test_installed_stages_count_as_finished(model_files: dict[str, Path], empty_world: Any) -> None:
    install([str(model_files["teacher"])])
    before = tree(empty_world.root / "results")
    for stage in ("descriptor", "condition", "density", "distillation"):
        empty_world.train(stage)
    after = tree(empty_world.root / "results")
    assert {name: value for name, value in after.items() if "running.lock" not in name} == before


def test_no_case_is_named_in_any_byte(
    model_files: dict[str, Path], trained_once: Any, tmp_path: Path
) -> None:
    plan = json.loads((trained_once.preprocessed / "ScreenerPlans.json").read_text())
    split = plan["screener"]["split"]
    names = [case for cases in split.values() for case in cases]
    assert len(names) == 6 and all(name.startswith("phantom_") for name in names)
    searched = 0
    for path in model_files.values():
        for content in _all_bytes(path):
            searched += 1
            assert b"phantom_" not in content.lower()
            assert str(trained_once.root).encode() not in content
    # Each archive, its members, and the records inside each checkpoint.
    assert searched > 100
    whole = (trained_once.stage("distillation") / "checkpoint_final.pth").read_bytes()
    assert b"phantom_" in whole  # otherwise the search would show nothing


def _all_bytes(path: Path) -> Any:
    yield path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            yield archive.read(name)
            if name.endswith(".pth"):
                with archive.open(name) as stream, zipfile.ZipFile(stream) as inner:
                    yield from (inner.read(record) for record in inner.namelist())


def test_left_out_cases_and_lists_of_files_stay_behind(trained: Any, tmp_path: Path) -> None:
    path = trained.stage("distillation") / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    secret = "Mustermann_Max"
    checkpoint["plan"]["screener"]["left_out"] = {secret: f"{secret} is too short"}
    listed = {secret: {"images": [f"{secret}.nii.gz"]}}
    checkpoint["init_args"]["dataset_json"] |= {"dataset": listed, "description": secret}
    torch.save(checkpoint, path)
    export(["901", "-o", str(tmp_path / "model.zip")])
    for content in _all_bytes(tmp_path / "model.zip"):
        assert secret.encode() not in content
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert json.loads(archive.read("model.json"))["scans"]["left_out"] == 1


@pytest.mark.parametrize("place", ["description", "license", "plan"])
def test_a_name_in_a_text_is_refused(
    place: str, trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.zip"
    words = [f"--{place}", "without phantom_0002, which moved"]
    if place == "plan":
        path = trained.stage("distillation") / "checkpoint_final.pth"
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["plan"]["screener"]["reasons"]["split"] = "phantom_0002 moved"
        torch.save(checkpoint, path)
        words = []
    message = error_of(capsys, export, "901", "-o", str(output), *words)
    assert "phantom_0002" in message and "change that text" in message
    assert list(tmp_path.glob("*.zip")) == [] and list(tmp_path.glob(".*")) == []


def test_only_what_is_needed_is_inside(model_files: dict[str, Path], trained_once: Any) -> None:
    with zipfile.ZipFile(model_files["teacher"]) as archive:
        inside = set(archive.namelist())
        with archive.open("checkpoints/ScreenerPlans/descriptor.pth") as stream:
            checkpoint = torch.load(stream, weights_only=True)
    stages = ("descriptor", "condition", "density", "distillation")
    assert inside == {
        "MODEL_CARD.md",
        "model.json",
        "dataset.json",
        "histogram.json",
        "plans/ScreenerPlans.json",
        *(f"checkpoints/ScreenerPlans/{stage}.pth" for stage in stages),
        *(f"calibrations/ScreenerPlans/{stage}.json" for stage in stages[2:]),
    }
    gone = {"optimizer_state", "rng_state", "logging", "head_weights", "lr_scheduler_state"}
    assert not gone & set(checkpoint)
    full = trained_once.stage("descriptor") / "checkpoint_final.pth"
    assert gone < set(torch.load(full, weights_only=True))


def test_card_and_description(model_files: dict[str, Path], trained_once: Any) -> None:
    with zipfile.ZipFile(model_files["teacher"]) as archive:
        card = archive.read("MODEL_CARD.md").decode()
        values = json.loads(archive.read("model.json"))
        for name, entry in values["files"].items():
            content = archive.read(name)
            assert entry == {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
    assert values["format_version"] == 1 and values["license"] == "CC BY 4.0"
    assert values["scans"] == {"train": 4, "validation": 1, "test": 1, "normal": 0, "left_out": 0}
    assert torch.__version__.startswith(values["versions"]["torch"])
    path = trained_once.stage("density") / "checkpoint_final.pth"
    log = torch.load(path, weights_only=True)["logging"]
    density = values["training"]["density"]
    assert density["trained"] == max(log["values"]["figures"]) and density["steps"] == 4
    assert density["untrained"] == log["reference"]
    for words in (
        "CC BY 4.0",
        "Phantoms of the trunk.",
        "4 scans to train on",
        "no medical device",
    ):
        assert words in card
    assert re.search(r"\| density \| 4 \| AUROC on synthetic anomalies \|.*\| yes \|", card)


def test_without_licence_the_card_says_so(
    model_files: dict[str, Path],
) -> None:
    with zipfile.ZipFile(model_files["student"]) as archive:
        assert "**Licence of the weights:** not stated" in archive.read("MODEL_CARD.md").decode()
        values = json.loads(archive.read("model.json"))
    # Figures of all stages are told, also of those whose weights stayed behind.
    included = {stage: v["included"] for stage, v in values["training"].items()}
    expected = dict.fromkeys(("descriptor", "condition", "density"), False)
    assert included == {**expected, "distillation": True}


def test_the_baseline_of_rare_hu_needs_no_scans(
    model_files: dict[str, Path], trained_once: Any, empty_world: Any
) -> None:
    from screener_nnu.evaluation.baselines import training_histogram

    install([str(model_files["student"])])
    stored = json.loads((trained_once.preprocessed / "screener_fingerprint.json").read_text())
    counts = stored["hu_histogram"]["counts"]
    np.testing.assert_array_equal(training_histogram("901").counts, counts)


def test_teacher_of_other_plans(
    trained: Any, empty_world: Any, predicted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student of one plan, the density of a second, the descriptor of a third."""
    for name, value in trained.environment.items():
        monkeypatch.setenv(name, value)
    links = [f"density.{s}_plans=ScreenerPlans" for s in ("descriptor", "condition")]
    words = ["-o", "density.kind=gaussian", *(w for link in links for w in ("-o", link))]
    trained.train("density", "-p", "Gauss", *words)
    trained.train("distillation", "-p", "Small", "-o", "distillation.density_plans=Gauss")
    path = tmp_path / "model.zip"
    export(["901", "-p", "Small", "-o", str(path), "--teacher"])
    with zipfile.ZipFile(path) as archive:
        assert {n for n in archive.namelist() if n.endswith(".pth")} == {
            "checkpoints/Small/distillation.pth",
            "checkpoints/Gauss/density.pth",
            "checkpoints/ScreenerPlans/descriptor.pth",
            "checkpoints/ScreenerPlans/condition.pth",
        }
        assert "-d 901 -p Gauss --teacher" in archive.read("MODEL_CARD.md").decode()
    from screener_nnu.detectors import ModelRef

    device = torch.device("cpu")
    before = ModelRef("901", "Gauss", "teacher").load(device)[0].state_dict()
    for name, value in empty_world.environment.items():
        monkeypatch.setenv(name, value)
    install([str(path)])
    # The file also holds the plan of the descriptor, which has no student of its own.
    assert resolve_source(str(path), "ScreenerPlans") == ("Dataset901_Tiny", "Small")
    assert resolve_source(str(path), "Small") == ("Dataset901_Tiny", "Small")
    after = ModelRef("901", "Gauss", "teacher").load(device)[0].state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_export_is_whole_or_not_at_all(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from screener_nnu.sharing.archive import ModelWriter
    from screener_nnu.sharing.export import ExportRequest, export_model

    output = tmp_path / "model.zip"
    output.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise ScreenerError("stopped")

    monkeypatch.setattr(ModelWriter, "finish", fail)
    with pytest.raises(ScreenerError, match="stopped"):
        export_model(ExportRequest("901", "ScreenerPlans"), output)
    assert output.read_bytes() == b"old" and [p.name for p in tmp_path.glob("*.*")] == ["model.zip"]


def test_export_needs_what_it_is_asked_for(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.zip"
    assert "ends in .zip" in error_of(capsys, export, "901", "-o", str(tmp_path / "model"))
    (trained.stage("descriptor") / "checkpoint_final.pth").unlink()
    message = error_of(capsys, export, "901", "-o", str(output), "--teacher")
    assert "screener_train 901 3d_fullres descriptor" in message
    export(["901", "-o", str(output)])
    (trained.stage("distillation") / "checkpoint_final.pth").unlink()
    message = error_of(capsys, export, "901", "-o", str(output))
    assert "screener_train 901 3d_fullres distillation" in message


@pytest.mark.parametrize(
    "stage,words,says",
    [
        ("descriptor", ["--teacher"], "trained anew after the density"),
        ("density", [], "was trained anew after its student"),
    ],
)
def test_a_teacher_of_another_run_is_refused(
    stage: str,
    words: list[str],
    says: str,
    trained: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_anew(trained, stage)
    message = error_of(capsys, export, "901", "-o", str(tmp_path / "m.zip"), *words)
    assert says in message


def test_a_density_that_is_not_the_students_is_refused(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained.stage("density") / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["score_statistics"]["mean"] += 1
    torch.save(checkpoint, path)
    message = error_of(capsys, export, "901", "-o", str(tmp_path / "m.zip"), "--teacher")
    assert message.rstrip().endswith("screener_train 901 3d_fullres distillation --restart")


def test_a_student_of_rarity_has_no_teacher(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.train("distillation", "--restart", "-o", "distillation.target=hu_rarity")
    message = error_of(capsys, export, "901", "-o", str(tmp_path / "m.zip"), "--teacher")
    assert "learned hu_rarity and has no teacher" in message
    export(["901", "-o", str(tmp_path / "m.zip")])
    with zipfile.ZipFile(tmp_path / "m.zip") as archive:
        assert list(json.loads(archive.read("model.json"))["training"]) == ["distillation"]


def test_an_installed_model_is_passed_on_as_its_file(
    model_files: dict[str, Path],
    empty_world: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install([str(model_files["student"])])
    message = error_of(capsys, export, "901", "-o", str(tmp_path / "m.zip"))
    assert "pass that file on" in message
