"""Auto-encoder, decoder and critic of any image size, and the Gaussian in latent space."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from screener_nnu.networks.igd import AutoEncoders, Critics, GaussianAutoEncoder
from screener_nnu.networks.image_decoder import Critic, Decoder, doublings

SIZES = [(1, 128, 128), (1, 96, 128), (1, 64, 64), (40, 40, 40), (1, 32, 32), (10, 21, 13)]


class MeanEncoder(nn.Module):
    """Grey value and its square, averaged over quarters of an image, and normalised by batches."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        both = torch.cat([images, images**2], 1).mean((1, 2), keepdim=True)
        pooled = nn.functional.adaptive_avg_pool3d(both, (1, 2, 4)).flatten(1)
        return self.norm(pooled)


def model(size: tuple[int, int, int] = (1, 32, 32), freeze: bool = True) -> GaussianAutoEncoder:
    torch.manual_seed(0)
    return GaussianAutoEncoder(MeanEncoder(), 1, size, latent=6, width=32, freeze=freeze)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_decoder_and_critic_of_any_size(size: tuple[int, int, int], channels: int) -> None:
    decoder, critic = Decoder(5, channels, size, width=16), Critic(channels, size)
    z = torch.randn(2, 5, requires_grad=True)
    made = decoder(z)
    assert made.shape == (2, channels, *size)
    guesses = critic(made)
    assert guesses.shape == (2,)
    guesses.sum().backward()
    for parameter in (*decoder.parameters(), *critic.parameters()):
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
    assert float(z.grad.abs().min()) > 0


def test_decoders_grow_as_published() -> None:
    for size, blocks in (((1, 256, 256), 6), ((1, 32, 32), 3)):
        decoder = Decoder(128, 1, size)
        assert decoder.first == (1, 4, 4) and len(decoder.blocks) == blocks
        assert decoder.linear.out_features == 4 * 4 * 512
        widths = [block.skip.out_channels for block in decoder.blocks]
        assert widths == [max(16, 256 // 2**i) for i in range(blocks)]
    assert doublings((16, 40, 7)) == (2, 3, 0)


def test_a_critic_judges_an_image_alone() -> None:
    critic = Critic(1, (1, 64, 64))
    images = torch.rand(4, 1, 1, 64, 64)
    alone = torch.cat([critic(image[None]) for image in images])
    torch.testing.assert_close(critic(images), alone, atol=1e-6, rtol=1e-5)


def test_normality_falls_with_the_distance_to_the_centre() -> None:
    autoencoder = model()
    autoencoder.place(torch.randn(50, 6))
    direction = torch.nn.functional.normalize(torch.randn(6), dim=0)
    steps = torch.linspace(0, 20, 21)[:, None]
    found = autoencoder.normality(autoencoder.centre + steps * direction)
    assert float(found[0]) == 1 and float(found.min()) > 0
    assert (found[1:] < found[:-1]).all()  # so that 1 - g, the score, rises
    distance = (steps[:, 0] ** 2).numpy()
    expected = np.exp(-distance / float(autoencoder.spread))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("kappa", [1.0, 0.5])
def test_place_is_the_mean_pushed_off_zero_and_the_mean_distance_from_it(kappa: float) -> None:
    autoencoder = model()
    z = np.random.default_rng(0).normal([0.5, 0.04, -0.05, -2, 0, 0.099], 0.3, (40, 6))
    z[:, 4] -= z[:, 4].mean() + 1e-3  # just below 0
    autoencoder.place(torch.from_numpy(z).float(), kappa)
    mean = z.mean(0)
    centre = [m if abs(m) >= 0.1 else (-0.1 if m < 0 else 0.1) for m in mean]
    np.testing.assert_allclose(autoencoder.centre.numpy(), centre, atol=1e-6)
    assert {abs(c) == 0.1 for c in centre} == {True, False}
    spread = kappa * np.mean([((row - np.array(centre)) ** 2).sum() for row in z])
    assert float(autoencoder.spread) == pytest.approx(spread, rel=1e-5)
    autoencoder.place(torch.full((3, 6), 0.7))
    assert float(autoencoder.spread) == pytest.approx(1e-3)


def test_a_batch_of_one_and_images_alone() -> None:
    autoencoder = model().eval()
    images = torch.rand(5, 1, 1, 32, 32)
    with torch.no_grad():
        together = autoencoder(images)
        for i in range(5):
            alone = autoencoder(images[i : i + 1])
            torch.testing.assert_close(alone.z[0], together.z[i], atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(alone.images[0], together.images[i], atol=1e-6, rtol=1e-5)
    assert together.mixed is None


def test_mixed_images_lie_between_an_image_and_the_one_before_it_in_the_batch() -> None:
    autoencoder = model().eval()
    images = torch.rand(3, 1, 1, 32, 32)
    mix = torch.tensor([0.0, 0.25, 0.5])
    with torch.no_grad():
        found = autoencoder(images, mix)
        for i in range(3):
            between = mix[i] * found.z[i] + (1 - mix[i]) * found.z[i - 1]
            expected = autoencoder.decoder(between[None])[0]
            torch.testing.assert_close(found.mixed[i], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("freeze", [True, False])
def test_a_frozen_encoder_stays_as_it_is(freeze: bool) -> None:
    autoencoder = model(freeze=freeze).train()
    before = {k: v.clone() for k, v in autoencoder.encoder.state_dict().items()}
    optimiser = torch.optim.Adam([p for p in autoencoder.parameters() if p.requires_grad], 0.1)
    found = autoencoder(torch.rand(4, 1, 1, 32, 32), torch.rand(4))
    (found.images.square().mean() + found.z.square().mean()).backward()
    optimiser.step()
    same = all(torch.equal(v, before[k]) for k, v in autoencoder.encoder.state_dict().items())
    assert same is freeze
    assert autoencoder.decoder.training and autoencoder.encoder.training is not freeze
    gradients = [p.grad is not None for p in autoencoder.latent.parameters()]
    assert all(gradients) and all(p.grad is not None for p in autoencoder.decoder.parameters())


def test_an_encoder_may_see_larger_images() -> None:
    class Sized(MeanEncoder):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seen = tuple(images.shape[2:])
            return super().forward(images)

    encoder = Sized()
    autoencoder = GaussianAutoEncoder(encoder, 1, (1, 16, 16), 4, 16, encoded=(1, 64, 32)).eval()
    assert autoencoder(torch.rand(2, 1, 1, 16, 16)).images.shape == (2, 1, 1, 16, 16)
    assert encoder.seen == (1, 64, 32)


def test_models_are_trained_together() -> None:
    models = AutoEncoders({"global": model((1, 64, 64)), "local": model()})
    images = {"global": torch.rand(2, 1, 1, 64, 64), "local": torch.rand(6, 1, 1, 32, 32)}
    found = models(images, {"local": torch.rand(6)})
    assert found["global"].mixed is None and found["local"].mixed.shape == (6, 1, 1, 32, 32)
    critics = Critics.of(models, 1)
    guesses = critics({name: one.images for name, one in found.items()})
    assert {name: tuple(g.shape) for name, g in guesses.items()} == {"global": (2,), "local": (6,)}
