"""What the trainer of methods that learn from crops does with mirrors, first values and plans."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from screener_nnu.trainers.baseline import BaselineTrainer

FLOW = {"side": 32, "code": 8, "blocks": 1, "hidden": 8}


@pytest.mark.parametrize(
    ("stage", "method", "options", "mirrors"),
    [
        ("start", "swin_tasks", {}, False),
        ("start", "masked_autoencoder", {}, True),
        ("baseline", "cflow", FLOW, False),
        ("baseline", "autoencoder", {}, True),
    ],
)
def test_methods_that_know_sides_see_no_mirrored_crops(
    world: Any,
    stage: str,
    method: str,
    options: dict[str, Any],
    mirrors: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = f"{stage}.options={json.dumps(options)}"
    size = f"{stage}.crop_size={list(world.plan().settings.crop_size)}"
    trainer = world.trainer(stage, f"{stage}.method={method}", own, size)
    assert trainer.method_settings.mirror
    batch = next(iter(trainer.training_batches(0)))
    shown = []

    def losses_of(network: Any, images: torch.Tensor, *rest: Any) -> dict[str, torch.Tensor]:
        shown.append(images)
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(trainer, "losses_of", losses_of)
    for step in range(4):
        trainer.compute_loss(batch, step)
    images, _ = trainer.images_of(batch)
    assert all(torch.equal(one, images) for one in shown) is not mirrors


def test_first_values_are_those_of_the_first_process(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"baseline.options={json.dumps(FLOW)}"
    trainer = world.trainer("baseline", "baseline.method=cflow", own)
    sent = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda value, rank: sent.append(value))
    monkeypatch.setattr(trainer, "is_ddp", True)
    trainer.prepare()
    assert float(trainer.model.feature_mean.abs().sum()) > 0
    expected = [value.data_ptr() for value in trainer.model.state_dict().values()]
    assert [value.data_ptr() for value in sent] == expected


def test_sizes_of_patches_are_settings_of_the_stage(world: Any) -> None:
    """Methods that paste patches read them where the stage `pretext` does."""
    other = world.plan("pretext.medmix.probability=0.9")
    settings = [BaselineTrainer.relevant_settings(plan) for plan in (world.plan(), other)]
    assert settings[0] != settings[1]
