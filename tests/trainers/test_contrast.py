"""Descriptor and condition: gradients, learning, the figure, and the batch over processes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from screener_nnu.losses import DenseInfoNCE, DenseVICReg
from screener_nnu.trainers import contrast

LOSSES = {"vicreg": DenseVICReg, "infonce": DenseInfoNCE}

PREFIX = {"descriptor": "descriptor", "condition": "condition.contrast"}
COMBINATIONS = [(stage, loss) for stage in PREFIX for loss in ("infonce", "vicreg")]


def batch_of(trainer: Any) -> Any:
    return next(trainer.training_batches(0))


@pytest.mark.parametrize(("stage", "loss"), COMBINATIONS)
def test_every_parameter_learns(world: Any, stage: str, loss: str) -> None:
    trainer = world.trainer(stage, f"{PREFIX[stage]}.loss={loss}")
    assert isinstance(trainer.loss, LOSSES[loss])
    trainer.network.train()
    value, _ = trainer.compute_loss(batch_of(trainer), 0)
    value.backward()
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    lower_heads = {
        id(p) for head in trainer.model.unet.decoder.seg_layers[:-1] for p in head.parameters()
    }
    assert lower_heads
    for name, parameter in trainer.network.named_parameters():
        if id(parameter) in lower_heads:
            assert not parameter.requires_grad and parameter.grad is None, name
            continue
        assert id(parameter) in optimised, name
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        # A bias before an instance norm moves nothing: its gradient is rounding.
        if not (name.endswith("conv.bias") or name.endswith("all_modules.0.bias")):
            assert parameter.grad.abs().max() > 1e-9, name
    first = next(p for p in trainer.model.unet.parameters() if p.ndim == 5)
    assert first.shape[1] == trainer.in_channels == {"descriptor": 1, "condition": 2}[stage]
    per_channel = first.grad.abs().amax(dim=(0, 2, 3, 4))  # type: ignore[union-attr]
    assert (per_channel > 1e-9).all()  # the mask is looked at as well


@pytest.mark.parametrize(("stage", "loss"), COMBINATIONS)
def test_loss_falls(world: Any, stage: str, loss: str) -> None:
    trainer = world.trainer(
        stage,
        f"{PREFIX[stage]}.loss={loss}",
        f"{PREFIX[stage]}.optimiser.warmup_steps=0",
        f"{PREFIX[stage]}.optimiser.steps=100",
        f"{PREFIX[stage]}.optimiser.learning_rate=0.005",
    )
    trainer.network.train()
    batch, losses = batch_of(trainer), []
    for _ in range(15):
        trainer.global_step = 0  # the same jitter, masks and positives
        losses.append(float(trainer.train_step(batch)["loss"]))
    assert max(losses[-3:]) < 0.9 * losses[0], losses


def test_the_two_views_are_seen_differently_but_match(world: Any) -> None:
    """Points of one voxel in the two crops show the same tissue when nothing is jittered."""
    trainer = world.trainer("descriptor", "jitter.probability=0")
    generator = torch.Generator().manual_seed(0)
    for sample in batch_of(trainer):
        images, points = trainer._views(sample, 64, generator)
        assert images.shape == (2, 1, 12, 16, 16) and len(points) == 2
        values = [contrast.features_at(images[i][None], [points[i]])[:, 0] for i in (0, 1)]
        assert float(torch.corrcoef(torch.stack(values))[0, 1]) > 0.8
    shuffled = contrast.features_at(images[1][None], [points[1].flip(0)])[:, 0]
    own = contrast.features_at(images[0][None], [points[0]])[:, 0]
    assert float(torch.corrcoef(torch.stack([own, shuffled]))[0, 1]) < 0.5


TURNED = ("descriptor.flip_probability=0.5", "descriptor.rotation_degrees=20")


def test_mirrored_and_turned_views_match(world: Any) -> None:
    """The step itself draws the orientations; its matching points show the same tissue."""
    trainer = world.trainer("descriptor", "jitter.probability=0", *TURNED)
    batch, generator = batch_of(trainer), torch.Generator().manual_seed(0)
    orientations = [trainer._orientations(generator) for _ in batch]
    assert len(torch.cat(orientations).unique(dim=0)) == 4  # each crop has its own
    for sample, turned in zip(batch, orientations, strict=True):
        images, points = trainer._views(sample, 64, generator, turned)
        upright, _ = trainer._views(sample, 64, generator)
        assert not torch.allclose(images, upright)
        assert 1 < len(points[0]) == len(points[1]) <= 64
        values = [contrast.features_at(images[i][None], [points[i]])[:, 0] for i in (0, 1)]
        assert float(torch.corrcoef(torch.stack(values))[0, 1]) > 0.8
    trainer.network.train()
    loss, _ = trainer.compute_loss(batch, 0)
    loss.backward()
    assert torch.isfinite(loss)


def test_upright_crops_draw_nothing_more(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default no orientation is drawn, so that older runs go on as they began."""
    trainer = world.trainer("descriptor")

    def refuse(*_: Any) -> None:
        raise AssertionError("an orientation was drawn")

    monkeypatch.setattr(contrast, "draw_orientations", refuse)
    trainer.compute_loss(batch_of(trainer), 0)
    turned = world.trainer("descriptor", *TURNED)
    monkeypatch.setattr(contrast, "_VALIDATION_PAIRS", 1)
    turned.validation_figure()  # the figure is that of upright crops, for all plans
    with pytest.raises(AssertionError, match="was drawn"):
        turned.compute_loss(batch_of(turned), 0)


