"""f-AnoGAN: an image is reconstructed from the vector of the nearest image that a GAN can make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from screener_nnu.baselines.bottleneck import base_width
from screener_nnu.baselines.reconstruction import ReconstructionMethod
from screener_nnu.baselines.residual import Generator, ImageToVector
from screener_nnu.crop_methods import body_mean
from screener_nnu.losses.gradient_penalty import gradient_penalty
from screener_nnu.plans import Plan, Shape
from screener_nnu.setting_values import Count, CountOrNone, NotNegative, OneOf, Positive, Within

_CRITIC, _GENERATOR, _ENCODER = "critic", "generator", "encoder"
_LINEAR = "linear"
# Of Adam, for critic and generator, and the weight of |z|^2 of a linear encoder.
_BETAS, _SHRINK = (0.0, 0.9), 1e-3
# Width as a share of the plan's, where none is set.
_WIDTH = 0.75


@dataclass(frozen=True)
class FAnoGanSettings:
    """Of f-AnoGAN.

    Attributes:
        latent: numbers of a vector.
        width: channels at the size of the images; 0 is three quarters of the plan's.
        output: of the encoder, `tanh` or `linear`, which draws vectors to 0 instead.
        penalty: weight of the penalty on the critic's gradient.
        critic_steps: of the critic, before each step of the generator.
        gan_share: of all steps, those of critic and generator; the encoder has the rest.
        encoder_rate: learning rate of the encoder; the others have that of the stage.
        kappa: weight of the difference of the critic's features in the encoder's loss.
        feature_weight: weight of the map of that difference in a score.
    """

    latent: Count = 128
    width: CountOrNone = 0
    output: Annotated[str, OneOf("tanh", _LINEAR)] = "tanh"
    penalty: NotNegative = 10.0
    critic_steps: Count = 5
    gan_share: Annotated[float, Within(above=0, below=1)] = 0.667
    encoder_rate: Positive = 1e-3
    kappa: NotNegative = 1.0
    feature_weight: NotNegative = 0.0


class FAnoGanMethod(ReconstructionMethod):
    """Critic and generator of a Wasserstein GAN, and then an encoder for them (`izi_f`).

    The three are trained in turns: critic and generator in the first steps, the encoder in the
    rest, when the others stay as they are. None of them has a layer that behaves differently in
    training. All is computed in float32, for the penalty is differentiated twice.

    References:
        Schlegl et al., f-AnoGAN: fast unsupervised anomaly detection with generative adversarial
        networks, Medical Image Analysis 2019; Gulrajani et al., Improved training of Wasserstein
        GANs, NeurIPS 2017.
    """

    Settings = FAnoGanSettings
    mixed_precision = False
    advice = (
        "A generator that collapsed makes the same image of everything: in the log, minus_gap "
        "should be below 0 and izi should fall. Lower baseline.optimiser.learning_rate (and "
        "baseline.options.encoder_rate), or train with more baseline.optimiser.steps"
    )

    def __init__(self, plan: Plan, size: Shape, **options: Any) -> None:
        """Builds the networks."""
        super().__init__(plan, size)
        self.own = own = FAnoGanSettings(**options)
        width = own.width or max(1, round(_WIDTH * base_width(plan)))
        self.generator = Generator(own.latent, plan.channels, size, width)
        self.critic = ImageToVector(1, plan.channels, size, width)
        self.encoder = ImageToVector(own.latent, plan.channels, size, width)

    def parts(self, steps: int) -> Mapping[str, Iterator[nn.Parameter]]:
        """Critic, generator and encoder."""
        named = ((_CRITIC, self.critic), (_GENERATOR, self.generator), (_ENCODER, self.encoder))
        return {name: network.parameters() for name, network in named}

    def part_of(self, step: int, steps: int) -> str:
        """The critic some times, the generator once, and so on; in the last steps the encoder."""
        if step >= round(self.own.gan_share * steps):
            return _ENCODER
        turn = step % (self.own.critic_steps + 1)
        return _CRITIC if turn < self.own.critic_steps else _GENERATOR

    def rates(self) -> Mapping[str, Mapping[str, Any]]:
        """Of Adam as Gulrajani et al. have it, and a rate of the encoder's own."""
        adversarial = {"betas": _BETAS}
        encoder = {"lr": self.own.encoder_rate}
        return {_CRITIC: adversarial, _GENERATOR: adversarial, _ENCODER: encoder}

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Losses of the part that the step trains."""
        part = self.part_of(step, steps)
        if part == _ENCODER:
            return self.encoder_losses(images, bodies)
        z = torch.randn(
            (len(images), self.own.latent), generator=generator, device=generator.device
        )
        if part == _GENERATOR:
            return {"generator": -self.critic(self.generator(z)).mean()}
        with torch.no_grad():
            made = self.generator(z)
        shares = torch.rand(len(images), generator=generator, device=generator.device)
        return {
            "minus_gap": self.critic(made).mean() - self.critic(images).mean(),
            "penalty": self.own.penalty * gradient_penalty(self.critic, images, made, shares),
        }

    def encoder_losses(self, images: Tensor, bodies: Tensor) -> dict[str, Tensor]:
        """Squared differences of images, in the body, and of the critic's features.

        A linear encoder has a thousandth of the squared length of its vectors beside them.
        """
        z = self.encode(images)
        decoded = self.generator(z)
        features = (self.critic.maps(images) - self.critic.maps(decoded)).square().mean()
        losses = {
            "izi": body_mean((images - decoded).square(), bodies),
            "features": self.own.kappa * features,
        }
        if self.own.output == _LINEAR:
            losses["length"] = _SHRINK * z.square().sum(1).mean()
        return losses

    def encode(self, images: Tensor) -> Tensor:
        """Vectors (B, latent) of images."""
        z: Tensor = self.encoder(images)
        return z if self.own.output == _LINEAR else z.tanh()

    def reconstruct(self, images: Tensor) -> Tensor:
        """What the generator makes of the vectors of images."""
        made: Tensor = self.generator(self.encode(images))
        return made

    def score(self, images: Tensor) -> Tensor:
        """Absolute difference, and that of the critic's last maps where it has a weight."""
        decoded = self.reconstruct(images)
        scores = (images - decoded).abs().mean(1, keepdim=True)
        if self.own.feature_weight:
            maps = (self.critic.maps(images) - self.critic.maps(decoded)).abs()
            coarse = maps.mean(1, keepdim=True)
            scores = scores + self.own.feature_weight * F.interpolate(
                coarse, self.size, mode="trilinear"
            )
        return scores[:, 0]
