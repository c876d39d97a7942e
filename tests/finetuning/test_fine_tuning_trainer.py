"""The trainer for transferred weights, and its settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import read_checkpoint
from screener_nnu.finetuning.plan import read_source_plan, target_plan, write_target_plan
from screener_nnu.finetuning.settings import FINE_TUNING_TRAINER, FineTuningSettings
from screener_nnu.finetuning.starts import make_start
from screener_nnu.finetuning.training import FineTuningRun, make_trainer
from screener_nnu.trainers.finetuning import part_learning_rate, part_of
from screener_nnu.trainers.probe_tuning import ProbeTuningTrainer

SOURCE, TARGET = "Dataset901_Trunk", "Dataset502_Lesions"
EPOCHS, ITERATIONS = 4, 5


def tuned_run(world: Any, *settings: str, word: str = "tuned") -> FineTuningRun:
    """A run whose plan is there; the trainer is built, so cases need only a file's ending."""
    start = make_start("student", world.student, word, settings)
    source = read_source_plan(SOURCE, "ScreenerPlans")
    plan = target_plan(
        source,
        source=SOURCE,
        target=TARGET,
        start=start.name,
        reader="SimpleITKIO",
        tuned=start.tuned,
    )
    write_target_plan(plan)
    (world.preprocessed / "dataset.json").write_text((world.raw / "dataset.json").read_text())
    cases = world.preprocessed / "Screener901_3d_fullres"
    cases.mkdir(exist_ok=True)
    (cases / "case_0.b2nd").touch()
    return FineTuningRun(TARGET, plan.name, 0, world.student, EPOCHS, ITERATIONS, 3, start.trainer)


def batch_for(trainer: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    data = torch.randn(2, 1, 16, 16, 16, generator=generator)
    target = (data > 0.5).float()
    scales = trainer._get_deep_supervision_scales()
    return {
        "data": data,
        "target": [
            target[..., :: int(1 / s[0]), :: int(1 / s[1]), :: int(1 / s[2])] for s in scales
        ],
    }


def weights_of(trainer: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trainer.network.named_parameters()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {part_of(n) for n in before if not torch.equal(before[n], after[n])}


def test_learning_rate_of_a_part() -> None:
    settings = FineTuningSettings(
        learning_rate=0.02, encoder_factor=0.1, decoder_factor=0.5, warmup=0.1, frozen=0.3
    )
    rates = {
        part: np.array([part_learning_rate(settings, part, step, 100) for step in range(100)])
        for part in ("heads", "decoder", "encoder")
    }
    decay = 0.02 * (1 - np.arange(100) / 100) ** 0.9
    rise = np.minimum(1, np.arange(1, 101) / 11)
    np.testing.assert_allclose(rates["heads"], decay * rise)
    later = np.concatenate([np.zeros(30), rise[:70]])
    np.testing.assert_allclose(rates["decoder"], 0.5 * decay * later)
    np.testing.assert_allclose(rates["encoder"], 0.1 * decay * later)


def test_without_warmup_it_is_that_of_nnunet(world: Any) -> None:
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

    settings = FineTuningSettings(warmup=0.0)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], settings.learning_rate)
    stock = PolyLRScheduler(optimiser, settings.learning_rate, 50)
    for step in (0, 1, 20, 49):
        stock.step(step)
        expected = optimiser.param_groups[0]["lr"]
        assert part_learning_rate(settings, "heads", step, 50) == pytest.approx(expected)


def test_every_weight_belongs_to_a_part(world: Any) -> None:
    trainer = make_trainer(tuned_run(world), "cpu", resume=False)
    groups = {g["part"]: len(g["params"]) for g in trainer.optimizer.param_groups}
    assert list(groups)[0] == "heads"  # the one that nnU-Net logs
    network = trainer.network
    assert groups["encoder"] == len(list(network.encoder.parameters()))
    assert groups["heads"] == len(list(network.decoder.seg_layers.parameters()))
    assert sum(groups.values()) == len(list(network.parameters()))


def test_settings_come_from_the_plan(world: Any) -> None:
    trainer = make_trainer(tuned_run(world, "learning_rate=0.004", "frozen=0.2"), "cpu", False)
    assert type(trainer).__name__ == FINE_TUNING_TRAINER
    assert (trainer.fine_tuning.learning_rate, trainer.fine_tuning.frozen) == (0.004, 0.2)
    # The budget is that of the command.
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (EPOCHS, ITERATIONS)


def test_frozen_layers_stay_and_move_later(world: Any) -> None:
    trainer = make_trainer(tuned_run(world, "frozen=0.25", "warmup=0.0"), "cpu", False)
    trainer.take_over()
    assert trainer.transferred
    batch, parts = batch_for(trainer), []
    trainer.network.train()
    for _ in range(ITERATIONS + 1):
        before = weights_of(trainer)
        trainer.train_step(batch)
        parts.append(moved(before, weights_of(trainer)))
    assert parts[:ITERATIONS] == [{"heads"}] * ITERATIONS  # a quarter of four epochs
    assert parts[ITERATIONS] == {"heads", "decoder", "encoder"}