@pytest.mark.parametrize("stage", list(PREFIX))
def test_figure_is_an_explicit_retrieval(
    world: Any, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrast, "_VALIDATION_PAIRS", 5)
    trainer = world.trainer(stage)
    figure = trainer.validation_figure()
    assert trainer.validation_figure() == figure
    assert not trainer.model.unet.training

    names = trainer.settings.split.validation
    reader = trainer._reader(names, f"{stage} validation")
    hits = []
    for index in range(5):
        generator = contrast.torch_generator(
            trainer.device, trainer.settings.seed, f"{stage} validation", index
        )
        images, points = trainer._views(reader[index], 1024, generator)
        with torch.no_grad():
            maps = trainer.model.unet(images).numpy().astype(np.float64)
        vectors = []
        for one, where in zip(maps, points, strict=True):
            v = np.stack(
                [map_coordinates(c, where.numpy().T, order=1, mode="nearest") for c in one], axis=1
            )
            vectors.append(v / np.linalg.norm(v, axis=1, keepdims=True))
        for row, own in enumerate(vectors[0]):
            hits.append(int(np.argmax(vectors[1] @ own)) == row)
    assert len(hits) > 500
    assert figure == pytest.approx(np.mean(hits), abs=2 / len(hits))
    assert 0 < figure < 1


# Run as two processes: rank, folder for meeting and results.
RANKS = """
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from screener_nnu.losses import DenseInfoNCE, DenseVICReg
from screener_nnu.trainers.batch_statistics import synchronised
from screener_nnu.trainers.contrast import ContrastModel
from screener_nnu.trainers.processes import gather_rows, mean_over_all
from torch import nn
from torch.nn.parallel import DistributedDataParallel

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group(
    "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
)
given = torch.load(folder / "given.pth", weights_only=True)
LOSSES = {"vicreg": DenseVICReg, "infonce": DenseInfoNCE}
results = {}
for name in ("vicreg", "infonce"):
    own = [given[f"{view}_{rank}"].clone().requires_grad_() for view in ("first", "second")]
    loss, _ = LOSSES[name]()(*[gather_rows(rows) for rows in own])
    loss.backward()
    results[name] = [loss.detach(), *[rows.grad for rows in own]]

    torch.manual_seed(0)
    unet, head = nn.Conv3d(1, 3, 3, padding=1), nn.Linear(3, 8, bias=False)
    network = DistributedDataParallel(ContrastModel(unet, head))
    images = given["images"][[rank, 2 + rank]]
    points = [given["points"][i] for i in (rank, 2 + rank)]
    first, second = network(images, points).chunk(2)
    loss, _ = LOSSES[name]()(gather_rows(first), gather_rows(second))
    loss.backward()
    results[f"{name} model"] = [p.grad for p in network.parameters()]
layer = synchronised(nn.BatchNorm1d(6, momentum=0.3), on_gpus=False)
rows = given[f"second_{rank}"].clone().requires_grad_()
joint = layer(rows)
(joint**3).sum().backward()
results["normalised"] = [joint.detach(), rows.grad, layer.running_mean, layer.running_var]
values = given[f"first_{rank}"][:, 0].clone().requires_grad_()
mean_over_all(values.square()).backward()
results["mean"] = values.grad
torch.save(results, folder / f"rank_{rank}.tmp")
os.replace(folder / f"rank_{rank}.tmp", folder / f"rank_{rank}.pth")
# Leave together and without gloo's tear-down, which aborts now and then when the other is gone.
while not all((folder / f"rank_{r}.pth").is_file() for r in range(2)):
    time.sleep(0.05)
os._exit(0)
"""
ROWS = (7, 5)


