"""Noise, schedule and boxes of patched diffusion, and what its loss and score count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.baselines.base import build_method
from screener_nnu.baselines.diffusion import LEVELS, cosine_schedule, halves
from screener_nnu.sampling.noise import coarse_noise, octave_noise
from tests.baselines.made_images import share_left, smooth
from tests.baselines.made_plans import PICTURE, VOLUME, method_plan

BOTH = pytest.mark.parametrize("kind", [VOLUME, PICTURE])


class Answering(torch.nn.Module):
    """A network that gives what a function makes of its input, and keeps what it was given."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer, self.seen = answer, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        result: torch.Tensor = self.answer(images)
        return result


def made(kind: str = VOLUME, *options: str) -> Any:
    settings = [f"baseline.options.{option}" for option in options]
    return build_method(method_plan(kind, "diffusion", settings))


def images_of(method: Any, count: int = 3) -> torch.Tensor:
    drawn = torch.rand(count, 1, *method.size, generator=torch.Generator().manual_seed(1))
    return drawn * 2 - 1


def test_the_schedule_is_that_of_nichol_and_dhariwal() -> None:
    found = cosine_schedule().double().numpy()
    f = np.cos((np.arange(LEVELS + 1) / LEVELS + 0.008) / 1.008 * np.pi / 2) ** 2
    # But for the last level, whose share of noise is cut, the product of shares telescopes.
    np.testing.assert_allclose(found[:-1], (f / f[0])[1:-1], rtol=1e-4)
    assert found[0] == pytest.approx(1, abs=1e-4)
    assert found[-1] == pytest.approx(0.001 * found[-2], rel=1e-3) and found[-1] < 1e-8
    assert (np.diff(found) < 0).all()


