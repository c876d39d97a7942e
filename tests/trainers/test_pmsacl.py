"""Image-level pre-training: what learns, centres, every method by name, and bad settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.descriptors.image_encoder import UNetEncoder
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.starts import check_input, find_start
from screener_nnu.inference.models import load_image_encoder
from screener_nnu.networks.planes import take_depth
from screener_nnu.pretext_settings import METHODS, MethodSettings
from screener_nnu.sampling.neighbours import DIRECTIONS_3D, draw_neighbours
from screener_nnu.trainers.pretext_centres import Centres
from screener_nnu.trainers.pretext_model import PretextModel

CPU = torch.device("cpu")


def step(trainer: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and terms of the first batch."""
    trainer.prepare()
    trainer.network.train()
    loss, terms = trainer.compute_loss(next(trainer.training_batches(0)), 0)
    return loss, terms


def test_the_encoder_and_its_heads_learn_and_the_decoder_stays(world: Any) -> None:
    trainer = world.trainer("pretext")
    before = {k: v.clone() for k, v in trainer.model.encoder.network.state_dict().items()}
    loss, terms = step(trainer)
    distances = {f"distance_{label}" for label in range(4)}
    assert set(terms) == {"centre", "contrast", "classes", "pasted"} | distances
    total = terms["centre"] + terms["contrast"] + terms["classes"]
    assert torch.isclose(loss, total) and 0 < terms["pasted"] < 0.3
    loss.backward()
    for name, parameter in trainer.model.named_parameters():
        if "network.decoder." in name:
            assert parameter.grad is None
        # A bias before an instance norm moves nothing: its gradient is rounding.
        elif not (name.endswith("conv.bias") or name.endswith("all_modules.0.bias")):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    trainer.optimizer.step()
    after = trainer.model.encoder.network.state_dict()
    shared = {name for name in before if "decoder.encoder" in name}
    for name, value in after.items():
        moved = not torch.equal(value, before[name])
        if name.startswith("decoder.") and name not in shared:
            assert not moved, name
    assert any(not torch.equal(after[n], before[n]) for n in before if n.startswith("encoder."))


def test_loss_falls(world: Any) -> None:
    trainer = world.trainer("pretext", "pretext.optimiser.steps=100")
    trainer.prepare()
    trainer.network.train()
    batch, losses = next(trainer.training_batches(0)), []
    for _ in range(25):
        trainer.global_step = 0  # the same patches and views
        losses.append(float(trainer.train_step(batch)["loss"]))
    assert np.mean(losses[-3:]) < 0.75 * losses[0], losses


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step_and_has_a_figure(world: Any, method: str) -> None:
    trainer = world.trainer("pretext", f"pretext.method={method}")
    loss, terms = step(trainer)
    assert torch.isfinite(loss)
    resolved = METHODS[method]
    assert ("contrast" in terms) == (resolved.contrast != "none")
    assert ("classes" in terms) == (resolved.classify != "none")
    assert ("centre" in terms) == (resolved.centring != "none")
    loss.backward()
    for name, parameter in trainer.model.named_parameters():
        # Distributed training would wait for one that the loss does not see.
        assert (parameter.grad is not None) == parameter.requires_grad, name
    figure = trainer.validation_figure()
    assert 0 <= figure <= 1
    assert figure == trainer.validation_figure()  # fixed draws
    assert ("accuracy" in trainer.validation_terms) == (resolved.classify != "none")
    again = world.trainer("pretext", f"pretext.method={method}")
    assert torch.equal(step(again)[0], loss.detach())