@pytest.fixture(scope="module")
def ranks(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What two processes were given and what came out of each."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.manual_seed(3)
    given: dict[str, Any] = {
        f"{view}_{rank}": torch.randn(ROWS[rank], 6)
        for rank in range(2)
        for view in ("first", "second")
    }
    given["images"] = torch.randn(4, 1, 6, 7, 8)
    given["points"] = [torch.rand(9, 3) * torch.tensor([5.0, 6.0, 7.0]) for _ in range(4)]
    torch.save(given, folder / "given.pth")
    script = folder / "ranks.py"
    script.write_text(RANKS)
    processes = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(folder)], cwd=folder)
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    return given, [torch.load(folder / f"rank_{r}.pth", weights_only=True) for r in range(2)]


@pytest.mark.parametrize("name", list(LOSSES))
def test_loss_over_two_processes_is_that_of_the_joint_batch(
    ranks: tuple[dict[str, Any], list[dict[str, Any]]], name: str
) -> None:
    given, results = ranks
    own = [
        [given[f"{view}_{rank}"].clone().requires_grad_() for view in ("first", "second")]
        for rank in range(2)
    ]
    joint = [torch.cat([own[rank][view] for rank in range(2)]) for view in range(2)]
    loss, _ = LOSSES[name]()(*joint)
    loss.backward()
    for rank in range(2):
        found, *gradients = results[rank][name]
        torch.testing.assert_close(found, loss.detach())
        for gradient, rows in zip(gradients, own[rank], strict=True):
            # Every process adds its own copy of the loss; DDP's mean over processes undoes it.
            torch.testing.assert_close(gradient / 2, rows.grad)


def test_batch_statistics_are_those_of_all_rows(
    ranks: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    given, results = ranks
    layer = nn.BatchNorm1d(6, momentum=0.3)
    rows = torch.cat([given[f"second_{rank}"] for rank in range(2)]).requires_grad_()
    normalised = layer(rows)
    (normalised**3).sum().backward()
    assert rows.grad is not None
    for rank, own in enumerate((slice(0, ROWS[0]), slice(ROWS[0], None))):
        found, gradient, mean, variance = results[rank]["normalised"]
        torch.testing.assert_close(found, normalised.detach()[own])
        torch.testing.assert_close(gradient, rows.grad[own], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mean, layer.running_mean)
        torch.testing.assert_close(variance, layer.running_var)


def test_values_of_all_processes_count_alike(
    ranks: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    given, results = ranks
    for rank in range(2):
        expected = 2 * given[f"first_{rank}"][:, 0] / sum(ROWS)
        torch.testing.assert_close(results[rank]["mean"] / 2, expected)


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_of_a_distributed_model_are_those_of_one_process(
    ranks: tuple[dict[str, Any], list[dict[str, Any]]], name: str
) -> None:
    given, results = ranks
    torch.manual_seed(0)
    unet, head = nn.Conv3d(1, 3, 3, padding=1), nn.Linear(3, 8, bias=False)
    model = contrast.ContrastModel(unet, head)
    first, second = model(given["images"], given["points"]).chunk(2)
    loss, _ = LOSSES[name]()(first, second)
    loss.backward()
    for rank in range(2):
        for found, parameter in zip(
            results[rank][f"{name} model"], model.parameters(), strict=True
        ):
            torch.testing.assert_close(found, parameter.grad, rtol=1e-4, atol=1e-6)


def test_shares_that_do_not_fit_are_explained(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = world.trainer("descriptor", "descriptor.volumes_per_step=3")
    assert trainer.share_of_rank() == (0, 3)
    trainer.is_ddp, trainer.local_rank = True, 1
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    setting = "set descriptor's volumes_per_step"
    with pytest.raises(Exception, match=f"3 samples a step cannot be shared by 2 .* {setting}"):
        trainer.share_of_rank()
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    assert trainer.share_of_rank() == (1, 1)
