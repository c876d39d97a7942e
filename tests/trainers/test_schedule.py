"""Learning rate: linear warm-up and cosine decay, counted in steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from screener_nnu.plans import OptimiserSettings
from screener_nnu.trainers.base import schedule_factor


def factors(steps: int, warmup: int, count: int) -> np.ndarray:
    settings = OptimiserSettings(steps=steps, steps_per_epoch=10, warmup_steps=warmup)
    return np.array([schedule_factor(settings, step) for step in range(count)])


@pytest.mark.parametrize(("steps", "warmup"), [(100, 10), (7, 0), (12, 3), (5, 1)])
def test_factor_is_a_ramp_and_a_half_cosine(steps: int, warmup: int) -> None:
    ramp = np.linspace(0, 1, warmup + 2)[1:-1]
    decay = (1 + np.cos(np.linspace(0, np.pi, steps - warmup + 1))) / 2
    expected = np.concatenate([ramp, decay])
    np.testing.assert_allclose(factors(steps, warmup, steps + 1), expected, atol=1e-12)


def test_anchors() -> None:
    values = factors(110, 10, 140)
    assert values[10] == 1.0 and values.argmax() == 10
    assert values[60] == pytest.approx(0.5)
    assert 0 < values[0] < 0.1
    assert (values[110:] == 0).all()


def test_a_run_that_is_all_warm_up_does_not_divide_by_zero() -> None:
    assert factors(4, 4, 6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.0])


def test_each_step_of_a_trainer_uses_its_factor(world: Any) -> None:
    schedule = [f"descriptor.optimiser.{s}" for s in ("steps=5", "warmup_steps=2")]
    trainer = world.trainer("descriptor", *schedule, "descriptor.optimiser.learning_rate=0.01")
    batches = trainer.training_batches(0)
    used = []
    for _ in range(5):
        used.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.train_step(next(batches))
    third = np.cos(np.pi * np.arange(3) / 3)
    assert used == pytest.approx([0.01 / 3, 0.02 / 3, *(0.005 * (1 + third))])
    assert trainer.global_step == 5


def test_last_epoch_is_shorter_where_epochs_do_not_divide_the_steps(world: Any) -> None:
    trainer = world.trainer("descriptor", "descriptor.optimiser.steps=5")
    trainer.run_training()
    assert (trainer.global_step, trainer.current_epoch) == (5, 3)
    assert len(trainer.stage_log.my_fantastic_logging["figures"]) == 3