def test_scratch_is_neither_frozen_nor_slowed(world: Any) -> None:
    run = replace(tuned_run(world, "frozen=0.5"), weights=None)
    trainer = make_trainer(run, "cpu", resume=False)
    trainer.take_over()
    assert not trainer.transferred
    before = weights_of(trainer)
    trainer.train_step(batch_for(trainer))
    assert moved(before, weights_of(trainer)) == {"heads", "decoder", "encoder"}
    assert len({g["lr"] for g in trainer.optimizer.param_groups}) == 1


@pytest.mark.parametrize("transfer", [True, False])
def test_decoder_is_transferred_or_not(world: Any, transfer: bool) -> None:
    run = tuned_run(world, f"transfer_decoder={str(transfer).lower()}")
    random = weights_of(make_trainer(replace(run, weights=None), "cpu", resume=False))
    trainer = make_trainer(run, "cpu", resume=False)
    trainer.take_over()
    student = torch.load(world.student, weights_only=True)["network_weights"]
    for name, value in weights_of(trainer).items():
        if part_of(name) == "heads":
            continue
        from_student = part_of(name) == "encoder" or transfer
        assert torch.equal(value, student[name] if from_student else random[name]), name
    trainer.train_step(batch_for(trainer))
    rates = {g["part"]: g["lr"] for g in trainer.optimizer.param_groups}
    assert rates["encoder"] == pytest.approx(0.3 * rates["heads"])
    assert rates["decoder"] == pytest.approx((0.3 if transfer else 1.0) * rates["heads"])


def test_checkpoint_is_stock_and_resumes(world: Any) -> None:
    run = tuned_run(world)
    trainer = make_trainer(run, "cpu", resume=False)
    trainer.take_over()
    trainer.train_step(batch_for(trainer))
    trainer.current_epoch = 1
    trainer.save_checkpoint(str(run.folder / "checkpoint_latest.pth"))
    saved = torch.load(run.folder / "checkpoint_latest.pth", weights_only=False)
    assert saved["trainer_name"] == "nnUNetTrainer"
    resumed = make_trainer(run, "cpu", resume=True)
    assert resumed.transferred and resumed.current_epoch == 2
    assert not moved(weights_of(trainer), weights_of(resumed))
    # The second step of the second epoch is the same in both.
    for each in (trainer, resumed):
        each.current_epoch, each._step_of_epoch = 2, 1
        each.train_step(batch_for(each))
    assert not moved(weights_of(trainer), weights_of(resumed))


