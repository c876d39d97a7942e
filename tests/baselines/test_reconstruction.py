"""Losses and scores of what reconstructs, against NumPy and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from screener_nnu.baselines.base import build_method
from screener_nnu.baselines.bottleneck import BottleneckNetwork
from screener_nnu.baselines.reconstruction import ReconstructionMethod, median_in_window
from tests.baselines.made_images import half_a_body, share_left, smooth, weighted
from tests.baselines.made_plans import PICTURE, VOLUME, method_plan

BOTH = pytest.mark.parametrize("kind", [VOLUME, PICTURE])
KINDS = pytest.mark.parametrize("latent_kind", ["spatial", "dense"])
RECONSTRUCTING = ("autoencoder", "vae", "denoising")


class Fixed(torch.nn.Module):
    """A network that gives one result for any input, and keeps what it was given."""

    def __init__(self, result: torch.Tensor) -> None:
        super().__init__()
        self.result, self.seen = result, torch.zeros(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return self.result


@KINDS
@pytest.mark.parametrize("outputs", [1, 2])
def test_shapes_of_the_bottleneck(latent_kind: str, outputs: int) -> None:
    vector = 11 if latent_kind == "dense" else 0
    plan = method_plan(VOLUME, "autoencoder")
    network = BottleneckNetwork(plan, (40, 40, 40), 3, vector=vector, outputs=outputs)
    with torch.no_grad():
        latent = network.encoder(torch.zeros(2, 1, 40, 40, 40))
        expected = (2, 11 * outputs) if vector else (2, 3 * outputs, 5, 5, 5)
        assert latent.shape == expected
        decoded = network.decode(latent.chunk(outputs, 1)[0])
    assert decoded.shape == (2, 1, 40, 40, 40)


@pytest.mark.parametrize("name", ["autoencoder", "vae"])
@KINDS
@BOTH
def test_nothing_passes_the_bottleneck_by(name: str, latent_kind: str, kind: str) -> None:
    settings = [f"baseline.options.latent_kind={latent_kind}", "baseline.options.vector=9"]
    method: Any = build_method(method_plan(kind, name, settings)).eval()
    method.network.encoder.register_forward_hook(lambda *given: torch.zeros_like(given[2]))
    with torch.no_grad():
        first, second = (method.reconstruct(torch.rand(1, 1, *method.size)) for _ in range(2))
    assert torch.equal(first, second)


@KINDS
def test_the_divergence_is_that_of_numpy(latent_kind: str) -> None:
    own = (f"latent_kind={latent_kind}", "vector=7", "kl=0.5")
    settings = [f"baseline.options.{option}" for option in own]
    method: Any = build_method(method_plan(VOLUME, "vae", settings))
    images = smooth(method)
    bodies = half_a_body(images)
    with torch.no_grad():
        found = method(images, bodies, torch.Generator().manual_seed(4), 0, 1)
        mean, log = (t.numpy() for t in method.network.encoder(images).chunk(2, 1))
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(4)).numpy()
        drawn = torch.from_numpy(mean + np.exp(log / 2) * noise)
        decoded = method.network.decode(drawn).numpy()
    weights = np.where(bodies.numpy(), 1.0, 0.1)
    divergence = 0.5 * (mean**2 + np.exp(log) - log - 1).sum() / weights.sum()
    assert float(found["kl"]) == pytest.approx(0.5 * divergence, rel=1e-4)
    expected = weighted(np.abs(images.numpy() - decoded), weights)
    assert float(found["l1"]) == pytest.approx(expected, rel=1e-4)


def test_a_variational_one_scores_by_the_mean() -> None:
    method: Any = build_method(method_plan(VOLUME, "vae")).eval()
    images = smooth(method)
    with torch.no_grad():
        mean, _ = method.network.encoder(images).chunk(2, 1)
        expected = (method.network.decode(mean) - images).abs()[:, 0]
        torch.testing.assert_close(method.score(images), expected)


@BOTH
def test_what_the_denoiser_sees_and_its_loss(kind: str) -> None:
    settings = ["baseline.options.sigma=0.3", "baseline.options.nodes=4"]
    method: Any = build_method(method_plan(kind, "denoising", settings))
    images = smooth(method)
    bodies = half_a_body(images)
    result = torch.rand_like(images)
    method.network = Fixed(result)
    found = method(images, bodies, torch.Generator().manual_seed(2), 0, 1)
    grid = [min(4, n) for n in method.size]
    noise = torch.randn([2, 1, *grid], generator=torch.Generator().manual_seed(2)).numpy()
    added = (method.network.seen - images).numpy()
    inside = bodies.numpy()
    assert (added[~inside] == 0).all()
    # Voxel i of n lies at (i + 1/2) nodes / n - 1/2, and beyond the outer nodes is their value.
    places = np.stack(
        np.meshgrid(
            *((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(method.size, grid, strict=True)),
            indexing="ij",
        )
    )
    fine = np.stack(
        [ndimage.map_coordinates(one[0], places, order=1, mode="nearest")[None] for one in noise]
    )
    np.testing.assert_allclose(added[inside], 0.6 * fine[inside], atol=1e-5)
    expected = np.abs(result.numpy() - images.numpy())[inside].mean()
    assert float(found["l1"]) == pytest.approx(expected, rel=1e-5)
    method.network = Fixed(result)
    assert torch.equal(method.score(images), (result - images).abs()[:, 0])
    assert torch.equal(method.network.seen, images)


def test_the_median_counts_what_is_above_the_lower_end() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 1, 3, 4, 5)).astype(np.float32)
    images = rng.choice([-1.0, 0.3], size=values.shape).astype(np.float32)
    images[1] = -1
    found = median_in_window(torch.from_numpy(values), torch.from_numpy(images))
    chosen = np.sort(values[0][images[0] > -1])
    assert float(found[0]) == chosen[(len(chosen) - 1) // 2]
    assert found.shape == (2, 1, 1, 1, 1) and float(found[1]) == 0


def test_a_common_difference_is_no_score_without_bias() -> None:
    class Shifted(ReconstructionMethod):
        def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
            return images - 0.2

        def forward(self, *given: Any) -> dict[str, torch.Tensor]:
            raise AssertionError

    method = Shifted(method_plan(VOLUME, "autoencoder"), (4, 4, 4))
    images = torch.rand(2, 1, 4, 4, 4)
    torch.testing.assert_close(method.score(images), torch.full((2, 4, 4, 4), 0.2))
    method.debias = True
    torch.testing.assert_close(method.score(images), torch.zeros(2, 4, 4, 4))


CASES = [
    *((name, VOLUME, ()) for name in RECONSTRUCTING),
    *(pytest.param(name, PICTURE, (), marks=pytest.mark.long) for name in RECONSTRUCTING),
    ("autoencoder", VOLUME, ("latent_kind=dense", "vector=32")),
    ("autoencoder", VOLUME, ("loss=ssim", "window=3")),
    ("autoencoder", PICTURE, ("loss=msssim", "window=3")),
    ("vae", VOLUME, ("latent_kind=dense", "vector=32")),
]


@pytest.mark.parametrize(("name", "kind", "options"), CASES)
def test_a_batch_is_learned(name: str, kind: str, options: tuple[str, ...]) -> None:
    plan = method_plan(kind, name, [f"baseline.options.{option}" for option in options])
    method: Any = build_method(plan).train()
    assert share_left(method, smooth(method)) < 0.1