def test_centres_are_means_of_the_first_network_and_stay(world: Any, tmp_path: Path) -> None:
    """Against a mean in NumPy, over training and resuming bit for bit."""
    trainer = world.trainer("pretext", "pretext.optimiser.steps=4")
    rows: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    add = trainer.centres.add

    def seen(values: torch.Tensor, classes: torch.Tensor) -> None:
        rows.append(values.detach().numpy().astype(np.float64))
        labels.append(classes.numpy())
        add(values, classes)

    trainer.centres.add = seen
    trainer.prepare()
    z, classes = np.concatenate(rows), np.concatenate(labels)
    expected = np.stack([z[classes == label].mean(axis=0) for label in range(4)])
    np.testing.assert_allclose(trainer.centres.values.numpy(), expected, rtol=1e-5, atol=1e-6)

    first = trainer.centres.values.clone()
    batches = trainer.training_batches(0)
    trainer.network.train()
    for _ in range(3):
        trainer.train_step(next(batches))
    assert torch.equal(trainer.centres.values, first)
    file = str(tmp_path / "checkpoint.pth")
    trainer.save_checkpoint(file)
    resumed = world.trainer("pretext", "pretext.optimiser.steps=4")
    resumed.load_checkpoint(file)
    assert torch.equal(resumed.centres.values, first)


class Constant(torch.nn.Module):
    """An encoder whose vector depends on nothing, with a norm of its own."""

    width = 3

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(images.new_tensor([1.0, 2.0, 3.0]).expand(len(images), 3)) + 5.0


def test_a_constant_network_is_its_own_centre_and_keeps_its_statistics() -> None:
    method = MethodSettings(classes=2, centring="initial", centred="features")
    model = PretextModel(Constant(), method, 0).eval()  # type: ignore[arg-type]
    centres = Centres(method, 3, 0, CPU)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with centres.measuring(model):
        assert model.training
        views = torch.rand(8, 1, 1, 4, 4)
        centres.add(model(views).features, torch.arange(8) % 2)
    assert not model.training
    assert torch.allclose(centres.values, torch.full((2, 3), 5.0), atol=1e-6)  # type: ignore[arg-type]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", ["random", "equidistant", "reestimated"])
def test_other_centres(world: Any, kind: str) -> None:
    settings = (f"pretext.options.centring={kind}", "pretext.options.reestimate_every=1")
    trainer = world.trainer("pretext", *settings)
    trainer.prepare()
    first = trainer.centres.values.clone()
    if kind != "reestimated":
        assert torch.allclose(first.norm(dim=1), torch.ones(4), atol=1e-5)
    distances = torch.cdist(first, first)[~torch.eye(4, dtype=torch.bool)]
    assert kind != "equidistant" or distances.std() < 1e-5
    batches = trainer.training_batches(0)
    trainer.on_train_epoch_start()
    trainer.train_step(next(batches))
    trainer.current_epoch, trainer.global_step = 1, 2  # two steps are an epoch
    trainer.logger.log("epoch_start_timestamps", 0.0, 1)
    trainer.on_train_epoch_start()
    assert torch.equal(trainer.centres.values, first) == (kind != "reestimated")


def test_the_local_model_tells_how_patches_lie(world: Any) -> None:
    settings = ("pretext.patch=8", "pretext.options.position=true")
    trainer = world.trainer("pretext", *settings)
    batch = next(trainer.training_batches(0))
    assert all(tuple(s.image.shape) == (8, 8, 8) == tuple(s.neighbour.shape) for s in batch)
    assert all(0 <= s.direction < len(DIRECTIONS_3D) for s in batch)
    loss, terms = step(trainer)
    assert "position" in terms
    loss.backward()
    head = trainer.model.position
    assert all(p.grad.abs().max() > 0 for p in head.parameters())


def test_a_local_model_alone_reads_single_patches(world: Any) -> None:
    trainer = world.trainer("pretext", "pretext.patch=8")
    sample = next(trainer.training_batches(0))[0]
    assert not len(sample.neighbour) and sample.direction == -1
    assert "position" not in step(trainer)[1]


def test_places_of_patches_are_learned() -> None:
    """Of patches of a ramp, whose differences tell where they lie."""
    torch.manual_seed(0)
    encoder = UNetEncoder(_ramp_network(), levels=True)
    model = PretextModel(encoder, MethodSettings(position=True, centring="initial"), 8)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96] / 96
    ramp = torch.from_numpy(np.stack([rows, columns, rows * 0 + 0.5])[:, None]).float()
    hits: list[torch.Tensor] = []
    for _ in range(150):
        drawn = [draw_neighbours(rng, (1, 96, 96), (1, 16, 16)) for _ in range(32)]
        first, second = (
            torch.stack([ramp[:, :, y : y + 16, x : x + 16] for _, y, x in places])
            for places in ([d.first for d in drawn], [d.second for d in drawn])
        )
        labels = torch.tensor([d.direction for d in drawn])
        found = model(first[:1], (first, second)).directions
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(found, labels).backward()
        optimiser.step()
        hits.append((found.argmax(1) == labels).float().mean())
    assert torch.stack(hits[-20:]).mean() > 0.9


