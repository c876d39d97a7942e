"""Plan, train, predict as a user does, and what happens when the order is another one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.commands.plan_and_preprocess import main as plan_and_preprocess
from screener_nnu.commands.predict import main as predict
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import trainers_shim_folder

PLANNING = ["-d", "901", "--preset", "cpu", "-np", "1", "--num_test", "1"]


def stamps(root: Path) -> dict[str, int]:
    """What was made: plan, cases, checkpoints, maps; not the logs and reports."""
    return {
        str(p.relative_to(root)): p.stat().st_mtime_ns
        for p in root.rglob("*")
        if p.suffix in (".b2nd", ".pth", ".npy", ".gz", ".png")
        or p.name in ("ScreenerPlans.json", "dataset.json", "plans.json")
    }


def turned(image: sitk.Image) -> sitk.Image:
    """The same person in a file whose axes run the other way and in another order."""
    return sitk.DICOMOrient(image, "SAR")


def check_map(folder: Path, name: str, scan: sitk.Image) -> np.ndarray:
    score, body = (sitk.ReadImage(str(folder / f"{name}{end}.nii.gz")) for end in ("", "_body"))
    for image in (score, body):
        assert image.GetSize() == scan.GetSize()
        for get in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(image, get)(), getattr(scan, get)(), atol=1e-4)
    values, inside = sitk.GetArrayFromImage(score), sitk.GetArrayFromImage(body)
    assert np.isfinite(values).all() and values.dtype == np.float32
    assert set(np.unique(inside)) == {0, 1} and 0.2 < inside.mean() < 0.95
    assert np.unique(values[inside == 0]).size == 1
    assert values[inside == 1].std() > 0
    return values


@pytest.mark.slow
def test_whole_chain_and_again(
    made_world: Any, empty_world: Any, tmp_path: Path, tiny_settings: Any
) -> None:
    world = empty_world
    (world.root / "raw").rmdir()
    (world.root / "raw").symlink_to(made_world.root / "raw", target_is_directory=True)
    scans = tmp_path / "scans"
    scans.mkdir()
    scan = sitk.ReadImage(str(world.raw / "imagesTr" / "phantom_0003_0000.nii.gz"))
    other = turned(scan)
    assert other.GetDirection() != scan.GetDirection() and other.GetSize() != scan.GetSize()
    sitk.WriteImage(scan, str(scans / "plain_0000.nii.gz"))
    sitk.WriteImage(other, str(scans / "turned_0000.nii.gz"))

    def run_everything(*settings: str) -> None:
        plan_and_preprocess(PLANNING)
        world.train("chain", *settings)
        for words in (["-o", str(world.root / "student")], ["--teacher", "-o", "teacher"]):
            folder = str(world.root / words[-1])
            predict(["-d", "901", "-i", str(scans), *words[:-1], folder, "-device", "cpu"])

    run_everything(*tiny_settings())
    lowest = {}
    for method in ("student", "teacher"):
        folder = world.root / method
        plain = check_map(folder, "plain", scan)
        check_map(folder, "turned", other)
        back = sitk.DICOMOrient(sitk.ReadImage(str(folder / "turned.nii.gz")), "LPS")
        # The person is the same, however the file was written.
        assert np.corrcoef(sitk.GetArrayFromImage(back).ravel(), plain.ravel())[0, 1] > 0.95
        lowest[method] = plain.min() if method == "teacher" else plain[0, 0, 0]
    assert lowest["student"] == lowest["teacher"]  # the score outside the body
    student = sitk.ReadImage(str(world.root / "student" / "plain.nii.gz"))
    assert not np.allclose(plain, sitk.GetArrayFromImage(student))
    for stage in ("descriptor", "condition", "density", "distillation"):
        files = {p.name for p in world.stage(stage).iterdir()}
        assert {"checkpoint_final.pth", "checkpoint_best.pth", "progress.png"} <= files
        assert "checkpoint_latest.pth" not in files

    before = stamps(world.root)
    assert len(before) > 30
    run_everything()
    assert stamps(world.root) == before


def error_of(capsys: pytest.CaptureFixture[str], call: Any, *arguments: str) -> str:
    """The message of a command that ends with code 1."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        call(*arguments)
    assert end.value.code == 1
    return capsys.readouterr().err


def test_other_settings_on_a_trained_plan_are_refused(
    trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stamps(trained.root)
    message = error_of(capsys, trained.train, "descriptor", "-o", "descriptor.loss=vicreg")
    assert "has other settings and trained stages" in message and "-p ScreenerPlans_var" in message
    assert stamps(trained.root) == before
    # Edited by hand, the plan no longer belongs to what was trained.
    path = trained.preprocessed / "ScreenerPlans.json"
    plan = trained.plan("jitter.noise=0.3").to_dict()
    path.write_text(json.dumps(plan))
    message = error_of(capsys, trained.train, "descriptor")
    assert "trained with other settings" in message and "--restart" in message


def test_settings_of_other_stages_may_change(trained: Any) -> None:
    before = stamps(trained.root / "results")
    path = trained.preprocessed / "ScreenerPlans.json"
    plan = trained.plan("distillation.clip_sigma=4", "workers=1").to_dict()
    path.write_text(json.dumps(plan))
    trained.train("descriptor")
    trained.train("density")
    assert stamps(trained.root / "results") == before


def test_variant_takes_a_stage_of_another_plan(trained: Any) -> None:
    variant = ["-p", "Gaussian", "-o", "density.kind=gaussian"]
    links = [f"density.{s}_plans=ScreenerPlans" for s in ("descriptor", "condition")]
    trained.train("chain", *variant, *[word for link in links for word in ("-o", link)])
    assert (trained.stage("distillation", "Gaussian") / "checkpoint_final.pth").is_file()
    assert not trained.stage("descriptor", "Gaussian").exists()
    assert not trained.stage("condition", "Gaussian").exists()


@pytest.mark.parametrize(
    ("stage", "needed"),
    [("density", "descriptor"), ("distillation", "density")],
)
def test_a_stage_too_early_names_the_command(
    world: Any, capsys: pytest.CaptureFixture[str], stage: str, needed: str
) -> None:
    message = error_of(capsys, world.train, stage)
    assert message.rstrip().endswith(f"screener_train 901 3d_fullres {needed}")
    message = error_of(capsys, predict, ["-d", "901", "-i", str(world.raw / "imagesTr"), "-o", "x"])
    assert message.rstrip().endswith("screener_train 901 3d_fullres distillation")


def test_missing_case_is_named_before_training(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    name = world.plan().settings.split.train[1]
    (world.cases / f"{name}.json").unlink()
    message = error_of(capsys, world.train, "descriptor")
    assert f"1 cases of the plan are not preprocessed (first: {name})" in message


def test_stock_command_with_a_numbered_fold_is_refused(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.run.run_training import run_training_entry

    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_shim_folder()))
    words = "901 3d_fullres 0 -tr DescriptorTrainer -p ScreenerPlans -device cpu"
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", *words.split()])
    with pytest.raises(ScreenerError, match="fold 0: a screener stage .* use fold 'all'"):
        run_training_entry()
    assert not list((world.root / "results").iterdir())
