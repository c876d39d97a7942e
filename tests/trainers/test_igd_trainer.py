"""The stage of interpolated Gaussian descriptors on tiny scans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.inference.igd import encoded_size
from screener_nnu.inference.models import load_image_encoder
from screener_nnu.losses.igd import reconstruction_loss
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.trainers.igd import polynomial_factor

CPU = torch.device("cpu")


def first_batch(trainer: Any) -> list[Any]:
    return next(trainer.training_batches(0))


def test_loss_is_the_sum_of_its_terms(world: Any) -> None:
    trainer = world.trainer("igd")
    trainer.place_centres()
    trainer.network.train()
    batch = first_batch(trainer)
    loss, terms = trainer.compute_loss(batch, 7)
    assert set(terms) == {f"{m} L_{t}" for m in ("global", "local") for t in ("rec", "gac", "adv")}
    assert loss.item() == pytest.approx(sum(float(t) for t in terms.values()), rel=1e-5)

    # The same by hand: the draws of a step are a function of it.
    generator = torch_generator(CPU, trainer.settings.seed, "igd device", 7, 0)
    images = trainer.images.of_models(batch, generator)
    assert images["global"].shape == (4, 1, *trainer.settings.crop_size)
    assert images["local"].shape == (4 * 4, 1, 8, 8, 8)
    shares = {k: 0.5 * torch.rand(len(v), generator=generator) for k, v in images.items()}
    for name, one in images.items():
        model, critic = trainer.model.named(name), trainer.critic.critics[name]
        with torch.no_grad():
            z, decoded, mixed = model(one, shares[name])
            error = reconstruction_loss(one, decoded, 0.15, trainer.similarities[name])
            assert float(terms[f"{name} L_rec"]) == pytest.approx(float(error.mean()), rel=1e-4)
            distance = ((z - model.centre) ** 2).sum(1) / model.spread
            expected = float((1 - torch.exp(-distance)).mean())
            assert float(terms[f"{name} L_gac"]) == pytest.approx(expected, rel=1e-3)
            expected = 0.1 * float((critic(mixed) ** 2).mean())
            assert float(terms[f"{name} L_adv"]) == pytest.approx(expected, rel=1e-3)


def test_a_step_moves_both_sides_each_by_its_own_optimiser(world: Any) -> None:
    trainer = world.trainer("igd")
    trainer.network.train()
    trainer.place_centres()
    states = [trainer.model.state_dict(), trainer.critic.critics.state_dict()]
    before = [{k: v.clone() for k, v in state.items()} for state in states]
    values = trainer.train_step(first_batch(trainer))
    assert {"global critic", "local critic", "loss"} <= set(values)
    for after, old in zip(states, before, strict=True):
        changed = {k for k, v in after.items() if not torch.equal(v, old[k])}
        assert changed and not any(".encoder." in name for name in changed)
        assert not any(name.endswith(("centre", "spread")) for name in changed)
    # What the auto-encoders learned left nothing in the critics.
    trainer.critic.optimiser.zero_grad()
    loss, _ = trainer.compute_loss(first_batch(trainer), 1)
    loss.backward()
    assert all(p.grad is None for p in trainer.critic.critics.parameters())
    assert all(p.requires_grad for p in trainer.critic.critics.parameters())


def test_without_a_critic(world: Any) -> None:
    trainer = world.trainer("igd", "igd.critic=false", "igd.models=local")
    trainer.network.train()
    values = trainer.train_step(first_batch(trainer))
    assert set(values) == {"loss", "local L_rec", "local L_gac"}


def test_centres_are_those_of_explicit_numpy(world: Any) -> None:
    trainer = world.trainer("igd", "igd.kappa=0.5")
    trainer.network.train()
    trainer.place_centres()
    assert trainer.model.training and all(m.decoder.training for m in trainer.model.values())
    assert not any(m.encoder.training for m in trainer.model.values())
    trainer.network.eval()
    latents = []
    names = trainer.settings.split.presumed_normal
    for images in trainer.images.some_of_models(names):
        with torch.no_grad():
            latents.append(trainer.model.named("global").encode(images["global"]).numpy())
    z = np.concatenate(latents).astype(np.float64)
    assert len(z) == 32
    mean = z.mean(0)
    centre = np.where(np.abs(mean) < 0.1, np.where(mean < 0, -0.1, 0.1), mean)
    model = trainer.model.named("global")
    np.testing.assert_allclose(model.centre.numpy(), centre, atol=1e-5)
    spread = 0.5 * ((z - centre) ** 2).sum(1).mean()
    assert float(model.spread) == pytest.approx(max(spread, 1e-3), rel=1e-3)


def test_centres_are_measured_anew_every_few_epochs(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = world.trainer("igd", "igd.optimiser.steps=10", "igd.reestimate_every=2")
    epochs = []
    place = trainer.place_centres

    def noted() -> None:
        epochs.append(trainer.current_epoch)
        place()

    monkeypatch.setattr(trainer, "place_centres", noted)
    monkeypatch.setattr(trainer, "validation_figure", lambda: 0.5)
    monkeypatch.setattr(trainer, "finish", lambda: None)
    monkeypatch.setattr(trainer, "calibrate", lambda: None)
    trainer.run_training()
    assert epochs == [0, 2, 4]  # the first before the first step


@pytest.mark.slow
def test_it_learns_to_reconstruct(world: Any) -> None:
    trainer = world.trainer("igd", "igd.optimiser.learning_rate=5e-3", "igd.optimiser.steps=60")
    trainer.network.train()
    trainer.place_centres()
    batches = trainer.training_batches(0)
    errors = []
    for _ in range(60):
        values = trainer.train_step(next(batches))
        errors.append(float(values["global L_rec"]))
    assert np.mean(errors[-5:]) < 0.85 * np.mean(errors[:5])


def test_it_learns_of_cases_that_are_taken_as_normal(world: Any) -> None:
    train = world.plan().settings.split.train
    trainer = world.trainer("igd", f'split.normal=["{train[0]}", "{train[1]}"]')
    seen = {trainer.images.reader(trainer.settings.split.presumed_normal, "igd").names}
    assert seen == {train[:2]}
    trainer = world.trainer("igd", f'split.normal=["{train[0]}"]')
    with pytest.raises(ScreenerError, match="1 normal case to train on.*needs 2 at least"):
        trainer.on_train_start()


def test_the_schedule() -> None:
    from screener_nnu.plans import OptimiserSettings

    settings = OptimiserSettings(steps=100, steps_per_epoch=10, warmup_steps=0)
    found = [polynomial_factor(settings, step, 0.9) for step in (0, 25, 99, 100)]
    assert found == pytest.approx([1, 0.75**0.9, 0.01**0.9, 0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["igd.patch=64"], r"a patch of \[64, 64, 64\] voxels is larger .* igd.models=global"),
        (["igd.image_size=[4, 4, 4]", "igd.models=global"], "no room for a window of 5"),
        (["igd.images_per_step=1"], "must be at least 2"),
        (["igd.start=pretext"], "screener_train 901 3d_fullres pretext"),
    ],
)
def test_settings_that_cannot_work(world: Any, settings: list[str], message: str) -> None:
    with pytest.raises(ScreenerError, match=message):
        world.trainer("igd", *settings)


def test_an_image_needs_another_one_to_be_mixed_with(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from screener_nnu.trainers.igd import IgdTrainer

    monkeypatch.setattr(IgdTrainer, "share_of_rank", lambda self: (0, 1))
    with pytest.raises(ScreenerError, match="1 image a step on a device has no other one"):
        world.trainer("igd")


@pytest.mark.slow
def test_the_encoder_is_that_of_the_pretext_stage(world: Any) -> None:
    world.train("pretext")
    trained, _ = load_image_encoder("901", "ScreenerPlans")
    started = world.trainer("igd", "igd.start=pretext")
    plain = world.trainer("igd")
    name = next(n for n, p in trained.named_parameters() if p.requires_grad and p.ndim > 1)
    for model in started.model.values():
        own = dict(model.encoder.named_parameters())[name]
        assert torch.equal(own, dict(trained.named_parameters())[name])
        assert not own.requires_grad
    first = dict(plain.model.named("global").encoder.named_parameters())[name]
    assert not torch.equal(first, dict(trained.named_parameters())[name])
    assert started.upstream_identity and not plain.upstream_identity

    other = ["igd.start=pretext", "pretext.weights=elsewhere.pth"]
    message = "trained another network.*pretext.weights=elsewhere.pth.*--from_plans"
    with pytest.raises(ScreenerError, match=message):
        world.trainer("igd", *other)


def test_images_are_enlarged_where_the_deepest_map_would_be_one_voxel(world: Any) -> None:
    plan = world.plan()
    divisor = plan.divisor
    found = encoded_size(plan, (8, 8, 8))
    assert all(n % d == 0 and n >= min(8, 2 * d) for n, d in zip(found, divisor, strict=True))
    assert all(n // d >= 2 for n, d in zip(found, divisor, strict=True) if d > 1)
    timm = plan.with_settings(plan.settings.override(["pretext.backbone=resnet18"]))
    assert encoded_size(timm, (8, 8, 8)) == (8, 8, 8)


def test_older_plans_have_the_defaults(world: Any) -> None:
    from screener_nnu.plans import IgdSettings, Plan

    values = world.plan().to_dict()
    del values["screener"]["igd"]
    assert Plan.from_dict(values).settings.igd == IgdSettings()


@pytest.mark.parametrize("keep", ["best", "last"])
def test_which_epoch_is_kept(world: Any, keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = world.trainer("igd", f"igd.keep={keep}", "igd.models=global")
    figures = iter([0.1, 0.9, 0.2, 0.3])
    monkeypatch.setattr(trainer, "validation_figure", lambda: next(figures))
    monkeypatch.setattr(trainer, "calibrate", lambda: None)
    trainer.run_training()
    folder = world.stage("igd")
    best, final = (
        torch.load(folder / f"checkpoint_{which}.pth", weights_only=True)["network_weights"]
        for which in ("best", "final")
    )
    same = all(torch.equal(value, final[name]) for name, value in best.items())
    assert same is (keep == "best")
