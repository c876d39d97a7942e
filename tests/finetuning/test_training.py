from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.plan import read_source_plan, target_plan, write_target_plan
from screener_nnu.finetuning.training import (
    FineTuningRun,
    begin_or_resume,
    fine_tune,
    make_trainer,
)
from screener_nnu.locks import only_one
from screener_nnu.paths import preprocessed_folder

SOURCE, TARGET = "Dataset901_Trunk", "Dataset502_Lesions"


@pytest.fixture
def run(world: Any) -> FineTuningRun:
    """A run whose plan is there; the trainer is built, so cases need only a file's ending."""
    source = read_source_plan(SOURCE, "ScreenerPlans")
    plan = target_plan(source, source=SOURCE, target=TARGET, start="student", reader="SimpleITKIO")
    write_target_plan(plan)
    (world.preprocessed / "dataset.json").write_text((world.raw / "dataset.json").read_text())
    cases = world.preprocessed / "Screener901_3d_fullres"
    cases.mkdir()
    (cases / "case_0.b2nd").touch()
    return FineTuningRun(TARGET, "Screener901_student", 0, world.student, 40, 10)


def transferred(run: FineTuningRun, trainer: Any) -> list[bool]:
    weights = torch.load(run.weights, weights_only=True)["network_weights"]
    state = trainer.network.state_dict()
    return [torch.equal(state[k], weights[k]) for k in state if ".seg_layers." not in k]


def test_weights_are_in_the_stock_network_before_training(run: FineTuningRun) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer = make_trainer(run, "cpu", resume=False)
    assert type(trainer) is nnUNetTrainer
    assert all(transferred(run, trainer))
    heads = [
        v for k, v in trainer.network.state_dict().items() if k.endswith("seg_layers.1.weight")
    ]
    assert [tuple(head.shape[:2]) for head in heads] == [(2, 4)]


def test_weights_are_those_that_nnunet_would_load(run: FineTuningRun) -> None:
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    trainer = make_trainer(run, "cpu", resume=False)
    other = make_trainer(replace(run, weights=None), "cpu", resume=False)
    heads = {k: v for k, v in trainer.network.state_dict().items() if ".seg_layers." in k}
    load_pretrained_weights(other.network, str(run.weights))
    state = {**other.network.state_dict(), **heads}
    assert all(torch.equal(v, state[k]) for k, v in trainer.network.state_dict().items())


def test_weights_of_a_gpu_are_read_where_there_is_none(
    run: FineTuningRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = torch.load(run.weights, weights_only=True)
    saved = tmp_path / "gpu.pth"
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:3")
        torch.save(checkpoint, saved)
    with pytest.raises(RuntimeError, match="CUDA|cuda"):
        torch.load(saved, weights_only=True)
    elsewhere = replace(run, weights=saved)
    assert all(transferred(run, make_trainer(elsewhere, "cpu", resume=False)))


def test_corrected_labels_are_noticed(run: FineTuningRun, world: Any) -> None:
    """Trainings of before and after a correction must not stand in one table."""
    raw = world.preprocessed.parents[1] / "raw" / TARGET
    (raw / "imagesTr").mkdir(parents=True, exist_ok=True)
    (raw / "labelsTr").mkdir(exist_ok=True)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    (world.preprocessed / "dataset.json").write_text(json.dumps(description))
    for case in ("a", "b"):
        (raw / "imagesTr" / f"{case}_0000.nii.gz").write_bytes(b"image of " + case.encode())
        (raw / "labelsTr" / f"{case}.nii.gz").write_bytes(b"label of " + case.encode())
    folds = [{"train": ["a"], "val": ["b"]}]
    (preprocessed_folder(TARGET) / "splits_final.json").write_text(json.dumps(folds))
    begin_or_resume(run)
    (run.folder / "checkpoint_latest.pth").touch()
    assert begin_or_resume(run)
    (raw / "labelsTr" / "b.nii.gz").write_bytes(b"label of B")
    with pytest.raises(ScreenerError, match="other settings .data: "):
        begin_or_resume(run)


def test_scratch_has_other_weights(run: FineTuningRun) -> None:
    trainer = make_trainer(replace(run, weights=None), "cpu", resume=False)
    # Biases and norms start at the same constants everywhere; convolutions do not.
    assert not all(transferred(run, trainer))


def test_budget_reaches_the_schedule(run: FineTuningRun) -> None:
    trainer = make_trainer(run, "cpu", resume=False)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (40, 10)
    assert (trainer.num_val_iterations_per_epoch, trainer.save_every) == (2, 2)
    trainer.lr_scheduler.step(20)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**0.9)