def _ramp_network() -> torch.nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    network = PlainConvUNet(
        3, 2, [8, 16], torch.nn.Conv2d, 3, [[1, 1], [2, 2]], 1, 2, 1, True,
        norm_op=None, nonlin=torch.nn.ReLU,
    )  # fmt: skip
    return take_depth(network)


def test_patches_that_a_crop_cuts_away_change_the_class(world: Any) -> None:
    relabels = ("pretext.relabel_after_crop=true", "pretext.views.crop_edge=[0.3, 0.4]")
    trainer = world.trainer("pretext", *relabels)
    images = trainer.images(next(trainer.training_batches(0)))
    _, classes, drawn = trainer.views.draw(images, torch.Generator().manual_seed(0))
    assert (classes <= drawn.labels).all() and (classes < drawn.labels).any()


def test_panda_draws_features_together_and_holds_weights(world: Any) -> None:
    trainer = world.trainer("pretext", "pretext.method=panda")
    _, terms = step(trainer)
    assert set(terms) == {"centre", "elastic", "distance_0"} and terms["elastic"] == 0
    with torch.no_grad():
        for parameter in trainer._elastic_parameters():
            parameter.add_(0.5)
    count = sum(p.numel() for p in trainer._elastic_parameters())
    assert torch.isclose(trainer._moved(), torch.tensor(0.25 * count), rtol=1e-3)


@pytest.mark.parametrize(
    "settings, message",
    [
        (("pretext.method=byol",), "no pretext.method 'byol'; known: pmsacl"),
        (("pretext.options.alfa=2",), "alfa"),
        (("pretext.options.position=true",), "set pretext.patch"),
        (("pretext.images_per_step=1",), "images_per_step"),
        (("pretext.patch=9",), "pretext.patch .* must be a multiple of"),
        (("pretext.crop_size=[12, 12, 10]",), "pretext.crop_size .* must be a multiple of"),
        (("pretext.method=rotnet", "pretext.options.classes=5"), "at most 4 classes"),
        (("pretext.options.shift=mixup",), "no shift 'mixup'"),
        (("pretext.backbone=resnet18",), "network of pictures"),
        (("pretext.weights=package",), "network of pictures"),
    ],
)
def test_settings_that_cannot_be(world: Any, settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(ScreenerError, match=message):
        world.trainer("pretext", *settings)


def test_one_image_has_no_others_to_paste_from(world: Any) -> None:
    first = world.plan().settings.split.train[0]
    with pytest.raises(ScreenerError, match=f"one image to train on .{first}."):
        world.trainer("pretext", f'split.normal=["{first}"]')


def test_normal_cases_alone_are_learned_from(world: Any) -> None:
    names = world.plan().settings.split.train[:2]
    chosen = ", ".join(f'"{name}"' for name in names)
    trainer = world.trainer("pretext", f"split.normal=[{chosen}]")
    reader = trainer.reader(trainer.settings.split.presumed_normal, "pretext")
    assert reader.names == names


def test_a_trained_encoder_is_a_start_and_a_descriptor(world: Any) -> None:
    world.train("pretext")
    encoder, plan = load_image_encoder("901", "ScreenerPlans")
    assert encoder.width == 2 * sum(plan.architecture["arch_kwargs"]["features_per_stage"])
    start = find_start("pretext", "901", "ScreenerPlans", plan)
    checkpoint = torch.load(start.weights, weights_only=True)
    notes = check_input(start, checkpoint, plan)
    assert any("encoder was trained; its decoder" in note for note in notes)
    # The whole UNet lies in it, so that stock nnU-Net's loader finds every block.
    assert any(name.startswith("decoder.stages") for name in checkpoint["network_weights"])
    world.train("padim_pretext")
