"""Calibrations of a trained chain: made by its training, noticed when stale, made again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from screener_nnu.calibration.annotated import AnnotatedThresholds
from screener_nnu.calibration.run import Calibrator, calibrate_trained
from screener_nnu.calibration.scans import image_scans, load_predictor, stored_scans
from screener_nnu.calibration.store import (
    calibration_file,
    load_calibration,
    read_calibration,
    resolve_threshold,
    save_calibration,
    trained_identity,
)
from screener_nnu.case_score import CASE_PERCENTILE
from screener_nnu.commands.calibrate import main as calibrate
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import ScreenerSettings, read_plan

DATASET, PLANS = "Dataset901_Tiny", "ScreenerPlans"
CPU = torch.device("cpu")
KINDS = pytest.mark.parametrize("teacher", [True, False], ids=["teacher", "student"])


def split(world: Any) -> Any:
    return read_plan(world.preprocessed / f"{PLANS}.json").settings.split


def command(*words: Any) -> None:
    calibrate(["-d", "901", "-device", "cpu", *(str(word) for word in words)])


def error_of(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        command(*words)
    assert end.value.code == 1
    return capsys.readouterr().err


def ref(teacher: bool) -> ModelRef:
    """The teacher or the student of the plan."""
    return ModelRef("901", PLANS, "teacher" if teacher else "student")


def link(images: Path, world: Any, case: str, name: str) -> Path:
    """A scan under another name, as a folder of scans that nobody trained on."""
    images.mkdir(exist_ok=True)
    source = world.raw / "imagesTr" / f"{case}_0000.nii.gz"
    os.symlink(source.resolve(), images / f"{name}_0000.nii.gz")
    return images


@KINDS
def test_training_calibrates_on_its_validation_scans(trained: Any, teacher: bool) -> None:
    found = load_calibration(ref(teacher))
    assert found is not None and found.source == "validation scans"
    assert found.model == trained_identity(ref(teacher))
    assert found.scans == len(split(trained).validation)
    text = calibration_file(ref(teacher)).read_text()
    named = split(trained)
    assert not any(case in text for case in (*named.train, *named.validation, *named.test))
    assert str(trained.root) not in text
    # Of the voxels of exactly these scans, as prediction scores them.
    predictor, _ = load_predictor(ref(teacher), CPU)
    images = {case: trained.raw / "imagesTr" / f"{case}_0000.nii.gz" for case in named.validation}
    scans = [scan() for scan in image_scans(lambda: predictor, images).values()]
    expected = [np.percentile(s.score[s.body], CASE_PERCENTILE) for s in scans]
    np.testing.assert_allclose(found.case_scores, sorted(expected), rtol=0.02, atol=0.02)


@KINDS
def test_stored_cases_give_the_maps_of_prediction(trained: Any, teacher: bool) -> None:
    predictor, _ = load_predictor(ref(teacher), CPU)
    case = split(trained).validation[0]
    (stored,) = stored_scans(lambda: predictor, trained.cases, [case]).values()
    path = trained.raw / "imagesTr" / f"{case}_0000.nii.gz"
    (raw,) = image_scans(lambda: predictor, {case: path}).values()
    first, second = stored(), raw()
    np.testing.assert_array_equal(first.body, second.body)
    inside = second.score[second.body]
    difference = np.abs(first.score[first.body] - inside)
    assert difference.max() < 0.05 * inside.std()
    assert first.voxel_ml == pytest.approx(second.voxel_ml)
    size = sitk.ReadImage(str(path)).GetSpacing()
    assert second.voxel_ml == pytest.approx(np.prod(size) / 1000)


@KINDS
def test_other_weights_are_noticed(
    trained: Any, teacher: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = trained.stage("density" if teacher else "distillation") / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    name, weight = next(iter(checkpoint["network_weights"].items()))
    checkpoint["network_weights"][name] = weight + 1e-3
    torch.save(checkpoint, path)
    assert load_calibration(ref(teacher)) is None
    assert "belongs to other weights" in caplog.text
    assert f"screener_calibrate -d 901{' --teacher' if teacher else ''}" in caplog.text
    with pytest.raises(ScreenerError, match="needs a calibration of the"):
        resolve_threshold("fp1", ref(teacher))


def test_damaged_file_is_noticed(trained: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = calibration_file(ref(False))
    path.write_bytes(path.read_bytes()[:1000])
    assert load_calibration(ref(False)) is None
    assert "calibration not used" in caplog.text


def test_thresholds_of_a_model(trained: Any) -> None:
    found = load_calibration(ref(False))
    assert found is not None
    assert resolve_threshold("p99", ref(False)) == found.score_at(99)
    calibration_file(ref(False)).unlink()
    assert resolve_threshold("12.5", ref(False)) == 12.5
    with pytest.raises(ScreenerError, match="student.*there is none; run\n    screener_calibrate"):
        resolve_threshold("fp1", ref(False))


def test_another_checkpoint_does_not_borrow_the_calibration(trained: Any, tmp_path: Path) -> None:
    final = trained.stage("distillation") / "checkpoint_final.pth"
    other = tmp_path / "checkpoint_final.pth"
    other.write_bytes(final.read_bytes())
    assert load_calibration(ModelRef("901", PLANS, checkpoint=other)) is None
    with pytest.raises(ScreenerError, match="there is none"):
        resolve_threshold("p99", ModelRef("901", PLANS, checkpoint=other))
    beside = final.with_name("checkpoint_copy.pth")
    beside.write_bytes(final.read_bytes())
    found = load_calibration(ref(False))
    assert found is not None
    assert resolve_threshold("p99", ModelRef("901", PLANS, checkpoint=beside)) == found.score_at(99)


def test_a_killed_calibration_is_made_by_the_next_run(
    trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for teacher, stage in ((True, "density"), (False, "distillation")):
        path = calibration_file(ref(teacher))
        content = path.read_bytes()
        checkpoint = (trained.stage(stage) / "checkpoint_final.pth").stat().st_mtime_ns
        path.unlink()
        trained.train(stage)
        assert path.read_bytes() == content
        time = path.stat().st_mtime_ns
        trained.train(stage)
        assert path.stat().st_mtime_ns == time
        final = trained.stage(stage) / "checkpoint_final.pth"
        assert final.stat().st_mtime_ns == checkpoint


def test_a_calibration_that_fails_loses_no_training(
    trained: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("out of memory")

    before = torch.load(trained.stage("density") / "checkpoint_final.pth", weights_only=True)
    monkeypatch.setattr(Calibrator, "on_validation_scans", fail)
    trained.train("density", "--restart")
    assert "was not calibrated (out of memory)" in caplog.text
    assert not calibration_file(ref(True)).exists()
    after = torch.load(trained.stage("density") / "checkpoint_final.pth", weights_only=True)
    for name, value in before["network_weights"].items():
        assert torch.equal(value, after["network_weights"][name])


def test_it_can_be_switched_off(trained: Any) -> None:
    path = calibration_file(ref(True))
    path.unlink()
    calibrate_trained(ref(True), CPU, 0)
    assert not path.exists()
    settings = trained.plan().settings
    assert settings.calibration.max_scans == 32
    older = trained.plan().to_dict()["screener"]
    del older["calibration"]
    assert ScreenerSettings.from_dict(older) == settings


def test_switching_does_not_change_a_trained_stage(trained: Any) -> None:
    """The setting belongs to no stage, so that nothing has to be trained anew for it."""
    plan = trained.plan("calibration.max_scans=0").to_dict()
    (trained.preprocessed / f"{PLANS}.json").write_text(json.dumps(plan))
    trained.train("chain")


@KINDS
def test_command_without_words(
    trained: Any, teacher: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = calibration_file(ref(teacher))
    before = read_calibration(path)
    path.unlink()
    command(*(["--teacher"] if teacher else []))
    assert read_calibration(path).to_dict() == before.to_dict()
    said = capsys.readouterr().out
    assert "1 held-out scans (validation scans)" in said and str(path) in said
    assert f"{before.score_at(99.9):.2f}" in said and "100 % apart" in said


def test_command_on_other_scans_and_their_check(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "scans"
    for number, case in enumerate(split(trained).train):
        link(images, trained, case, f"other_{number}")
    (images / "broken.nii.gz").write_bytes(b"no image")
    command("--images", images)
    found = load_calibration(ref(False))
    assert found is not None and found.source == "scans of a folder"
    assert found.scans == len(split(trained).train)
    before = calibration_file(ref(False)).read_bytes()
    capsys.readouterr()
    command("--images", images, "--check", "--min_volume_ml", "1")
    said = capsys.readouterr().out
    assert calibration_file(ref(False)).read_bytes() == before
    # On the very scans that it was made from, the obtained figure is that of the calibration.
    expected = found.false_positives.threshold_for(0.5, 1.0)
    row = next(line for line in said.splitlines() if line.startswith("0.5"))
    assert row.split()[1:3] == [f"{expected.threshold:.2f}", f"{expected.held_out:.2f}"]
    command("--images", images, "--max_scans", "2")
    few = load_calibration(ref(False))
    assert few is not None and few.scans == 2 - few_broken(images, 2)
    capsys.readouterr()
    command("--images", images, "--check", "--max_scans", "2")
    assert f"{2 - few_broken(images, 2)} other scans" in capsys.readouterr().out


def few_broken(images: Path, most: int) -> int:
    """Broken scans among those that are taken evenly of a sorted folder."""
    names = sorted(p.name for p in images.iterdir())
    taken = [names[i] for i in np.linspace(0, len(names) - 1, most).astype(int)]
    return sum(name.startswith("broken") for name in taken)


def test_annotated_cases(trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = link(tmp_path / "scans", trained, split(trained).train[0], "ill")
    link(images, trained, split(trained).train[1], "without_mask")
    masks = tmp_path / "masks"
    masks.mkdir()
    scan = sitk.ReadImage(str(images / "ill_0000.nii.gz"))
    predictor, _ = load_predictor(ref(False), CPU)
    (scored,) = image_scans(lambda: predictor, {"ill": images / "ill_0000.nii.gz"}).values()
    made = scored()
    high = np.percentile(made.score[made.body], 98)
    annotated = (made.score > high) & made.body
    mask = sitk.GetImageFromArray(annotated.astype(np.uint8))
    mask.CopyInformation(scan)
    sitk.WriteImage(mask, str(masks / "ill.nii.gz"))
    before = load_calibration(ref(False))
    assert before is not None
    command("--images", images, "--masks", masks)
    found = load_calibration(ref(False))
    assert found is not None and found.annotated is not None
    assert found.annotated.cases == 1 and found.annotated.dice > 0.9
    kept = {**found.to_dict(), "annotated": None}
    assert kept == before.to_dict()
    chosen = resolve_threshold("dice", ref(False))
    overlap = ((made.score > chosen) & made.body & annotated).sum()
    dice = 2 * overlap / (((made.score > chosen) & made.body).sum() + annotated.sum())
    assert dice == pytest.approx(found.annotated.dice)
    assert "1 annotated cases: mean Dice" in capsys.readouterr().out
    mask.SetSpacing((1.0, 1.0, 1.0))
    sitk.WriteImage(mask, str(masks / "ill.nii.gz"))
    assert "no annotated scan can be used" in error_of(capsys, "--images", images, "--masks", masks)


def test_a_new_calibration_keeps_thresholds_of_annotated_cases(
    trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = calibration_file(ref(False))
    annotated = AnnotatedThresholds(3, 7.0, 0.5, 0.4, {0.5: 6.0})
    save_calibration(read_calibration(path).with_annotated(annotated), path)
    command()
    assert read_calibration(path).annotated == annotated
    command("--images", link(tmp_path / "scans", trained, split(trained).train[0], "other"))
    made = read_calibration(path)
    assert made.source == "scans of a folder" and made.annotated == annotated
    assert "dropped" not in caplog.text
    save_calibration(replace(made, model="0" * 16), path)
    command()
    assert read_calibration(path).annotated is None
    assert "thresholds of 3 annotated cases are dropped" in caplog.text
    path.write_bytes(path.read_bytes()[:1000])
    command()
    assert "if there were any, are lost" in caplog.text and read_calibration(path).scans


def test_requests_that_cannot_be_met(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = split(trained)
    for use, case in (("test", named.test[0]), ("training", named.train[0])):
        images = link(tmp_path / use, trained, case, case)
        assert f"{case} (1 in all) has the name of a {use} scan" in error_of(
            capsys, "--images", images
        )
        assert f"{case} (1 in all) has the name of a {use} scan" in error_of(
            capsys, "--images", images, "--masks", images
        )
    assert "--masks needs scans" in error_of(capsys, "--masks", tmp_path)
    assert "--check needs scans" in error_of(capsys, "--check")
    assert "one scan is the least" in error_of(capsys, "--max_scans", 0)
    images = link(tmp_path / "fine", trained, named.train[0], "fine")
    (tmp_path / "no_masks").mkdir()
    assert "has the name of a scan, such as fine.nii.gz" in error_of(
        capsys, "--images", images, "--masks", tmp_path / "no_masks"
    )
    assert "does not exist" in error_of(capsys, "--images", tmp_path / "nowhere")
    calibration_file(ref(False)).unlink()
    assert "nothing to check yet; run\n    screener_calibrate -d 901" in error_of(
        capsys, "--images", images, "--check"
    )
    for file in trained.cases.glob(f"{named.validation[0]}*"):
        file.unlink()
    assert "no scan can be used to calibrate" in error_of(capsys)


def test_scans_of_a_pool_are_known_by_their_own_names(trained: Any) -> None:
    calibrator = Calibrator(ref(False), CPU)
    with pytest.raises(ScreenerError, match="case_7.*training scan"):
        calibrator._refuse_known(["case_7"], ["501_case_7"], "training")
    calibrator._refuse_known(["case_7", "501_case_8"], ["501_case_77", "xyz_case_7"], "training")
