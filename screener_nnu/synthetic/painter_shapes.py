"""Shapes of painted anomalies, of all images of a batch at once, with lengths in mm.

Boxes, balls and free forms are those of Marimont and Tarroni, *Achieving state-of-the-art
performance in the Medical Out-of-Distribution (MOOD) challenge using plausible synthetic
anomalies*, 2023; `perlin` is that of DRAEM (Zavrtanik et al., ICCV 2021), `scar` that of CutPaste
(Li et al., CVPR 2021). Where a shape has a centre it lies in the body.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from screener_nnu.devices import small_tensor
from screener_nnu.plans import Range, Spacing
from screener_nnu.sampling.colours import between
from screener_nnu.synthetic.gradient_noise import draw_gradients, gradient_noise

# Edges of a scar and the largest angle of its turn; the paper's are those of pictures of objects.
_SCAR_LENGTH, _SCAR_WIDTH, _SCAR_ANGLE = (0.1, 0.3), (0.02, 0.08), math.pi / 4
# Cells of the noise that forms are cut by, along the diameter.
_FORM_CELLS = 2
# Of Perlin noise: the largest power of two of cells, in volumes and in pictures; fewest voxels of a
# cell; and what part of the largest value is inside.
_POWERS, _PICTURE_POWERS, _CELL, _LEVEL = 4, 5, 4, 0.5


@dataclass(frozen=True)
class Canvas:
    """What shapes are drawn on.

    Attributes:
        bodies: masks (B, 1, D, H, W) of bool.
        spacing: voxel size (z, y, x), in mm or, of pictures, in pixels.
        sizes: smallest edge of a shape, in the same unit, and the largest as a part of the image's.
        generator: on the device of the bodies.
    """

    bodies: torch.Tensor
    spacing: Spacing
    sizes: Range
    generator: torch.Generator

    @property
    def flat(self) -> bool:
        """Whether images are pictures, of one slice."""
        return self.bodies.shape[2] == 1

    @cached_property
    def extent(self) -> torch.Tensor:
        """Edges (3,) of an image; the only slice of a picture is as thick as that is long."""
        edges = [n * s for n, s in zip(self.bodies.shape[2:], self.spacing, strict=True)]
        return small_tensor([max(edges[1:]) if self.flat else edges[0], *edges[1:]], self.device)

    @property
    def device(self) -> torch.device:
        """That all is drawn on."""
        return self.bodies.device

    @cached_property
    def places(self) -> torch.Tensor:
        """Where voxels lie, from the middle of the image, (3, D, H, W)."""
        axes = [
            (torch.arange(n, device=self.device) - (n - 1) / 2) * s
            for n, s in zip(self.bodies.shape[2:], self.spacing, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform numbers (B, *shape) in [0, 1)."""
        count = len(self.bodies)
        return torch.rand(count, *shape, generator=self.generator, device=self.device)

    def choice(self, count: int) -> torch.Tensor:
        """One of so many numbers from 0 on for each image, (B,)."""
        return (self.uniform() * count).long().clamp(max=count - 1)

    def centres(self) -> torch.Tensor:
        """Places (B, 3) of a random voxel of each body."""
        numbers = self.uniform(math.prod(self.bodies.shape[2:]))
        chosen = numbers.where(self.bodies.flatten(1), -1).argmax(1)
        return self.places.flatten(1).T[chosen]

    def edges(self) -> torch.Tensor:
        """Edges (B, 3) between the smallest and the largest one."""
        smallest, part = self.sizes
        largest = (part * self.extent).clamp_min(smallest)
        return smallest + self.uniform(3) * (largest - smallest)

    def turns(self, largest: float, probability: float = 1.0) -> torch.Tensor:
        """Rotations (B, 3, 3) by up to an angle to either side, see `draw_turns`."""
        angles = largest * (2 * self.uniform() - 1) * (self.uniform() < probability)
        return draw_turns(angles, self.flat, self.generator)

    def inside(self, edges: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        """Where voxels lie in boxes about random centres, (B, 3, D, H, W), from -1 to 1 within."""
        apart = self.places - self.centres()[:, :, None, None, None]
        turned = torch.einsum("bij,bj...->bi...", turns, apart)
        return turned * (2 / edges)[:, :, None, None, None]


def draw_turns(angles: torch.Tensor, flat: bool, generator: torch.Generator) -> torch.Tensor:
    """Rotations (B, 3, 3) of (z, y, x) by angles (B,) about random axes, of pictures about z."""
    axes = torch.randn(len(angles), 3, generator=generator, device=angles.device)
    if flat:
        axes = torch.zeros_like(axes)
        axes[:, 0] = 1
    axes = torch.nn.functional.normalize(axes)
    eye = torch.eye(3, device=angles.device).expand(len(angles), 3, 3)
    cross = torch.linalg.cross(eye, axes[:, None].expand(-1, 3, -1))
    sine, cosine = (f(angles)[:, None, None] for f in (torch.sin, torch.cos))
    return eye + sine * cross + (1 - cosine) * (cross @ cross)


def _box(canvas: Canvas) -> torch.Tensor:
    """Boxes, half of them turned by any angle."""
    local = canvas.inside(canvas.edges(), canvas.turns(math.pi, 0.5))
    return local.abs().amax(1, keepdim=True) <= 1


def _ball(canvas: Canvas) -> torch.Tensor:
    """Balls, of pictures discs; their diameter is the smallest of three edges."""
    edges = canvas.edges().amin(1, keepdim=True).expand(-1, 3)
    return canvas.inside(edges, canvas.turns(0.0)).square().sum(1, keepdim=True) <= 1


def _form(canvas: Canvas) -> torch.Tensor:
    """Turned ellipsoids cut by a smooth noise; its side of 0 that the centre lies on is kept."""
    local = canvas.inside(canvas.edges(), canvas.turns(math.pi))
    gradients = draw_gradients(
        len(local), _FORM_CELLS + 2, canvas.flat, canvas.generator, canvas.device
    )
    cells = torch.full((len(local), 3), _FORM_CELLS + 2, device=canvas.device)
    # The centre lies in the middle of a cell: at its corners the noise is 0.
    middle = small_tensor([0.0 if canvas.flat else 0.5, 0.5, 0.5], canvas.device)
    middle = middle[None, :, None, None, None]
    noise = gradient_noise(local.clamp(-1, 1) * (_FORM_CELLS / 2) + middle, gradients, cells)
    centre = gradient_noise(middle.expand(len(local), -1, 1, 1, 1), gradients, cells)
    return (local.square().sum(1, keepdim=True) <= 1) & (noise * centre >= 0)


def _scar(canvas: Canvas) -> torch.Tensor:
    """Thin boxes along an axis, turned a little, at least two voxels wide."""
    lengths, widths = (
        between(canvas.uniform(3), bounds) * canvas.extent for bounds in (_SCAR_LENGTH, _SCAR_WIDTH)
    )
    axes = torch.arange(3, device=canvas.device)
    first = 1 if canvas.flat else 0
    along = (first + canvas.uniform(1) * (3 - first)).long().clamp(max=2)
    widths = widths.maximum(2 * small_tensor(canvas.spacing, canvas.device))
    edges = torch.where(axes == along, lengths.maximum(widths), widths)
    return canvas.inside(edges, canvas.turns(_SCAR_ANGLE)).abs().amax(1, keepdim=True) <= 1


def _perlin(canvas: Canvas) -> torch.Tensor:
    """Where turned Perlin noise with 1, 2, 4, ... cells an axis exceeds half of its range.

    Of volumes, half of its largest absolute value.
    """
    size = small_tensor(canvas.bodies.shape[2:], canvas.device)
    most = _PICTURE_POWERS if canvas.flat else _POWERS
    powers = (size / _CELL).log2().floor().clamp(0, most)
    cells = (2 ** (canvas.uniform(3) * (powers + 1)).floor().minimum(powers)).long()
    count = len(cells)
    gradients = draw_gradients(count, 2**most, canvas.flat, canvas.generator, canvas.device)
    turned = torch.einsum("bij,j...->bi...", canvas.turns(math.pi / 2), canvas.places)
    phase = canvas.uniform(3) * cells
    if canvas.flat:
        phase[:, 0] = 0
    step, phase = ((v[:, :, None, None, None]) for v in (cells / canvas.extent, phase))
    noise = gradient_noise(turned * step + phase, gradients, cells)
    if canvas.flat:
        return noise * math.sqrt(2) > _LEVEL
    return noise > _LEVEL * noise.abs().amax((1, 2, 3, 4), keepdim=True)


#: Masks (B, 1, D, H, W) of bool, by the name of the shape.
SHAPES: dict[str, Callable[[Canvas], torch.Tensor]] = {
    "box": _box,
    "ball": _ball,
    "form": _form,
    "scar": _scar,
    "perlin": _perlin,
}


def draw_shapes(canvas: Canvas, names: tuple[str, ...]) -> torch.Tensor:
    """One shape of these names for each image, all alike likely; they may leave the body.

    Returns:
        Masks (B, 1, D, H, W) of bool.
    """
    drawn = torch.stack([SHAPES[name](canvas) for name in names])
    chosen = canvas.choice(len(names))
    return drawn[chosen, torch.arange(len(chosen), device=canvas.device)]