def test_a_killed_training_repeats_little(run: FineTuningRun) -> None:
    """One epoch of nnU-Net's length; of short ones more, but not above a twentieth."""
    wanted = {(1000, 250): 1, (1000, 25): 10, (100, 25): 5, (8, 2): 1, (40, 500): 1}
    found = {
        (epochs, iterations): make_trainer(
            replace(run, weights=None, epochs=epochs, iterations=iterations), "cpu", resume=False
        ).save_every
        for epochs, iterations in wanted
    }
    assert found == wanted


def test_checkpoint_names_the_stock_trainer_and_resumes(run: FineTuningRun) -> None:
    trainer = make_trainer(run, "cpu", resume=False)
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(0.25)
    trainer.current_epoch = 6
    trainer.save_checkpoint(str(run.folder / "checkpoint_latest.pth"))
    assert [path.name for path in run.folder.glob("checkpoint_*")] == ["checkpoint_latest.pth"]
    saved = torch.load(run.folder / "checkpoint_latest.pth", weights_only=False)
    assert saved["trainer_name"] == "nnUNetTrainer"
    resumed = make_trainer(run, "cpu", resume=True)
    assert resumed.current_epoch == 7
    assert torch.all(next(resumed.network.parameters()) == 0.25)


def test_interrupted_fold_is_resumed_with_its_own_settings_only(run: FineTuningRun) -> None:
    assert not begin_or_resume(run)
    assert not begin_or_resume(replace(run, epochs=50))  # nothing trained yet
    assert not begin_or_resume(run)
    (run.folder / "checkpoint_best.pth").touch()
    assert begin_or_resume(run)
    with pytest.raises(ScreenerError, match="epochs: 40, now 50"):
        begin_or_resume(replace(run, epochs=50))
    assert not begin_or_resume(replace(run, epochs=50), restart=True)
    assert not (run.folder / "checkpoint_best.pth").exists()


