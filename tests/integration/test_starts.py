"""From unlabelled scans to a fine-tuning: a start is trained, found by name and transferred."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from screener_nnu.commands.finetune import main as finetune
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.starts import check_input, find_start
from screener_nnu.finetuning.training import file_hash
from screener_nnu.networks.unet import build_unet
from screener_nnu.paths import plan_file
from screener_nnu.plans import read_plan
from screener_nnu.sharing.description import training_figures
from screener_nnu.sharing.manifest import StageFile
from screener_nnu.sharing.scrub import checkpoint_without_cases
from screener_nnu.sharing.weights_check import read_stage
from screener_nnu.stage_checkpoint import finished_stage
from screener_nnu.starts import METHODS, START, start_plans, trained_start
from screener_nnu.trainers.run import train_stage

SOURCE, TARGET = "Dataset901_Tiny", "Dataset502_Lesions"
pytestmark = pytest.mark.slow
#: Trained each time until its objective falls; the others with `-m long`.
SHORT = {"masked_autoencoder", "swin_tasks"}


def add_labelled(world: Any, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw folder with the scans and five labelled cases beside them."""
    (raw / TARGET / "imagesTr").mkdir(parents=True)
    (raw / TARGET / "labelsTr").mkdir()
    (raw / SOURCE).symlink_to(world.raw.resolve(), target_is_directory=True)
    for number in range(5):
        generator = np.random.default_rng(number)
        image = generator.normal(40, 20, (20, 28, 28)).astype(np.int16)
        label = np.zeros(image.shape, dtype=np.uint8)
        label[8:12, 10:18, 10:18] = 1
        image[label > 0] += 150
        for kind, array in (("images", image), ("labels", label)):
            made = sitk.GetImageFromArray(array)
            made.SetSpacing((9.0, 9.0, 12.0))
            end = "_0000" if kind == "images" else ""
            sitk.WriteImage(made, str(raw / TARGET / f"{kind}Tr" / f"case_{number}{end}.nii.gz"))
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "lesion": 1}}
    description |= {"numTraining": 5, "file_ending": ".nii.gz"}
    (raw / TARGET / "dataset.json").write_text(json.dumps(description))
    monkeypatch.setenv("nnUNet_raw", str(raw))


