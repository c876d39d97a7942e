"""f-AnoGAN: its penalty and losses, who learns in which step, and what a score is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.baselines.base import build_method
from screener_nnu.baselines.residual import Generator, ImageToVector
from screener_nnu.losses.gradient_penalty import gradient_penalty
from tests.baselines.made_plans import PICTURE, VOLUME, method_plan

BOTH = pytest.mark.parametrize("kind", [VOLUME, PICTURE])


def made(kind: str = VOLUME, *options: str) -> Any:
    settings = [f"baseline.options.{option}" for option in ("latent=16", *options)]
    return build_method(method_plan(kind, "fanogan", settings))


def images_of(method: Any, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(1)
    images = torch.rand(count, 1, *method.size, generator=drawn) * 2 - 1
    return images, torch.rand(images.shape, generator=drawn) < 0.7


def free(method: Any, part: str) -> None:
    for name, parameters in method.parts(10).items():
        for parameter in parameters:
            parameter.requires_grad_(name == part)


@pytest.mark.parametrize("slope", [0.25, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic(slope: float) -> None:
    weights = torch.randn(2, 3, 4, 5)
    weights = (slope * weights / weights.norm()).requires_grad_(True)

    def critic(images: torch.Tensor) -> torch.Tensor:
        return (images * weights).flatten(1).sum(1, keepdim=True)

    real, fake = torch.rand(6, 2, 3, 4, 5), torch.rand(6, 2, 3, 4, 5)
    penalty = gradient_penalty(critic, real, fake, torch.rand(6))
    assert float(penalty.detach()) == pytest.approx((slope - 1) ** 2, abs=1e-6)
    (gradient,) = torch.autograd.grad(penalty, weights)
    # By the weights: 2 (|w| - 1) w / |w|.
    expected = 2 * (slope - 1) * weights.detach() / slope
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_the_penalty_is_taken_between_the_images_one_share_a_sample() -> None:
    real, fake = torch.rand(3, 1, 2, 2, 2), torch.rand(3, 1, 2, 2, 2)
    shares = torch.tensor([0.0, 0.25, 1.0])
    # The gradient of half the squared length is the point itself.
    half = gradient_penalty(lambda x: 0.5 * x.square().flatten(1).sum(1), real, fake, shares)
    part = shares.view(3, 1, 1, 1, 1).numpy()
    points = (1 - part) * real.numpy() + part * fake.numpy()
    lengths = np.sqrt((points.reshape(3, -1) ** 2).sum(1))
    assert half.item() == pytest.approx(((lengths - 1) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("size", [(40, 40, 40), (1, 50, 37), (7, 9, 30), (5, 5, 5)])
def test_any_size_is_met_exactly(size: tuple[int, int, int]) -> None:
    generator, critic = Generator(6, 2, size, 2), ImageToVector(3, 2, size, 2)
    with torch.no_grad():
        images = generator(torch.randn(2, 6))
        assert images.shape == (2, 2, *size) and images.abs().max() <= 1
        grid = critic.maps(images).shape[2:]
        assert all(3 < n < 7 or n == 1 for n in grid)
        assert tuple(grid) == generator.reshape.unflattened_size[1:]
        assert critic(images).shape == (2, 3)


def test_widths_are_those_of_the_paper_for_an_edge_of_64() -> None:
    generator, critic = Generator(8, 1, (1, 64, 64), 2), ImageToVector(1, 1, (1, 64, 64), 2)
    assert [b.second.out_channels for b in generator.blocks] == [16, 8, 4, 2]
    assert [b.second.out_channels for b in list(critic.blocks)[1:]] == [4, 8, 16, 16]
    assert not any("BatchNorm" in type(m).__name__ for m in [*generator.modules()])


@BOTH
def test_the_losses_are_those_of_numpy(kind: str) -> None:
    method = made(kind, "penalty=7", "kappa=0.5", "output=linear")
    images, bodies = images_of(method)
    draws = torch.Generator().manual_seed(5)
    z = torch.randn(3, 16, generator=draws)
    shares = torch.rand(3, generator=draws)
    with torch.no_grad():
        fake = method.generator(z)
        guesses = [method.critic(v).numpy() for v in (fake, images)]
    found = method(images, bodies, torch.Generator().manual_seed(5), 0, 10)
    assert found.keys() == {"minus_gap", "penalty"}
    gap = guesses[1].mean() - guesses[0].mean()
    assert found["minus_gap"].item() == pytest.approx(-gap, rel=1e-4, abs=1e-6)
    penalty = gradient_penalty(method.critic, images, fake, shares).item()
    assert found["penalty"].item() == pytest.approx(7 * penalty, rel=1e-4)

    assert method.part_of(5, 10) == "generator"
    found = method(images, bodies, torch.Generator().manual_seed(5), 5, 10)
    assert found.keys() == {"generator"}
    assert found["generator"].item() == pytest.approx(-guesses[0].mean(), rel=1e-4, abs=1e-6)

    found = method(images, bodies, torch.Generator(), 9, 10)
    with torch.no_grad():
        code = method.encoder(images)
        decoded = method.generator(code)
        features = [method.critic.maps(v).numpy() for v in (images, decoded)]
    inside = bodies.numpy()
    error = (images.numpy() - decoded.numpy())[inside]
    expected = {
        "izi": (error**2).mean(),
        "features": 0.5 * ((features[0] - features[1]) ** 2).mean(),
        "length": 1e-3 * (code.numpy() ** 2).sum(1).mean(),
    }
    assert {k: v.item() for k, v in found.items()} == pytest.approx(expected, rel=1e-4)


def test_an_encoder_with_tanh() -> None:
    method = made()
    images, bodies = images_of(method)
    with torch.no_grad():
        torch.testing.assert_close(method.encode(images), method.encoder(images).tanh())
        assert method(images, bodies, torch.Generator(), 9, 10).keys() == {"izi", "features"}


def test_turns() -> None:
    method = made(VOLUME, "critic_steps=3", "gan_share=0.6")
    turns = "".join(method.part_of(step, 20)[0] for step in range(20))
    assert turns == "cccgcccgcccg" + 8 * "e"


@BOTH
@pytest.mark.parametrize("step", [0, 5, 9])
def test_gradients_reach_the_part_of_the_step_alone(kind: str, step: int) -> None:
    method = made(kind).train()
    part = method.part_of(step, 10)
    free(method, part)
    losses = method(*images_of(method), torch.Generator().manual_seed(0), step, 10)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameters in method.parts(10).items():
        reached = [p.grad is not None and bool(p.grad.abs().max() > 0) for p in parameters]
        assert any(reached) == (name == part)


def test_training_mode_changes_nothing() -> None:
    method = made()
    images, _ = images_of(method)
    with torch.no_grad():
        assert torch.equal(method.train().score(images), method.eval().score(images))


@BOTH
def test_the_score_and_its_second_half(kind: str) -> None:
    method, other = made(kind).eval(), made(kind, "feature_weight=0.5").eval()
    other.load_state_dict(method.state_dict())
    images, _ = images_of(method)
    with torch.no_grad():
        decoded = method.reconstruct(images)
        plain, both = method.score(images), other.score(images)
        maps = (method.critic.maps(images) - method.critic.maps(decoded)).abs()
    torch.testing.assert_close(plain, (images - decoded).abs()[:, 0])
    added = (both - plain).double().numpy()
    coarse = 0.5 * maps.mean(1).double().numpy()
    assert added.shape == plain.shape and (added > 0).all()
    # Between nodes whose distances are alike nothing is lost but at the border.
    assert added.mean() == pytest.approx(coarse.mean(), rel=0.2)
    assert coarse.min() - 1e-5 <= added.min() and added.max() <= coarse.max() + 1e-5


@pytest.mark.parametrize("kind", [VOLUME, pytest.param(PICTURE, marks=pytest.mark.long)])
def test_a_batch_is_learned_by_the_encoder(kind: str) -> None:
    # Images that the generator can make: their vectors are to be found.
    method = made(kind, "kappa=0").train()
    with torch.no_grad():
        z = torch.randn(2, 16, generator=torch.Generator().manual_seed(3)).tanh()
        images = method.generator(z)
    bodies = torch.ones_like(images, dtype=torch.bool)
    free(method, "encoder")
    optimiser = torch.optim.AdamW(method.encoder.parameters(), lr=3e-3)
    values = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = method(images, bodies, torch.Generator(), 9, 10)["izi"]
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.1 * values[0]


def test_a_critic_learns_to_tell_what_is_made() -> None:
    method = made().train()
    images, bodies = images_of(method)
    free(method, "critic")
    optimiser = torch.optim.AdamW(method.critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    values = []
    for step in range(40):
        optimiser.zero_grad()
        losses = method(images, bodies, torch.Generator().manual_seed(step), 0, 10)
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        values.append({name: loss.item() for name, loss in losses.items()})
    # Images that lie r apart can differ by r and not by more, as far as the penalty holds.
    assert values[0]["minus_gap"] > -1 and values[-1]["minus_gap"] < -5
    assert values[-1]["penalty"] < values[0]["penalty"]
