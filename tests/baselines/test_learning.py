"""Methods learn on phantoms, by the command line, to find synthetic anomalies in others."""

from __future__ import annotations

from typing import Any

import pytest

from screener_nnu.checkpoints import read_checkpoint
from screener_nnu.detectors import ModelRef

SETTINGS = (
    "baseline.method=mood",
    "baseline.optimiser.steps=70",
    "baseline.optimiser.steps_per_epoch=35",
    "baseline.optimiser.warmup_steps=4",
    "baseline.optimiser.learning_rate=1e-2",
    "baseline.crop_size=[24, 24, 32]",
    "baseline.crops_per_step=4",
    "baseline.keep=last",
    # Voxels of 9 to 12 mm show no smaller anomalies.
    "baseline.options.smallest=20",
    "baseline.options.alpha=[0.6, 1.0]",
    "baseline.options.augmentation=0",
)


@pytest.mark.slow
def test_training_finds_foreign_tissue_better_than_the_first_weights(world: Any) -> None:
    untrained = world.trainer("baseline", *SETTINGS)
    untrained.check.prepare()
    untrained.validation_figure()
    before = untrained.validation_terms
    world.train("baseline", *(word for setting in SETTINGS for word in ("-o", setting)))
    logged = read_checkpoint(ModelRef(901, detector="baseline").file)["logging"]
    assert logged["reference"] == pytest.approx(before["mean"])
    after = logged["values"]["validation_terms"][-1]
    # Other kinds need more than a minute of training.
    assert after["pasted"] > before["pasted"] + 0.05
    first, last = logged["values"]["train_losses"]
    assert last < 0.9 * first