def test_from_scans_to_a_fine_tuned_network(
    world: Any,
    tmp_path: Path,
    light_nnunet: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = tmp_path / "raw"
    add_labelled(world, raw, monkeypatch)
    words = ["-d", "502", "--source", "901", "-f", "0", "-device", "cpu"]
    with pytest.raises(SystemExit):
        finetune([*words, "--init", "masked_autoencoder"])
    said = capsys.readouterr().err
    assert "the start masked_autoencoder of ScreenerPlans has not been trained" in said
    assert "screener_train 901 3d_fullres start_masked_autoencoder" in said
    world.train("start_masked_autoencoder")
    said = capsys.readouterr().out
    assert "start: objective of the untrained network" in said and "start finished" in said
    path = trained_start(SOURCE, "ScreenerPlans", "masked_autoencoder")
    assert path.parents[1].name == (
        "StartTrainer__ScreenerPlans_start_masked_autoencoder__3d_fullres"
    )
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["trained"] == "encoder and decoder"
    assert checkpoint["method_weights"] == {} and checkpoint["nnssl_adaptation_plan"]
    figures = checkpoint["logging"]["values"]["figures"]
    assert checkpoint["best_figure"] == min(figures) and len(figures) == 2
    plan = read_plan(plan_file(SOURCE, "ScreenerPlans"))
    build_unet(plan, 1, 1).load_state_dict(checkpoint["network_weights"])
    budget = ["--epochs", "1", "--iterations", "2", "-np", "1"]
    finetune([*words, "--init", "masked_autoencoder", *budget])
    said = capsys.readouterr().out
    assert "segmentation heads" in said and "reset" in said
    assert "note: its encoder and its decoder were trained" in said
    folder = world.root / "results" / TARGET
    fold = folder / "nnUNetTrainer__Screener901_masked_autoencoder__3d_fullres" / "fold_0"
    assert (fold / "validation" / "summary.json").is_file()
    record = json.loads((fold / "screener_finetune.json").read_text())
    assert file_hash(path) in json.dumps(record)
    tuned = find_start("masked_autoencoder:tuned", SOURCE, "ScreenerPlans", plan)
    assert (tuned.name, tuned.weights) == ("masked_autoencoder-tuned", path)


@pytest.mark.long
def test_a_start_of_the_encoder_says_so(world: Any) -> None:
    world.train("start_contextual_position")
    plan = read_plan(plan_file(SOURCE, "ScreenerPlans"))
    start = find_start("contextual_position", SOURCE, "ScreenerPlans", plan)
    said = check_input(start, torch.load(start.weights, weights_only=True), plan)
    assert "note: its encoder was trained; its decoder has the weights it was made with" in said


def test_a_variant_is_the_start_of_its_own_plan(world: Any) -> None:
    settings = ["start.method=tissue", "start.crop_size=[12, 16, 16]"]
    words = [word for setting in settings for word in ("-o", setting)]
    world.train("start", "-p", "Labelled", *words)
    plan = read_plan(plan_file(SOURCE, "Labelled"))
    found = find_start("start", SOURCE, "Labelled", plan)
    assert found.weights == world.stage("start", "Labelled") / "checkpoint_final.pth"
    checkpoint = torch.load(found.weights, weights_only=True)
    # Five of the six outputs stand apart.
    assert {len(v) for v in checkpoint["method_weights"].values()} == {5}
    # Trained again it is left alone; with other settings it is refused.
    world.train("start", "-p", "Labelled")
    with pytest.raises(SystemExit):
        world.train("start", "-p", "Labelled", "-o", "start.options={}", "-o", "start.mirror=false")


def test_a_start_is_described_and_checked_as_any_stage(world: Any, tmp_path: Path) -> None:
    world.train("start_swin_tasks")
    plans = start_plans("ScreenerPlans", "swin_tasks")
    checkpoint = finished_stage(SOURCE, START, plans).read()
    figures = training_figures(START, checkpoint)
    logged = checkpoint["logging"]["values"]
    assert figures["trained"] == figures["best"] == min(logged["figures"])
    assert figures["figure"] == "objective" and figures["untrained"] > 0
    # The terms stand beside their sum.
    assert set(logged["validation_terms"][0]) == {"restoring", "turns", "contrast"}
    assert sum(logged["validation_terms"][-1].values()) == pytest.approx(logged["figures"][-1])
    heads = {k.partition(".")[0] for k in checkpoint["method_weights"]}
    assert heads == {"turn", "embed"}
    torch.save(checkpoint_without_cases(checkpoint), tmp_path / "start.pth")
    read = read_stage(tmp_path / "start.pth", StageFile(plans, START))
    assert list(read["network_weights"]) == list(checkpoint["network_weights"])


@pytest.mark.parametrize(
    "name",
    [n if n in SHORT else pytest.param(n, marks=pytest.mark.long) for n in METHODS],
)
def test_the_objective_falls_on_scans_that_were_not_seen(world: Any, name: str) -> None:
    lengths = ("steps=80", "steps_per_epoch=40", "warmup_steps=5", "learning_rate=5e-3")
    settings = [f"start.optimiser.{length}" for length in lengths]
    world.train(f"start_{name}", *(word for setting in settings for word in ("-o", setting)))
    own = start_plans("ScreenerPlans", name)
    checkpoint = finished_stage(SOURCE, START, own).read()
    assert checkpoint["best_figure"] < 0.95 * checkpoint["logging"]["reference"]


def test_too_few_crops_for_a_contrast(world: Any) -> None:
    plan = world.plan("start.method=swin_tasks", "start.crops_per_step=1").to_dict()
    plan_file(SOURCE, "ScreenerPlans").write_text(json.dumps(plan))
    with pytest.raises(ScreenerError, match="start.crops_per_step=1 leaves 1 to a device"):
        train_stage("901", "start", "ScreenerPlans", torch.device("cpu"))