def test_mean_and_variance_of_noised_images() -> None:
    method = made(VOLUME, "noise=white")
    image = torch.tensor([-1.0, 0.2, 0.9]).view(1, 1, 1, 1, 3)
    level, draws = 400, 2000
    noise = torch.randn(draws, 1, 1, 1, 3, generator=torch.Generator().manual_seed(0))
    found = method.noised(image.expand(draws, -1, -1, -1, -1), torch.full((draws,), level), noise)
    kept = np.cos((401 / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    kept /= np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    error = 4 * np.sqrt((1 - kept) / draws)
    np.testing.assert_allclose(found.mean(0), np.sqrt(kept) * image[0], atol=error)
    np.testing.assert_allclose(found.var(0), np.full((1, 1, 1, 3), 1 - kept), rtol=0.15)


@pytest.mark.parametrize("size", [(16, 16, 16), (1, 48, 64), (5, 7, 9)])
def test_boxes_cover_every_voxel_once(size: tuple[int, int, int]) -> None:
    boxes = halves(size)
    assert boxes.shape == (8 if size[0] > 1 else 4, 1, *size)
    assert (boxes.sum(0) == 1).all()
    d, h, w = ((n + 1) // 2 for n in size)
    assert int(boxes[0].sum()) == (size[0] // 2 or 1) * (size[1] // 2) * (size[2] // 2)
    assert int(boxes[-1].sum()) == d * h * w


@BOTH
def test_outside_the_box_the_input_is_the_clean_image(kind: str) -> None:
    method = made(kind)
    images = images_of(method)
    method.network = Answering(lambda given: given[:, :1])
    method(images, torch.ones_like(images) > 0, torch.Generator().manual_seed(3), 0, 1)
    (given,) = method.network.seen
    assert given.shape[1] == 3
    inside = given[:, 1:2] == 1
    assert ((given[:, 1:2] == 0) | inside).all()
    assert torch.equal(given[:, :1][~inside], images[~inside])
    assert (given[:, :1][inside] != images[inside]).float().mean() > 0.99
    assert (given[:, 2:][~inside] == 0).all()
    for one, box in zip(given, inside, strict=True):
        levels = one[2:][box].unique()
        assert len(levels) == 1 and 0 <= float(levels) < 1
        assert any(torch.equal(box, known) for known in method.boxes)


def test_every_box_and_all_levels_are_drawn() -> None:
    method = made()
    method.network = Answering(lambda given: given[:, :1])
    images = images_of(method, 200)
    method(images, torch.ones_like(images) > 0, torch.Generator().manual_seed(0), 0, 1)
    given = method.network.seen[0]
    firsts = {tuple(torch.nonzero(box)[0].tolist()) for box in given[:, 1]}
    assert len(firsts) == 8
    levels = given[:, 2].amax((1, 2, 3)).numpy()
    assert levels.min() < 0.05 and levels.max() > 0.95
    assert levels.mean() == pytest.approx(0.5, abs=0.08)


def test_the_first_level_hardly_changes_an_image() -> None:
    method = made()
    images = images_of(method)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    levels = torch.zeros(len(images), dtype=torch.long)
    boxes = method.boxes[0].expand(images.shape)
    given = method.given(images, boxes, levels, noise)[:, :1]
    # Two hundredths of the window, whose length is 2.
    assert float((given - images)[boxes].std()) < 0.02 * 2
    assert float((given - images)[boxes].abs().max()) > 0


@BOTH
def test_the_loss_counts_box_and_body_alone(kind: str) -> None:
    method = made(kind)
    images = images_of(method)
    bodies = torch.rand(images.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    wrong = torch.rand(images.shape, generator=torch.Generator().manual_seed(4))

    def outside(given: torch.Tensor) -> torch.Tensor:
        return torch.where((given[:, 1:2] == 1) & bodies, images, wrong)

    method.network = Answering(outside)
    assert float(method(images, bodies, torch.Generator().manual_seed(0), 0, 1)["l1"]) == 0
    method.network = Answering(lambda given: wrong)
    found = float(method(images, bodies, torch.Generator().manual_seed(0), 0, 1)["l1"])
    counted = (method.network.seen[0][:, 1:2].numpy() == 1) & bodies.numpy()
    expected = np.abs(wrong.numpy() - images.numpy())[counted].mean()
    assert found == pytest.approx(expected, rel=1e-5)


@BOTH
@pytest.mark.parametrize("draws", [1, 2])
def test_a_score_puts_the_boxes_together(kind: str, draws: int) -> None:
    method = made(kind, f"draws={draws}").eval()
    images = images_of(method, 2)
    # The noised box itself: its noise is known.
    method.network = Answering(lambda given: given[:, :1])
    found = method.score(images).numpy()
    boxes = 8 if kind == VOLUME else 4
    assert len(method.network.seen) == boxes * draws
    assert all(float(g[:, 2].max()) == pytest.approx(0.499) for g in method.network.seen)
    kept = np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) ** 2
    kept /= np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    noise = method.fields.numpy().mean(0)
    expected = np.abs((1 - np.sqrt(kept)) * images.numpy() - np.sqrt(1 - kept) * noise)
    np.testing.assert_allclose(found, expected[:, 0], atol=1e-4)
    assert method.fields.shape == (draws, 1, *method.size)
    assert "fields" not in method.state_dict()


@pytest.mark.parametrize("shape", [(150, 1, 40, 40, 40), (300, 1, 1, 48, 64)])
def test_octaves_have_unit_variance_and_a_falling_spectrum(shape: tuple[int, ...]) -> None:
    field = octave_noise(shape, torch.Generator().manual_seed(0)).double().numpy()[:, 0]
    assert field.mean() == pytest.approx(0, abs=0.1)
    assert field.var() == pytest.approx(1, abs=0.1)
    # At every voxel by itself, on a node of a lattice or between two.
    per_voxel = field.var(0)
    spread = 6 * np.sqrt(2 / shape[0])
    assert abs(per_voxel - 1).max() < spread
    power = (np.abs(np.fft.rfft(field, axis=-1)) ** 2).mean((0, 1, 2))
    bands = [power[1:3].mean(), power[3:6].mean(), power[6:11].mean(), power[11:].mean()]
    assert all(low > 1.5 * high for low, high in zip(bands, bands[1:], strict=False))


def test_fields_differ_between_samples_and_are_a_function_of_the_generator() -> None:
    shape = (2, 2, 8, 8, 8)
    for draw in (octave_noise, lambda s, g: coarse_noise(s, 4, g)):
        first, second = (draw(shape, torch.Generator().manual_seed(7)) for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.allclose(first[0], first[1])
        assert not torch.allclose(first[:, 0], first[:, 1])


@pytest.mark.parametrize("kind", [pytest.param(VOLUME, marks=pytest.mark.long), PICTURE])
def test_a_batch_is_learned(kind: str) -> None:
    method = made(kind).train()
    assert share_left(method, smooth(method)) < 0.1