def test_weights_of_the_last_epochs_are_averaged(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the training was killed between two of them."""
    run = tuned_run(world, "averaged=0.5")
    latest, final = (run.folder / f"checkpoint_{name}.pth" for name in ("latest", "final"))

    def next_epoch(trainer: Any) -> None:
        trainer.save_checkpoint(str(latest))
        trainer.current_epoch += 1

    monkeypatch.setattr(nnUNetTrainer, "on_epoch_end", next_epoch)
    monkeypatch.setattr(nnUNetTrainer, "on_train_end", lambda t: t.save_checkpoint(str(final)))

    def one_epoch(trainer: Any) -> dict[str, torch.Tensor]:
        trainer._step_of_epoch = 0
        trainer.train_step(batch_for(trainer))
        weights = weights_of(trainer)
        trainer.on_epoch_end()
        return weights

    trainer = make_trainer(run, "cpu", resume=False)
    trainer.take_over()
    seen = [one_epoch(trainer) for _ in range(3)]
    resumed = make_trainer(run, "cpu", resume=True)
    one_epoch(resumed)
    resumed.on_train_end()
    seen.append(one_epoch(trainer))
    trainer.on_train_end()
    saved = torch.load(final, weights_only=False)
    assert "average" not in saved
    for name, value in weights_of(trainer).items():
        mean = np.mean([weights[name].numpy() for weights in seen[EPOCHS // 2 :]], axis=0)
        np.testing.assert_allclose(value.numpy(), mean, rtol=1e-5, atol=1e-7)
        assert torch.equal(saved["network_weights"][name], value)
    assert not moved(weights_of(trainer), weights_of(resumed))
    assert moved(weights_of(trainer), seen[-1])


def test_a_fitted_head_and_its_network_are_trained_on_together(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LP-FT: the head is fitted first, once; all learn then, at a rate that rises and falls."""
    fitted: list[Any] = []
    monkeypatch.setattr(ProbeTuningTrainer, "fit", lambda trainer: fitted.append(trainer))
    monkeypatch.setattr(nnUNetTrainer, "run_training", lambda trainer: None)
    run = tuned_run(world, "tuning_rate=0.004", "tuning_warmup=0.1", word="lpft")
    trainer = make_trainer(run, "cpu", resume=False)
    trainer.run_training()
    assert fitted == [trainer]
    student = read_checkpoint(world.student)["network_weights"]
    before = weights_of(trainer)
    kept = [n for n in student if ".seg_layers." not in n and f"unet.{n}" in before]
    assert kept and all(torch.equal(before[f"unet.{n}"], student[n]) for n in kept)
    data = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    batch = {"data": data, "target": (data > 0.5).float()}
    rates = []
    for _ in range(ITERATIONS):
        trainer.train_step(batch)
        rates.append({group["lr"] for group in trainer.optimizer.param_groups})
    total = EPOCHS * ITERATIONS
    rise = [min(1, (i + 1) / 3) * 0.004 * (1 - i / total) ** 0.9 for i in range(ITERATIONS)]
    assert [len(r) for r in rates] == [1] * ITERATIONS
    np.testing.assert_allclose([r.pop() for r in rates], rise)
    # The UNet's own output is passed by.
    still = {n for n, value in weights_of(trainer).items() if torch.equal(value, before[n])}
    assert all(".seg_layers." in n or n.endswith("conv.bias") for n in still)
    trainer.save_checkpoint(str(run.folder / "checkpoint_latest.pth"))
    resumed = make_trainer(run, "cpu", resume=True)
    resumed.run_training()
    assert fitted == [trainer] and resumed.current_epoch == 1
    assert not moved(weights_of(trainer), weights_of(resumed))


@pytest.mark.parametrize("mirroring", [False, True])
@pytest.mark.parametrize("word", ["lpft", "tuned"])
def test_mirroring_of_batches_and_predictions(world: Any, word: str, mirroring: bool) -> None:
    words = (f"mirroring={str(mirroring).lower()}",)
    trainer: Any = make_trainer(tuned_run(world, *words, word=word), "cpu", resume=False)
    *_, axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert axes == trainer.inference_allowed_mirroring_axes == ((0, 1, 2) if mirroring else None)


@pytest.mark.parametrize("word", ["tuning_rate=0.0", "tuning_warmup=1.0", "mirroring=1"])
def test_settings_of_a_probe_that_is_trained_on_are_checked(word: str) -> None:
    with pytest.raises(ScreenerError, match=word.partition("=")[0]):
        make_start("student", None, "lpft", [word])


def test_weights_that_are_no_numbers_are_not_written(world: Any) -> None:
    run = tuned_run(world)
    trainer = make_trainer(run, "cpu", resume=False)
    latest = run.folder / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(latest))
    before = latest.read_bytes()
    with torch.no_grad():
        next(trainer.network.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(ScreenerError, match="went astray in epoch 1: .* no finite .*--restart"):
        trainer.save_checkpoint(str(latest))
    assert latest.read_bytes() == before


def test_a_torn_checkpoint_is_said_in_one_sentence(world: Any) -> None:
    run = tuned_run(world)
    trainer = make_trainer(run, "cpu", resume=False)
    latest = run.folder / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(latest))
    latest.write_bytes(latest.read_bytes()[:1000])
    with pytest.raises(ScreenerError, match=str(latest)):
        trainer.load_checkpoint(str(latest))


def test_stock_checkpoint_has_the_keys_of_nnunet(world: Any, tmp_path: Path) -> None:
    """So that a newer nnU-Net that writes more of them is noticed."""
    trainer = make_trainer(tuned_run(world), "cpu", resume=False)
    own, stock = tmp_path / "own.pth", tmp_path / "stock.pth"
    trainer.save_checkpoint(str(own))
    nnUNetTrainer.save_checkpoint(trainer, str(stock))
    keys = [set(torch.load(p, weights_only=False)) for p in (own, stock)]
    assert keys[0] == keys[1] | {"transferred"}


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("epochs=0", "at least 1"),
        ("epochs=2.5", "whole number"),
        ("learning_rate=0", "above 0"),
        ("learning_rate=fast", "a number"),
        ("transfer_decoder=1", "true or false"),
        ("encoder_factor=-1", "not negative"),
        ("frozen=0.97", "together below 1"),
        ("averaged=1.1", "0 to 1"),
        ("learning_rate=NaN", "finite"),
        ("encoder_factor=Infinity", "finite"),
        ("depth=3", "known: epochs, iterations"),
    ],
)
def test_settings_that_cannot_be(word: str, reason: str) -> None:
    with pytest.raises(ScreenerError, match=reason):
        FineTuningSettings().override([word])


def test_names_tell_settings_apart() -> None:
    def name(*words: str) -> str:
        return make_start("student", None, "tuned", words).name

    assert name() == name("epochs=250") == "student-tuned"
    other = name("frozen=0.1")
    # As it was before there was `mirroring`: trainings of then are found again.
    assert other == name("frozen=1e-1") == "student-tuned-0a1772"
    assert name("mirroring=false") not in (name(), other)
    assert len({other, name("frozen=0.2"), name("epochs=7"), name()}) == 4
    assert make_start("student", None).name == "student"


def test_plan_round_trip() -> None:
    settings = FineTuningSettings().override(["frozen=0.1", "epochs=40"])
    plan = {"screener_finetuning": {"settings": settings.to_plan()}}
    assert FineTuningSettings.of_plan(plan) == settings
    assert FineTuningSettings.of_plan({}) == FineTuningSettings()
    with pytest.raises(ScreenerError, match="unknown fine-tuning settings in the plan: depth"):
        FineTuningSettings.of_plan({"screener_finetuning": {"settings": {"depth": 3}}})
