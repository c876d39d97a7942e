"""Auto-encoders with a bottleneck: what cannot be reconstructed is unusual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from screener_nnu.baselines.bottleneck import BottleneckNetwork
from screener_nnu.baselines.reconstruction import ReconstructionMethod
from screener_nnu.crop_methods import body_mean, body_weights
from screener_nnu.errors import ScreenerError
from screener_nnu.losses.ms_ssim import fitting_weights, ms_ssim_map
from screener_nnu.plans import Plan, Shape
from screener_nnu.setting_values import Count, Fraction, NotNegative, Odd, OneOf, Within

_DENSE, _L1, _L2, _SSIM, _MS_SSIM = "dense", "l1", "l2", "ssim", "msssim"


@dataclass(frozen=True)
class AutoEncoderSettings:
    """Of an auto-encoder.

    Attributes:
        latent: channels of the bottleneck.
        latent_kind: `spatial`, a grid, or `dense`, a vector that is made of the grid.
        vector: numbers of a dense bottleneck.
        loss: `l1`, `l2`, or structural similarity at one scale (`ssim`) or at several (`msssim`).
        outside: weight of voxels outside the body.
        rho: weight of the absolute difference in a loss of structural similarity.
        window: voxels an axis of the window of structural similarity, odd.
    """

    latent: Count = 16
    latent_kind: Annotated[str, OneOf("spatial", _DENSE)] = "spatial"
    vector: Count = 512
    loss: Annotated[str, OneOf(_L1, _L2, _SSIM, _MS_SSIM)] = _L1
    outside: Fraction = 0.1
    rho: Fraction = 0.15
    window: Annotated[int, Within(at_least=3), Odd()] = 5


class AutoEncoderMethod(ReconstructionMethod):
    """Reconstructs images through a narrow grid or a vector.

    References:
        Baur et al., Autoencoders for unsupervised anomaly segmentation in brain MR images: a
        comparative study, Medical Image Analysis 2021.
    """

    Settings = AutoEncoderSettings
    # What the encoder gives for a number of the bottleneck.
    _outputs = 1

    def __init__(self, plan: Plan, size: Shape, **options: Any) -> None:
        """Builds the network.

        Raises:
            ScreenerError: the window of structural similarity does not fit into an image.
        """
        super().__init__(plan, size)
        self.own: AutoEncoderSettings = self.Settings(**options)
        vector = self.own.vector if self.own.latent_kind == _DENSE else 0
        self.network = BottleneckNetwork(
            plan, size, self.own.latent, vector=vector, outputs=self._outputs
        )
        self.scales: tuple[float, ...] = (1.0,)
        if self.own.loss in (_SSIM, _MS_SSIM):
            try:
                scales = fitting_weights(size, self.own.window)
            except ValueError as error:
                raise ScreenerError(
                    f"baseline.options.window is too large ({error}): choose a smaller one, or a "
                    "larger baseline.crop_size"
                ) from error
            self.scales = scales if self.own.loss == _MS_SSIM else self.scales

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Difference of images and reconstructions."""
        return self.differences(images, self.reconstruct(images), bodies)

    def reconstruct(self, images: Tensor) -> Tensor:
        """What the decoder makes of the bottleneck."""
        reconstructed: Tensor = self.network(images)
        return reconstructed

    def differences(self, images: Tensor, decoded: Tensor, bodies: Tensor) -> dict[str, Tensor]:
        """The loss of reconstructions, each a weighted mean over voxels and channels.

        Structural similarity is rho |x - x'| + (1 - rho) (1 - SSIM), of images in [0, 1]. It is
        taken of each voxel, so that the body may count more. At several scales it is the mean of
        their maps by the weights of MS-SSIM, where MS-SSIM itself is a product of means.

        Args:
            images, decoded: (B, C, D, H, W) in [-1, 1].
            bodies: (B, 1, D, H, W).
        """
        own, difference = self.own, (decoded.float() - images).abs()
        if own.loss == _L1:
            return {_L1: body_mean(difference, bodies, own.outside)}
        if own.loss == _L2:
            return {_L2: body_mean(difference.square(), bodies, own.outside)}
        pair = (images + 1) / 2, (decoded.float() + 1) / 2
        unlike = 1 - ms_ssim_map(*pair, own.window, self.scales)[:, None]
        return {
            _L1: own.rho * body_mean(difference / 2, bodies, own.outside),
            own.loss: (1 - own.rho) * body_mean(unlike, bodies, own.outside),
        }


@dataclass(frozen=True)
class VariationalSettings(AutoEncoderSettings):
    """Of a variational auto-encoder.

    Attributes:
        kl: weight of the divergence of an image's bottleneck from a normal distribution, against
            the sum of the reconstruction loss over the voxels and channels of the image.
    """

    kl: NotNegative = 1e-3


class VariationalMethod(AutoEncoderMethod):
    """An auto-encoder whose bottleneck is drawn from a Gaussian in training, and its mean at test.

    The objective of an image is the sum over voxels and channels of w |x - x'| + kl KL, with a
    weight w of 1 in the body and `outside` elsewhere. KL is the sum over the numbers of the
    bottleneck of (mean^2 + variance - log variance - 1) / 2. Both are divided by the sum of w, so
    that the first term is the mean of |x - x'| per voxel, and kl KL the share of a voxel in the
    divergence. Over a batch both sums are taken together.

    References:
        Kingma and Welling, Auto-encoding variational Bayes, ICLR 2014; Baur et al. 2021.
    """

    Settings = VariationalSettings
    own: VariationalSettings
    _outputs = 2

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Difference of images and reconstructions, and the divergence of the bottleneck."""
        mean, log_variance = self._gaussian(images)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        decoded = self.network.decode(mean + torch.exp(0.5 * log_variance) * noise)
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
        voxels = body_weights(bodies, images.shape, self.own.outside).sum().clamp_min(1)
        differences = self.differences(images, decoded, bodies)
        return {**differences, "kl": self.own.kl * divergence / voxels}

    def reconstruct(self, images: Tensor) -> Tensor:
        """What the decoder makes of the mean."""
        return self.network.decode(self._gaussian(images)[0])

    def _gaussian(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the bottleneck, float32."""
        mean, log_variance = self.network.encoder(images).float().chunk(2, 1)
        return mean, log_variance
