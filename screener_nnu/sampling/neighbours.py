"""Two patches of one image, the second in a known direction from the first."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import Shape

#: Step (z, y, x) from a patch of a picture to its neighbour, by label: 8 of them.
DIRECTIONS_2D: tuple[Shape, ...] = tuple(
    (0, y, x) for y, x in product((-1, 0, 1), repeat=2) if (y, x) != (0, 0)
)
#: The same in a volume: its 6 faces.
DIRECTIONS_3D: tuple[Shape, ...] = (
    (-1, 0, 0),
    (1, 0, 0),
    (0, -1, 0),
    (0, 1, 0),
    (0, 0, -1),
    (0, 0, 1),
)
_LEAST_EDGE = 4


class Neighbours(NamedTuple):
    """First voxels of two patches, and the label of the direction from the first to the second."""

    first: Shape
    second: Shape
    direction: int


def directions_of(shape: Shape) -> tuple[Shape, ...]:
    """Step by label: `DIRECTIONS_2D` of a picture, which has one slice, else `DIRECTIONS_3D`."""
    return DIRECTIONS_2D if shape[0] == 1 else DIRECTIONS_3D


def draw_neighbours(generator: np.random.Generator, shape: Shape, size: Shape) -> Neighbours:
    """Two patches of an image, both of them inside.

    The direction is drawn first, among those that the image has room for, then the offset along
    each axis that it moves on, from 3/4 of the edge to the edge - 1, and last the first patch,
    among the places where both fit. So none is clipped at the border, which would move it away from
    its label.

    Args:
        generator: of this sample.
        shape: of the image, (1, H, W) of a picture or (D, H, W).
        size: of a patch, in voxels (z, y, x); of a picture it has one slice.

    Raises:
        ScreenerError: a side below 4 voxels, or an image without room for any direction.

    References:
        Doersch, Gupta and Efros, Unsupervised Visual Representation Learning by Context Prediction,
        ICCV 2015 (https://arxiv.org/abs/1505.05192).
        Tian et al. 2021, equation 9 (https://arxiv.org/abs/2109.01303).
    """
    if min(size[1:]) < _LEAST_EDGE:
        raise ScreenerError(
            f"patches of {_voxels(size)} have no neighbours beside them: choose {_LEAST_EDGE} or "
            "more (pretext.patch)"
        )
    steps, least = directions_of(shape), [-(-3 * n // 4) for n in size]
    room = [n - k for n, k in zip(shape, size, strict=True)]
    fitting = [
        label
        for label, step in enumerate(steps)
        if all(left >= far * abs(way) for left, far, way in zip(room, least, step, strict=True))
    ]
    if not fitting:
        raise ScreenerError(
            f"an image of {_voxels(shape)} (z, y, x) has no room for two patches of "
            f"{_voxels(size)} beside each other, by three quarters of a patch or more: choose a "
            "smaller pretext.patch, or larger images"
        )
    direction = fitting[generator.integers(len(fitting))]
    first, second = [], []
    for left, far, n, way in zip(room, least, size, steps[direction], strict=True):
        offset = int(generator.integers(far, min(n - 1, left) + 1)) if way else 0
        low = int(generator.integers(left - offset + 1))
        first.append(low if way >= 0 else low + offset)
        second.append(low + offset if way > 0 else low)
    return Neighbours((first[0], first[1], first[2]), (second[0], second[1], second[2]), direction)


def _voxels(size: Shape) -> str:
    return " x ".join(map(str, size)) + " voxels"
