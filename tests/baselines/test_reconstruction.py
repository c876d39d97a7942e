"""Losses and scores of what reconstructs, against NumPy, SciPy and scikit-image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from screener_nnu.baselines.base import build_method
from screener_nnu.baselines.bottleneck import BottleneckNetwork
from screener_nnu.baselines.reconstruction import ReconstructionMethod, median_in_window
from screener_nnu.errors import ScreenerError
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


def smooth(method: Any, count: int = 2) -> torch.Tensor:
    """Smooth images in [-1, 1] of the method's size."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, *(max(1, n // 8) for n in method.size), generator=generator)
    return torch.nn.functional.interpolate(coarse, method.size, mode="trilinear") * 2 - 1


def half_a_body(images: torch.Tensor) -> torch.Tensor:
    return torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) < 0.5


def weighted(values: np.ndarray, weights: np.ndarray) -> float:
    return float((values * weights).sum() / weights.sum())


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


@BOTH
@pytest.mark.parametrize("window", [3, 5])
def test_structural_similarity_is_that_of_scikit_image(kind: str, window: int) -> None:
    options = ("loss=ssim", f"window={window}", "outside=0.25", "rho=0.3")
    settings = [f"baseline.options.{option}" for option in options]
    method: Any = build_method(method_plan(kind, "autoencoder", settings))
    images = smooth(method)
    decoded = (images + 0.1 * torch.randn_like(images)).clamp(-1, 1)
    bodies = half_a_body(images)
    found = method.differences(images, decoded, bodies)
    x, y = ((t.numpy().astype(np.float64) + 1) / 2 for t in (images, decoded))
    sigma = 1.5 * window / 11
    unlike = []
    for a, b in zip(x, y, strict=True):
        _, similar = structural_similarity(
            a.squeeze(),
            b.squeeze(),
            data_range=1,
            gaussian_weights=True,
            sigma=sigma,
            truncate=(window // 2 + 0.01) / sigma,
            use_sample_covariance=False,
            full=True,
            win_size=window,
        )
        unlike.append(1 - similar.reshape(a.shape))
    weights = np.where(bodies.numpy(), 1.0, 0.25)
    # At the border scikit-image mirrors and we repeat what lies there.
    half = window // 2
    inner = tuple(slice(half, -half) if n > 1 else slice(None) for n in method.size)
    alone = torch.zeros_like(bodies)
    alone[(..., *inner)] = True
    counted = method.differences(images, decoded, alone)["ssim"]
    expected = np.where(alone.numpy(), 1.0, 0.25)
    assert float(counted) == pytest.approx(0.7 * weighted(np.stack(unlike), expected), rel=2e-2)
    assert float(found["l1"]) == pytest.approx(0.3 * weighted(np.abs(x - y), weights), rel=1e-5)


def test_structural_similarity_at_several_scales_is_a_mean_of_maps() -> None:
    settings = ["baseline.options.loss=msssim", "baseline.options.window=3"]
    method: Any = build_method(method_plan(VOLUME, "autoencoder", settings))
    images = smooth(method, 1)
    decoded = (images + 0.1 * torch.randn_like(images)).clamp(-1, 1)
    bodies = half_a_body(images)
    x, y = ((t.numpy().astype(np.float64)[0, 0] + 1) / 2 for t in (images, decoded))
    weights = np.array([0.0516, 0.3295, 0.3463])
    assert method.scales == pytest.approx(weights / weights.sum())
    total = np.zeros(x.shape)
    for scale, weight in enumerate(method.scales):
        blurred = {}
        for name, value in {"x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y}.items():
            sigma = 1.5 * 3 / 11
            blurred[name] = ndimage.gaussian_filter(value, sigma, mode="nearest", radius=1)
        variances = blurred["xx"] - blurred["x"] ** 2 + blurred["yy"] - blurred["y"] ** 2
        shared = blurred["xy"] - blurred["x"] * blurred["y"]
        similar = (2 * shared + 0.03**2) / (variances + 0.03**2)
        means = blurred["x"] ** 2 + blurred["y"] ** 2 + 0.01**2
        similar = similar * (2 * blurred["x"] * blurred["y"] + 0.01**2) / means
        fine = torch.from_numpy(similar)[None, None]
        total += weight * torch.nn.functional.interpolate(
            fine, method.size, mode="trilinear"
        ).numpy().reshape(total.shape)
        x, y = (v.reshape([n for m in v.shape for n in (m // 2, 2)]) for v in (x, y))
        x, y = x.mean((1, 3, 5)), y.mean((1, 3, 5))
        assert scale < 3
    found = method.differences(images, decoded, bodies)
    expected = 0.85 * weighted(1 - total, np.where(bodies.numpy()[0, 0], 1.0, 0.1))
    assert float(found["msssim"]) == pytest.approx(expected, rel=1e-4)
    same = method.differences(images, images, bodies)
    assert float(same["msssim"]) == pytest.approx(0, abs=1e-6)


def test_a_window_that_does_not_fit_is_refused() -> None:
    settings = ["baseline.options.loss=ssim", "baseline.options.window=17"]
    with pytest.raises(ScreenerError, match=r"baseline\.options\.window is too large"):
        build_method(method_plan(VOLUME, "autoencoder", settings))


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
    *((name, kind, ()) for name in RECONSTRUCTING for kind in (VOLUME, PICTURE)),
    ("autoencoder", VOLUME, ("latent_kind=dense", "vector=32")),
    ("autoencoder", VOLUME, ("loss=ssim", "window=3")),
    ("autoencoder", PICTURE, ("loss=msssim", "window=3")),
    ("vae", VOLUME, ("latent_kind=dense", "vector=32")),
]


@pytest.mark.parametrize(("name", "kind", "options"), CASES)
def test_a_batch_is_learned(name: str, kind: str, options: tuple[str, ...]) -> None:
    plan = method_plan(kind, name, [f"baseline.options.{option}" for option in options])
    method: Any = build_method(plan).train()
    images = smooth(method)
    bodies = torch.ones_like(images, dtype=torch.bool)
    steps = 250
    optimiser = torch.optim.AdamW(method.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    values = []
    for step in range(steps):
        optimiser.zero_grad()
        losses = method(images, bodies, torch.Generator().manual_seed(5), step, steps)
        losses.pop("kl", None)
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        optimiser.step()
        schedule.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.1 * values[0]
