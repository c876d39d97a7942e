"""f-AnoGAN in the trainer: its networks learn in turns, also in a run that was stopped."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from screener_nnu.errors import ScreenerError

TINY = (
    "baseline.method=fanogan",
    'baseline.options={"latent": 8, "critic_steps": 2, "gan_share": 0.5}',
    "baseline.optimiser.steps=12",
    "baseline.optimiser.steps_per_epoch=4",
)


def test_steps_of_the_trainer_change_one_part_each(world: Any) -> None:
    trainer = world.trainer("baseline", *TINY)
    rates = [(group["betas"], group["initial_lr"]) for group in trainer.optimizer.param_groups]
    own = trainer.optimiser_settings.learning_rate
    assert rates == [((0.0, 0.9), own), ((0.0, 0.9), own), ((0.9, 0.999), 1e-3)]
    trainer.network.train()
    batches = trainer.training_batches(0)
    turns = []
    for _ in range(12):
        state = trainer.model.state_dict()
        before = {name: value.clone() for name, value in state.items()}
        terms = trainer.train_step(next(batches))
        assert all(torch.isfinite(value) for value in terms.values())
        changed = {
            name.split(".")[0] for name, v in state.items() if not torch.equal(v, before[name])
        }
        assert len(changed) == 1
        turns.append(changed.pop()[0])
    assert "".join(turns) == "ccgccg" + 6 * "e"


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for stop in (None, 1, 2):
        trainer = world.trainer("baseline", *TINY)
        for name in ("finish", "calibrate"):
            monkeypatch.setattr(trainer, name, lambda: None)
        monkeypatch.setattr(trainer, "validation_figure", lambda: 0.5)
        if stop:
            trainer.num_epochs = stop
            monkeypatch.setattr(trainer, "on_train_end", lambda: None)
            trainer.run_training()
            latest = str(trainer.own_checkpoint("checkpoint_latest.pth").path)
            trainer = world.trainer("baseline", *TINY)
            for name in ("finish", "calibrate"):
                monkeypatch.setattr(trainer, name, lambda: None)
            monkeypatch.setattr(trainer, "validation_figure", lambda: 0.5)
            trainer.load_checkpoint(latest)
            assert trainer.global_step == 4 * stop
        trainer.run_training()
        assert trainer.global_step == 12
        ends.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
    for other in ends[1:]:
        assert all(torch.equal(value, other[name]) for name, value in ends[0].items())


def test_scores_that_do_not_differ_are_refused_with_the_way_out(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = world.trainer("baseline", *TINY, "baseline.keep=last")
    monkeypatch.setattr(trainer, "validation_figure", lambda: 0.5)
    monkeypatch.setattr(trainer.model, "reconstruct", lambda images: images)
    with pytest.raises(ScreenerError, match="^fanogan: .* no scale .* generator that collapsed"):
        trainer.finish()
    assert "generator that collapsed" in str(trainer.diverged("its loss is nan", 3))
