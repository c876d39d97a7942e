"""What makes a patch strange: other colours, noise, a fisheye and a wave.

Patches of all sizes lie in one list of voxels, each of which knows its patch: N voxels of P
patches, patch by patch. PMSACL (Tian et al. 2021, arXiv 2109.01303, section 3.1) names the four
deformations, but no strengths; those are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from screener_nnu.sampling.colours import between, colour_matrices, grey_level
from screener_nnu.synthetic.patch_voxels import PatchVoxels

#: Of pictures: factors of brightness, contrast and saturation, and turns of the hue.
FACTORS, HUE = (0.6, 1.4), (-0.1, 0.1)
#: Of volumes: what values are multiplied by, what is added to them, what they are raised to.
GAIN, OFFSET, GAMMA = (0.8, 1.2), (-0.1, 0.1), (0.7, 1.4)
#: Standard deviation of the noise; that of pictures has a variance of 0.05.
PICTURE_NOISE, VOLUME_NOISE = (math.sqrt(0.05), math.sqrt(0.05)), (0.02, 0.1)
#: Of the fisheye, see there.
CENTRE, POWER = (-0.3, 0.3), (0.9, 1.0)
#: Height of the wave as a part of the edge that it runs along, length as one of the edge across.
WAVE_HEIGHT, WAVE_LENGTH = 1 / 16, 0.6


@dataclass(frozen=True)
class Probabilities:
    """Of the deformations of a patch, each by itself."""

    colours: float = 0.0
    noise: float = 0.0
    fisheye: float = 0.0
    wave: float = 0.0


@dataclass(frozen=True)
class Deformations:
    """Deformations of P patches, a row each.

    Attributes:
        pictures: whether images have one slice; colours, noise and wave depend on it.
        applied: which of colours, noise, fisheye and wave a patch has, (4, P).
        colours: of pictures brightness, contrast, saturation and turns of the hue, of volumes gain,
            offset and gamma, (4, P).
        deviation: of the noise, (P,).
        centre, power: of the fisheye, (3, P) and (P,).
        moved, along: the axis that a wave shifts, and the one that it runs along, (P,).
        phase: of the wave in radians, (P,).
    """

    pictures: bool
    applied: torch.Tensor
    colours: torch.Tensor
    deviation: torch.Tensor
    centre: torch.Tensor
    power: torch.Tensor
    moved: torch.Tensor
    along: torch.Tensor
    phase: torch.Tensor

    @classmethod
    def draw(
        cls, count: int, pictures: bool, probabilities: Probabilities, generator: torch.Generator
    ) -> Deformations:
        """Draws the deformations of so many patches; `generator` is on their device."""
        numbers = torch.rand(16, count, generator=generator, device=generator.device)
        shares = vars(probabilities).values()
        colours = (FACTORS, FACTORS, FACTORS, HUE) if pictures else (GAIN, OFFSET, GAMMA)
        centre = between(numbers[8:11], CENTRE)
        moved = (3 * numbers[14]).long()
        along = (moved + 1 + (2 * numbers[15]).long()) % 3
        if pictures:
            centre[0] = 0  # of the only slice
            moved, along = torch.full_like(moved, 2), torch.full_like(along, 1)
        return cls(
            pictures=pictures,
            applied=torch.stack([n < p for n, p in zip(numbers, shares, strict=False)]),
            colours=torch.stack(
                [between(n, r) for n, r in zip(numbers[4:], colours, strict=False)]
            ),
            deviation=between(numbers[11], PICTURE_NOISE if pictures else VOLUME_NOISE),
            centre=centre,
            power=between(numbers[12], POWER),
            moved=moved,
            along=along,
            phase=2 * math.pi * numbers[13],
        )

    def warp(self, voxels: PatchVoxels) -> torch.Tensor:
        """Where in the undeformed patch a voxel of the deformed one is found: first the wave.

        Returns:
            (3, N), counted from the patch's first voxel; what would lie beyond the patch is on its
            border.
        """
        bulges, waves = (voxels.spread(applied) for applied in self.applied[2:])
        size = voxels.size.float()
        places = voxels.place.float()
        waving = (voxels.spread(of) for of in (self.moved, self.along, self.phase))
        places = places + waves * wave(places, size, *waving)
        shift = fisheye(places, size, voxels.spread(self.centre), voxels.spread(self.power))
        return (places + bulges * shift).clamp_min(0).minimum(size - 1)

    def recolour(
        self,
        values: torch.Tensor,
        voxels: PatchVoxels,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Changes colours and adds noise.

        Args:
            values: of the voxels in [0, 1], (C, N).
            voxels: of the patches.
            generator: of the noise.

        Returns:
            (C, N) in [0, 1].
        """
        if self.pictures:
            changed = _picture_colours(values, self.colours, voxels)
        else:
            gain, offset, gamma = (voxels.spread(of) for of in self.colours)
            changed = (values * gain + offset).clamp(0, 1) ** gamma
        values = torch.where(voxels.spread(self.applied[0]), changed, values)
        noise = torch.randn(values.shape, generator=generator, device=values.device)
        return (values + noise * voxels.spread(self.deviation * self.applied[1])).clamp(0, 1)


def fisheye(
    places: torch.Tensor, size: torch.Tensor, centre: torch.Tensor, power: torch.Tensor
) -> torch.Tensor:
    """How far from a voxel a fisheye looks: by (g - c) r^power, r the distance of g and c.

    Args:
        places: g in voxels, counted from the first one of its patch, (3, N).
        size: edges of the patch, over which g runs from -1 to 1, (3, N).
        centre: c, from -1 to 1, (3, N).
        power: (N,).

    Returns:
        (3, N) in voxels.
    """
    apart = (2 * places + 1) / size - 1 - centre
    return apart * apart.square().sum(0) ** (power / 2) * size / 2


def wave(
    places: torch.Tensor,
    size: torch.Tensor,
    moved: torch.Tensor,
    along: torch.Tensor,
    phase: torch.Tensor,
) -> torch.Tensor:
    """How far from a voxel a wave looks: on one axis, by A sin(2 pi v / L + phase).

    A is a sixteenth of the patch's edge along v, and L is 0.6 of the edge of the axis that is
    shifted.

    Args:
        places: voxels, counted from the first one of their patch, (3, N).
        size: edges of the patch, (3, N).
        moved, along: the axis that is shifted, and that of v, (N,).
        phase: in radians, (N,).

    Returns:
        (3, N) in voxels.
    """
    moved, along = moved[None], along[None]
    length = WAVE_LENGTH * size.gather(0, moved)
    angle = 2 * math.pi * places.gather(0, along) / length + phase
    height = WAVE_HEIGHT * size.gather(0, along)
    return torch.zeros_like(places).scatter(0, moved, height * angle.sin())


def _picture_colours(
    values: torch.Tensor, strengths: torch.Tensor, voxels: PatchVoxels
) -> torch.Tensor:
    """Brightness, contrast about a patch's mean grey level, saturation and hue.

    Values are (C, N), strengths (4, P).
    """
    brightness, contrast, saturation, turns = strengths
    grey = grey_level(values[None])[0, 0]
    mean = torch.segment_reduce(grey, "mean", lengths=voxels.lengths, unsafe=True) * brightness
    factor = brightness * contrast
    if len(values) == 1:
        changed = voxels.spread(factor) * values
    else:
        matrices = factor[:, None, None] * colour_matrices(saturation, turns)
        changed = (voxels.spread(matrices.permute(1, 2, 0)) * values).sum(1)
    return (changed + voxels.spread((1 - contrast) * mean)).clamp(0, 1)
