"""What painted anomalies are filled with: tissue from elsewhere, or noise, in other grey values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from screener_nnu.plans import Range, Spacing
from screener_nnu.sampling.colours import between
from screener_nnu.sampling.image_draws import ImageDraws
from screener_nnu.sampling.noise import octave_noise
from screener_nnu.sampling.orientation import between_cubes
from screener_nnu.synthetic.painter_shapes import draw_turns

# How far tissue is moved, as a part of the image's edge: it should not be that of the place.
_FAR = (0.25, 0.5)
# Of noise: grey level of its middle and standard deviation; the image lies in [0, 1].
_NOISE_LEVEL, _NOISE_DEVIATION = (0.2, 0.8), (0.05, 0.25)


@dataclass(frozen=True)
class Contents:
    """How contents are drawn.

    Attributes:
        noise_only: probability that it is noise of several octaves, and no tissue.
        own: probability that tissue is that of the image itself, from elsewhere, and not that of
            another image of the batch.
        probability: of each of the changes below, each by itself.
        turn: largest angle (radians) that tissue is turned by.
        gain, offset, gamma: what values in [0, 1] are multiplied by, what is added to them, and
            what they are raised to.
        noise: standard deviation of noise that is added.
        invert: probability of exchanging bright and dark.
    """

    noise_only: float = 0.0
    own: float = 0.0
    probability: float = 1.0
    turn: float = 0.0
    gain: Range = (1.0, 1.0)
    offset: Range = (0.0, 0.0)
    gamma: Range = (1.0, 1.0)
    noise: float = 0.0
    invert: float = 0.0

    def draw(
        self, images: torch.Tensor, spacing: Spacing, generator: torch.Generator
    ) -> torch.Tensor:
        """A content for each image, as large as it is.

        Args:
            images: (B, C, D, H, W) in [-1, 1]. One image alone gets its own tissue.
            spacing: voxel size (z, y, x).
            generator: on the device of the images.

        Returns:
            (B, C, D, H, W) in [-1, 1].
        """
        draws = ImageDraws(len(images), generator)
        tissue = (self._tissue(images, spacing, draws) + 1) / 2
        if self.noise_only > 0:
            level, deviation = draws.within(_NOISE_LEVEL), draws.within(_NOISE_DEVIATION)
            noise = level + deviation * octave_noise(images.shape, generator)
            tissue = torch.where(draws.happens(self.noise_only), noise, tissue)
        return self._recoloured(tissue.clamp(0, 1), draws) * 2 - 1

    def _tissue(self, images: torch.Tensor, spacing: Spacing, draws: ImageDraws) -> torch.Tensor:
        """Images of the batch, mirrored, turned and moved far; beyond the border they go back."""
        count, size = len(images), images.shape[2:]
        further = 1 + (draws.uniform() * (count - 1)).long().clamp(max=max(count - 2, 0))
        further = further.where(draws.uniform() >= self.own, 0)
        donors = images[(torch.arange(count, device=images.device) + further) % count]
        angles = self.turn * (2 * draws.uniform() - 1) * (draws.uniform() < self.probability)
        turns = draw_turns(angles, size[0] == 1, draws.generator)
        mirrored = torch.where(draws.uniform(3) < 0.5, -1.0, 1.0)
        matrix = between_cubes(turns * mirrored[:, None], tuple(size), spacing)  # type: ignore[arg-type]
        # By whole voxels: between them values would be blurred.
        voxels = turns.new_tensor(size)
        moved = (between(draws.uniform(3), _FAR) * voxels).floor() * 2 / voxels
        moved = moved * torch.where(draws.uniform(3) < 0.5, -1.0, 1.0)
        # torch's grids have axes (x, y, z).
        theta = torch.cat([matrix.flip(1, 2), moved.flip(1)[:, :, None]], 2)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(donors.float(), grid, padding_mode="reflection", align_corners=False)

    def _recoloured(self, values: torch.Tensor, draws: ImageDraws) -> torch.Tensor:
        """Values in [0, 1], changed."""
        values = values * draws.gated(self.gain, self.probability, neutral=1.0)
        values = (values + draws.gated(self.offset, self.probability, neutral=0.0)).clamp(0, 1)
        values = values ** draws.gated(self.gamma, self.probability, neutral=1.0)
        values = torch.where(draws.happens(self.invert), 1 - values, values)
        if self.noise > 0:
            noise = torch.randn(values.shape, generator=draws.generator, device=values.device)
            noise = self.noise * noise * draws.happens(self.probability)
            values = (values + noise).clamp(0, 1)
        return values
