from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from screener_nnu.commands._finetuning import require_writable
from screener_nnu.commands.finetune import build_parser, main
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.settings import SETTINGS

_made = runpy.run_path(str(Path(__file__).parents[1] / "finetuning" / "conftest.py"))
_kinds = runpy.run_path(str(Path(__file__).parents[1] / "finetuning" / "other_kinds.py"))
world = _made["world"]
tiny_plan, tiny_network = _made["tiny_plan"], _made["tiny_network"]
COMMAND = ["-d", "502", "--source", "901", "-device", "cpu"]


def call(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    threads = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **threads, **environment},
        cwd=Path(__file__).parent,  # not the root, whose folder would hide what is installed
        capture_output=True,
        text=True,
    )


def finetune(*arguments: str) -> None:
    """`screener_finetune` in this process."""
    main([*COMMAND, "-np", "1", *arguments])


def test_help_needs_no_torch() -> None:
    body = (
        "import sys, screener_nnu.commands.finetune as c; c.build_parser().format_help();"
        "sys.exit('torch' in sys.modules or 'nnunetv2' in sys.modules)"
    )
    assert call({}, "-c", body).returncode == 0


def test_defaults() -> None:
    args = build_parser().parse_args(["-d", "502", "--source", "901", "-f", "0"])
    assert (args.f, args.init, args.epochs, args.iterations) == (0, "student", None, None)


def test_misfit_is_shown_and_stops_before_anything_is_written(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = tiny_network(tiny_plan((4, 6, 8))).state_dict()
    torch.save({"network_weights": narrow}, world.student)
    with pytest.raises(SystemExit) as caught:
        main([*COMMAND, "-f", "0"])
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert "encoder stage 1" in said.out and "do not fit" in said.err
    assert not world.preprocessed.exists() and not world.results.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-f", "all", "--num_cases", "2"], "-f 0"),
        (["-f", "7"], "folds 0 to 4"),
        (["-f", "0", "--num_cases", "5"], "fold 0 trains on 4 cases; ask for 1 to 4"),
        (["-f", "0", "--source", "999"], "no dataset 999"),
        (["-f", "0", "--source", "Dataset999_Absent"], "no plan"),
        (["-f", "0", "--source", "absent.zip"], "absent.zip"),
        (["-f", "0", "--init", "scratch", "-chk", "x.pth"], "-chk"),
        (["-f", "0", "-p", "Other"], "no plan"),
        (["-f", "0", "-chk", "absent.pth"], "no checkpoint"),
        (["-f", "0", "--init", "absent.pth"], "is no start"),
        (["-f", "0", "--init", "descriptor"], "screener_train 901 3d_fullres descriptor"),
        (["-f", "0", "--init", "descriptor", "-chk", "x.pth"], "leave -chk out"),
        (["-f", "0", "-o", "frozen=0.2"], "--init student:tuned"),
        (["-f", "0", "--init", "student:tuned", "-o", "freeze=1"], "FineTuningTrainer: epochs"),
        (["-f", "0", "--init", "student:tuned", "-o", "frozen=1.0"], "together below 1"),
    ],
)
def test_requests_that_cannot_be_met(
    world: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit):
        main([*COMMAND, *arguments])
    assert reason in capsys.readouterr().err
    assert not world.results.exists() and not world.preprocessed.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-f", "0", "--epochs", "0"], "--epochs: must be a whole number, at least 1"),
        (["-f", "0", "--epochs", "many"], "--epochs: must be a whole number, at least 1"),
        (["-f", "first"], "-f: must be the number of a fold, from 0 on, or all"),
        (["-f", "-1"], "-f: must be the number of a fold, from 0 on, or all"),
    ],
)
def test_arguments_that_are_no_numbers(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit):
        main([*COMMAND, *arguments])
    assert reason in capsys.readouterr().err