def test_finished_fold_is_reported_and_not_trained(
    run: FineTuningRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_or_resume(run)
    (run.folder / "checkpoint_final.pth").touch()
    run.summary_file.parent.mkdir()
    run.summary_file.write_text(json.dumps({"foreground_mean": {"Dice": 0.75}}))
    assert fine_tune(run, "cpu") == 0.75


def test_predict_command_is_stock(run: FineTuningRun) -> None:
    assert run.predict_command("cpu") == (
        "nnUNetv2_predict -i INPUT -o OUTPUT -d 502 -c 3d_fullres "
        "-p Screener901_student -f 0 -device cpu"
    )
    model = "nnUNetTrainer__Screener901_student__3d_fullres"
    assert run.folder.relative_to(Path(run.folder.parents[2])) == Path(TARGET, model, "fold_0")


def test_weights_may_move_but_not_change(run: FineTuningRun, tmp_path: Path) -> None:
    assert not begin_or_resume(run)
    (run.folder / "checkpoint_latest.pth").touch()
    moved = tmp_path / "moved.pth"
    moved.write_bytes(run.weights.read_bytes())
    assert begin_or_resume(replace(run, weights=moved))
    torch.save({"network_weights": {}}, run.weights)
    with pytest.raises(ScreenerError, match="weights_sha256"):
        begin_or_resume(run)


def test_runs_begun_before_hashes_were_kept_go_on(run: FineTuningRun) -> None:
    assert not begin_or_resume(run)
    (run.folder / "checkpoint_latest.pth").touch()
    path = run.folder / "screener_finetune.json"
    record = json.loads(path.read_text())
    del record["weights_sha256"], record["seed"], record["cases"]
    path.write_text(json.dumps(record))
    assert begin_or_resume(run)
    with pytest.raises(ScreenerError, match="seed: None, now 3"):
        begin_or_resume(replace(run, seed=3))


def test_seed_sets_new_weights_and_the_draws_of_the_first_batch(run: FineTuningRun) -> None:
    heads, draws = [], []
    for weights, seed in ((None, 1), (run.weights, 1), (None, 2)):
        trainer = make_trainer(replace(run, weights=weights, seed=seed), "cpu", resume=False)
        state = trainer.network.state_dict()
        heads.append(state["decoder.seg_layers.1.weight"].clone())
        draws.append((torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()))
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert draws[0] == draws[1] != draws[2]


def test_fold_of_the_same_number_with_other_cases_is_refused(run: FineTuningRun) -> None:
    splits = preprocessed_folder(run.dataset) / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    assert not begin_or_resume(run)
    (run.folder / "checkpoint_latest.pth").touch()
    splits.write_text(json.dumps([{"train": ["b", "a"], "val": ["c"]}, {"train": [], "val": []}]))
    assert begin_or_resume(run)
    splits.write_text(json.dumps([{"train": ["a", "c"], "val": ["b"]}]))
    with pytest.raises(ScreenerError, match="cases: 2 training and 1 validation"):
        begin_or_resume(run)


def test_a_stock_training_in_our_place_is_neither_taken_up_nor_deleted(run: FineTuningRun) -> None:
    """`nnUNetv2_train ... -p Screener901_student` writes into the same folder."""
    theirs = run.folder / "checkpoint_final.pth"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("trained by nnU-Net")
    for restart in (False, True):
        with pytest.raises(ScreenerError, match="screener_finetune did not begin"):
            fine_tune(run, "cpu", restart)
    assert theirs.read_text() == "trained by nnU-Net"


def test_restart_leaves_what_a_person_put_there(run: FineTuningRun) -> None:
    begin_or_resume(run)
    (run.folder / "checkpoint_best.pth").touch()
    (run.folder / "notes.txt").write_text("mine")
    assert not begin_or_resume(run, restart=True)
    assert sorted(p.name for p in run.folder.iterdir()) == ["notes.txt", "screener_finetune.json"]


@pytest.mark.parametrize("text", ["", '{"foreground_mean": ', "{}", "[]"])
def test_a_damaged_summary_is_made_again(
    run: FineTuningRun, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_or_resume(run)
    (run.folder / "checkpoint_final.pth").touch()
    run.summary_file.parent.mkdir()
    run.summary_file.write_text(text)

    class Trainer:
        def perform_actual_validation(self) -> None:
            run.summary_file.write_text('{"foreground_mean": {"Dice": 0.5}}')

    monkeypatch.setattr("screener_nnu.finetuning.training.make_trainer", lambda *_: Trainer())
    assert fine_tune(run, "cpu") == 0.5


@pytest.mark.parametrize("content", [b"", b"PK torn"])
def test_a_damaged_checkpoint_cannot_be_gone_on_with(run: FineTuningRun, content: bytes) -> None:
    begin_or_resume(run)
    (run.folder / "checkpoint_latest.pth").write_bytes(content)
    with pytest.raises(ScreenerError, match="checkpoint is damaged .*--restart"):
        fine_tune(run, "cpu")


def test_a_killed_worker_of_the_training_is_named(
    run: FineTuningRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trainer:
        def run_training(self) -> None:
            raise RuntimeError("One or more background workers are no longer alive. Exiting.")

    monkeypatch.setattr("screener_nnu.finetuning.training.make_trainer", lambda *a: Trainer())
    monkeypatch.setattr("screener_nnu.finetuning.training._use_cores", lambda device: None)
    with pytest.raises(ScreenerError, match=f"the training in {run.folder} was stopped.*-np"):
        fine_tune(run, "cpu")


def test_a_label_that_was_lost_since_is_noticed(run: FineTuningRun, world: Any) -> None:
    begin_or_resume(run)
    (run.folder / "checkpoint_latest.pth").touch()
    (world.raw / "labelsTr" / "case_0.nii.gz").unlink()
    with pytest.raises(ScreenerError, match="other settings .data: "):
        begin_or_resume(run)


def test_a_full_disk_leaves_the_old_checkpoint(
    run: FineTuningRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(run, "cpu", resume=False)
    latest = run.folder / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(latest))
    before = latest.read_bytes()

    def full(values: Any, file: Any) -> None:
        Path(file).write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] . file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ScreenerError, match="checkpoint_latest.pth .*no space left"):
        trainer.save_checkpoint(str(latest))
    assert latest.read_bytes() == before
    assert [path.name for path in run.folder.glob("*checkpoint*")] == ["checkpoint_latest.pth"]


def test_a_fold_is_trained_by_one_process(run: FineTuningRun) -> None:
    with only_one(run.folder.parent / ".fold_0.lock", "nnUNet_results", "training it"):
        with pytest.raises(ScreenerError, match=r"another process is training .*fold_0: wait"):
            fine_tune(run, "cpu", restart=True)
    assert not run.folder.exists()