def test_misfits_end_the_command_before_anything_is_written(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in ("case_1", "case_4"):
        (world.raw / "labelsTr" / f"{case}.nii.gz").unlink()
    with pytest.raises(SystemExit) as caught:
        main([*COMMAND, "-f", "0"])
    said = capsys.readouterr().err
    assert caught.value.code == 1 and "\n  case_1: " in said and "\n  case_4: " in said
    written = [path.name for path in world.preprocessed.iterdir()]
    assert written == ["screener_case_check.json"] and not world.results.exists()


def test_a_draw_without_foreground_ends_the_command(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in range(5):
        path = str(world.raw / "labelsTr" / f"case_{case}.nii.gz")
        SimpleITK.WriteImage(SimpleITK.ReadImage(path) * 0, path)
    world.preprocessed.mkdir(parents=True)
    splits = [{"train": ["case_0", "case_1"], "val": ["case_5"]}]
    (world.preprocessed / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(SystemExit):
        main([*COMMAND, "-f", "0", "--num_cases", "1"])
    assert "no training case of fold 0 (--num_cases 1 --seed 0) holds" in capsys.readouterr().err
    path = str(world.raw / "labelsTr" / "case_5.nii.gz")
    SimpleITK.WriteImage(SimpleITK.ReadImage(path) * 0, path)
    with pytest.raises(SystemExit):
        main([*COMMAND, "-f", "all"])
    said = capsys.readouterr().err
    assert "no training case of Dataset502_Lesions, fold all holds a voxel of lesion" in said
    assert not (world.preprocessed / "Screener901_student.json").exists()


@pytest.mark.parametrize("kind", ["preprocessed", "results"])
def test_a_place_that_cannot_hold_results(
    world: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    place = world.root / "a_file"
    place.write_text("mine")
    # The source stays readable where the labelled dataset cannot be written.
    target = (world.preprocessed if kind == "preprocessed" else world.results).parent
    (target / "Dataset502_Lesions").symlink_to(place)
    with pytest.raises(SystemExit):
        main([*COMMAND, "-f", "0"])
    said = capsys.readouterr().err
    assert "is no folder" in said and f"name another place by nnUNet_{kind}" in said
    assert place.read_text() == "mine"


def test_a_place_without_the_right_to_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    require_writable({"nnUNet_results": tmp_path / "made" / "later"})
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(ScreenerError, match=f"{tmp_path} may not be written to"):
        require_writable({"nnUNet_results": tmp_path / "made" / "later"})


@pytest.mark.parametrize("restart", [[], ["--restart"]])
def test_what_somebody_else_trained_or_preprocessed_stays(
    world: Any, capsys: pytest.CaptureFixture[str], restart: list[str]
) -> None:
    model = world.results / "nnUNetTrainer__Screener901_student__3d_fullres" / "fold_0"
    theirs = [
        world.preprocessed / "Screener901_3d_fullres" / "case_0.b2nd",
        world.preprocessed / "Screener901_student.json",
        model / "checkpoint_final.pth",
    ]
    for file in theirs:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
        with pytest.raises(SystemExit):
            main([*COMMAND, "-f", "0", *restart])
        assert str(file if file.suffix == ".json" else file.parent) in capsys.readouterr().err
        assert file.read_text() == "{}"
        file.unlink()


def test_untrained_source_names_the_command(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    world.student.unlink()
    with pytest.raises(SystemExit):
        main([*COMMAND, "-f", "0"])
    assert "screener_train 901 3d_fullres distillation" in capsys.readouterr().err


@pytest.mark.slow
def test_from_student_to_stock_prediction(
    world: Any,
    tmp_path: Path,
    light_nnunet: None,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    world.preprocessed.mkdir(parents=True)
    own_plan = world.preprocessed / "nnUNetPlans.json"
    own_plan.write_text('{"own": true}')
    budget = ("--epochs", "1", "--iterations", "2", "--num_cases", "2", "--ball_baseline")
    finetune("-f", "0", *budget)
    said = capsys.readouterr().out
    assert "fold 5 of splits_final.json" in said
    assert "central ball: Dice" in said
    assert own_plan.read_text() == '{"own": true}'
    fold = world.results / "nnUNetTrainer__Screener901_student__3d_fullres" / "fold_5"
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert f"mean validation Dice {summary['foreground_mean']['Dice']:.4f}" in said
    _check_repeat_is_free(world, fold, *budget)
    assert "finished already" in caplog.text
    assert _stock_prediction(world, tmp_path, "5").shape == (30, 32, 34)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colours", "mr"])
def test_pictures_and_mr_from_student_to_stock_prediction(
    kind: str,
    tmp_path: Path,
    light_nnunet: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = other_world(tmp_path, kind, monkeypatch)
    finetune("-f", "0", "--epochs", "1", "--iterations", "2", "--ball_baseline")
    said = capsys.readouterr().out
    configuration = "3d_fullres" if kind == "mr" else "2d"
    fold = world.results / f"nnUNetTrainer__Screener901_student__{configuration}" / "fold_0"
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert f"mean validation Dice {summary['foreground_mean']['Dice']:.4f}" in said
    assert f"-d 502 -c {configuration} -p Screener901_student -f 0" in said
    assert ("mm, all" if kind == "mr" else "pixels, all") in said
    label = _stock_prediction(world, tmp_path, "0", configuration)
    assert label.shape == ((30, 32, 34) if kind == "mr" else (40, 36))


@pytest.mark.long
@pytest.mark.slow
def test_tuned_start_gives_a_stock_model(
    world: Any, tmp_path: Path, light_nnunet: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained by our trainer, predicted with where there is none of ours; resumed for nothing."""
    budget = ("--epochs", "2", "--iterations", "2", "--init", "student:tuned")
    finetune("-f", "0", *budget)
    words = "-p Screener901_student-tuned -f 0 -tr FineTuningTrainer -device cpu"
    assert words in capsys.readouterr().out
    model = "FineTuningTrainer__Screener901_student-tuned__3d_fullres"
    plan = json.loads((world.results / model / "plans.json").read_text())
    assert plan["screener_finetuning"]["settings"]["encoder_factor"] == 0.3
    names = {"start": "student-tuned", "trainer": "-tr FineTuningTrainer"}
    assert _stock_prediction(world, tmp_path, "0", **names).shape == (30, 32, 34)


@pytest.mark.slow
def test_a_probe_segments_what_its_frozen_network_shows(world: Any, light_nnunet: None) -> None:
    """Balls brighter than what is around them, by a few random features; then stock prediction."""
    fold = _probed(world, "-o", "patches=24", "-o", "steps=400")
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] > 0.3  # a central ball has .13
    saved = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    student = torch.load(world.student, weights_only=False)["network_weights"]
    kept = {k: v for k, v in student.items() if ".seg_layers." not in k}
    assert all(torch.equal(saved["network_weights"][f"unet.{k}"], v) for k, v in kept.items())
    assert _prediction_beside_us(world, fold).any()


@pytest.mark.slow
def test_a_probe_is_trained_on_with_its_network(world: Any, light_nnunet: None) -> None:
    """What the head found is not lost, the network moves, and stock nnU-Net predicts with both."""
    settings = ("--epochs", "2", "--iterations", "3", "-o", "patches=24", "-o", "steps=400")
    fold = _probed(world, *settings, word="lpft")
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] > 0.3  # six iterations from random heads have 0
    saved = torch.load(fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
    student = torch.load(world.student, weights_only=False)["network_weights"]
    first = next(n for n in student if n.endswith("conv.weight"))
    change = (saved[f"unet.{first}"] - student[first]).abs().max()
    assert 0 < change < 0.5 * student[first].abs().max()
    assert _prediction_beside_us(world, fold).any()


@pytest.mark.long
@pytest.mark.slow
def test_a_probe_of_pictures_is_trained_on(
    tmp_path: Path, light_nnunet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = other_world(tmp_path, "colours", monkeypatch)
    words = ("--epochs", "2", "--iterations", "3", "-o", "patches=24", "-o", "steps=400")
    finetune("-f", "0", "--init", "student:lpft", *words)
    summary = next(world.results.glob("ProbeTuningTrainer__*__2d/fold_0/validation/summary.json"))
    assert json.loads(summary.read_text())["foreground_mean"]["Dice"] > 0.5


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_validation_of_a_probe_is_made_up_for(world: Any, light_nnunet: None) -> None:
    settings = ("-o", "patches=2", "-o", "steps=4")
    fold = _probed(world, *settings)
    (fold / "validation" / "summary.json").unlink()
    before = (fold / "checkpoint_final.pth").stat().st_mtime_ns
    _probed(world, *settings)
    assert (fold / "validation" / "summary.json").is_file()
    assert (fold / "checkpoint_final.pth").stat().st_mtime_ns == before  # not fitted again


def _probed(world: Any, *settings: str, word: str = "probe") -> Path:
    """Folder of a probe that the command has fitted."""
    finetune("-f", "0", "--init", f"student:{word}", *settings)
    plans = next(p.stem for p in world.preprocessed.glob(f"Screener901_student-{word}-*.json"))
    trainer = SETTINGS[word].trainer
    return world.results / f"{trainer}__{plans}__3d_fullres" / "fold_0"


@pytest.mark.long
@pytest.mark.slow
def test_stock_command_finds_the_fine_tuning_trainer(world: Any, light_nnunet: None) -> None:
    """`nnUNetv2_train -tr FineTuningTrainer -pretrained_weights`, with settings of the plan."""
    start = ("-f", "0", "--init", "student:tuned", "-o", "epochs=1", "-o", "iterations=2")
    finetune(*start, "-o", "transfer_decoder=false")
    plans = next(p.stem for p in world.preprocessed.glob("Screener901_student-tuned-*.json"))
    from screener_nnu.paths import trainers_shim_folder

    body = "from nnunetv2.run.run_training import run_training_entry as r; r()"
    words = f"502 3d_fullres 1 -tr FineTuningTrainer -p {plans} -device cpu"
    environment = {**world.environment, "nnUNet_extTrainer": str(trainers_shim_folder())}
    weights = ("-pretrained_weights", str(world.student))
    done = call(environment, "-c", body, *words.split(), *weights)
    assert done.returncode == 0, done.stdout + done.stderr
    fold = world.results / f"FineTuningTrainer__{plans}__3d_fullres" / "fold_1"
    saved = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert saved["transferred"] and saved["trainer_name"] == "nnUNetTrainer"
    assert saved["current_epoch"] == 1  # of the plan: one epoch


def _check_repeat_is_free(world: Any, fold: Path, *budget: str) -> None:
    checkpoint = fold / "checkpoint_final.pth"
    cases = world.preprocessed / "Screener901_3d_fullres" / "case_0.b2nd"
    before = (checkpoint.stat().st_mtime_ns, cases.stat().st_mtime_ns)
    finetune("-f", "0", *budget)
    assert (checkpoint.stat().st_mtime_ns, cases.stat().st_mtime_ns) == before


def other_world(root: Path, kind: str, patch: pytest.MonkeyPatch) -> Any:
    """A world of pictures or MR, entered."""
    world = _kinds["make_world"](root, kind)
    _made["enter"](world, patch)
    return world


def _prediction_beside_us(world: Any, fold: Path) -> np.ndarray:
    """What nnU-Net's predictor makes of a case where screener_nnu is installed."""
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    number = fold.name.removeprefix("fold_")
    predictor.initialize_from_trained_model_folder(str(fold.parent), [number])
    image, properties = SimpleITKIO().read_images([str(world.raw / "imagesTr/case_0_0000.nii.gz")])
    label = predictor.predict_single_npy_array(image, properties)
    assert label.shape == image.shape[1:] and set(np.unique(label)) <= {0, 1}
    return label


def _stock_prediction(
    world: Any,
    tmp_path: Path,
    fold: str,
    configuration: str = "3d_fullres",
    start: str = "student",
    trainer: str = "",
) -> np.ndarray:
    """What nnU-Net predicts of a case, where screener_nnu was never installed."""
    # Also in nnU-Net's worker processes: a package of our name that cannot be imported.
    blocked = tmp_path / "blocked" / "screener_nnu"
    blocked.mkdir(parents=True)
    body = "raise ImportError('screener_nnu is not installed')\n"
    (blocked / "__init__.py").write_text(body)
    environment = {**world.environment, "PYTHONPATH": str(blocked.parent)}
    assert "not installed" in call(environment, "-c", "import screener_nnu").stderr
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    ending = ".png" if configuration == "2d" else ".nii.gz"
    name = f"case_0_0000{ending}"
    (images / name).write_bytes((world.raw / "imagesTr" / name).read_bytes())
    body = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point as p; p()"
    arguments = f"-i {images} -o {out} -d 502 -c {configuration} -p Screener901_{start} -f {fold}"
    workers = f"{trainer} -npp 1 -nps 1 -device cpu --disable_tta"
    done = call(environment, "-c", body, *arguments.split(), *workers.split())
    assert done.returncode == 0, done.stdout + done.stderr
    label = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(out / f"case_0{ending}")))
    assert set(np.unique(label)) <= {0, 1}
    return label
