"""Spacing, patch and pooling: the paper's numbers, worked examples, and rules on many data sets."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from screener_nnu.planners.grid import (
    plan_patch,
    plan_pooling,
    plan_spacing,
    strides_and_kernels,
)

PAPER = 96 * 96 * 64
SMALL = 40**3
THIN = (1.5, 0.75, 0.75)
EXTENT = (400.0, 320.0, 420.0)


def shape_at(extent: tuple[float, ...], spacing: tuple[float, ...]) -> tuple[int, int, int]:
    z, y, x = (int(e // s) for e, s in zip(extent, spacing, strict=True))
    return z, y, x


def many_data_sets() -> list[tuple[tuple[float, float, float], tuple[float, float, float], int]]:
    """Spacings from micro to thick slices, bodies from a hand to a tall adult."""
    generator = np.random.default_rng(0)
    made = []
    for index in range(120):
        z, y, x = np.exp(generator.uniform(np.log(0.4), np.log(6), 3))
        if index % 3:
            x = y
        extent = generator.uniform(40, 600, 3)
        if index % 2:
            extent[1] = extent[2]
        made.append(
            (
                (float(z), float(y), float(x)),
                tuple(extent.tolist()),
                (PAPER, SMALL, 24**3)[index % 3],
            )
        )
    return made  # type: ignore[return-value]


def test_thin_slice_ct_gets_the_papers_spacing_patch_and_grid() -> None:
    spacing = plan_spacing(THIN, PAPER)
    assert spacing == (2.25, 1.5, 1.5)
    patch = plan_patch(spacing, shape_at(EXTENT, spacing), PAPER)
    assert patch == (64, 96, 96)
    assert plan_pooling(spacing, patch, 4.5) == (2, 3, 3)


@pytest.mark.parametrize("voxels", [PAPER, SMALL])
@pytest.mark.parametrize("median", [(0.5, 0.5, 0.5), (0.6, 0.5, 0.5), (1.0, 0.7, 0.7), THIN])
def test_a_crop_of_fine_data_spans_144_mm_and_keeps_its_anisotropy(
    median: tuple[float, float, float], voxels: int
) -> None:
    z, y, x = plan_spacing(median, voxels)
    assert y == x
    assert z / y == pytest.approx(min(median[0] / median[1], 1.5), rel=1e-3)
    # `voxels` voxels of that size fill a cube of 144 mm.
    assert z * y * x * voxels == pytest.approx(144**3, rel=1e-3)


def test_anisotropy_is_clipped_at_both_ends() -> None:
    flat = plan_spacing((0.3, 0.9, 0.9), PAPER)
    assert flat[0] == flat[1] == pytest.approx((144**3 / PAPER) ** (1 / 3), abs=1e-4)
    assert plan_spacing((2.2, 0.5, 0.5), PAPER) == (2.25, 1.5, 1.5)


@pytest.mark.parametrize("median", [(5.0, 0.75, 0.75), (2.5, 3.906, 3.906), (1.0, 0.7, 2.4)])
def test_data_is_never_upsampled(median: tuple[float, float, float]) -> None:
    for voxels in (PAPER, SMALL):
        spacing = plan_spacing(median, voxels)
        assert all(s >= m - 1e-4 for s, m in zip(spacing, median, strict=True))
    assert plan_spacing((5.0, 0.75, 0.75), PAPER) == (5.0, 1.5, 1.5)


def test_patch_is_the_nearest_multiple_and_not_the_next_higher_one() -> None:
    """144 / 2.5 = 57.6 -> 56; 144 / 3.906 = 36.9 -> 40 with strides of 8."""
    spacing = (2.5, 3.906, 3.906)
    patch = plan_patch(spacing, shape_at((445.0, 285.0, 255.0), spacing), PAPER)
    assert strides_and_kernels(spacing, patch)[2] == (8, 8, 8)
    assert patch == (56, 40, 40)


def test_patch_is_clipped_to_small_bodies() -> None:
    spacing = (2.25, 1.5, 1.5)
    patch = plan_patch(spacing, (40, 70, 500), PAPER)
    assert patch[0] <= 40 and patch[1] <= 70 and patch[2] == 96


def test_topology_is_nnunets_own() -> None:
    strides, kernels, divisor = strides_and_kernels((2.25, 1.5, 1.5), (64, 96, 96))
    assert strides[0] == [1, 1, 1] and len(strides) == len(kernels)
    assert tuple(np.prod(strides, axis=0)) == divisor == (16, 16, 16)
    # Slices of 5 mm are first left alone: the plane is pooled until it is as coarse.
    strides, kernels, divisor = strides_and_kernels((5.0, 1.5, 1.5), (32, 96, 96))
    assert strides[1] == [1, 2, 2] and kernels[0] == [1, 3, 3]
    assert divisor[0] < divisor[1]


@pytest.mark.parametrize(("median", "extent", "voxels"), many_data_sets())
def test_rules_hold_for_any_data(
    median: tuple[float, float, float], extent: tuple[float, float, float], voxels: int
) -> None:
    spacing = plan_spacing(median, voxels)
    shape = shape_at(extent, spacing)
    patch = plan_patch(spacing, shape, voxels)
    _, _, divisor = strides_and_kernels(spacing, patch)
    for size, data, multiple in zip(patch, shape, divisor, strict=True):
        assert size % multiple == 0
        assert size <= max(data, multiple)
    assert np.prod(patch) <= 1.1 * voxels
    pooling = plan_pooling(spacing, patch, 4.5 if voxels == PAPER else 8.0)
    assert all(size % kernel == 0 for size, kernel in zip(patch, pooling, strict=True))
    assert np.prod([n // k for n, k in zip(patch, pooling, strict=True)]) <= 32**3
    if spacing[1] == spacing[2] and shape[1] == shape[2]:
        assert patch[1] == patch[2] and pooling[1] == pooling[2]


@pytest.mark.parametrize("median", list(product((0.5, 1.0, 2.0), (0.6, 0.9), (0.6, 0.9))))
def test_patch_of_large_bodies_is_within_half_a_multiple_of_144_mm(
    median: tuple[float, float, float],
) -> None:
    spacing = plan_spacing(median, PAPER)
    patch = plan_patch(spacing, (2000, 2000, 2000), PAPER)
    _, _, divisor = strides_and_kernels(spacing, patch)
    for size, voxel, multiple in zip(patch, spacing, divisor, strict=True):
        assert abs(size - 144 / voxel) <= multiple / 2 + 1e-6


@pytest.mark.parametrize(
    ("spacing", "patch", "pooled_mm", "expected"),
    [
        ((2.25, 1.5, 1.5), (64, 96, 96), 4.5, (2, 3, 3)),
        ((5.0, 1.5, 1.5), (32, 96, 96), 4.5, (1, 3, 3)),  # one voxel is larger already
        ((2.0, 2.0, 2.0), (40, 40, 40), 4.5, (2, 2, 2)),  # 4 mm is nearer than 8
        ((4.7173, 3.1449, 3.1449), (32, 40, 48), 8.0, (2, 2, 3)),  # 40 has no divisor 3
        ((1.0, 1.0, 1.0), (7, 7, 7), 4.5, (7, 7, 7)),  # the divisors of 7 are 1 and 7
    ],
)
def test_pooling_is_the_nearest_divisor(
    spacing: tuple[float, float, float],
    patch: tuple[int, int, int],
    pooled_mm: float,
    expected: tuple[int, int, int],
) -> None:
    assert plan_pooling(spacing, patch, pooled_mm) == expected


def test_grid_is_capped_by_pooling_the_finest_axis_first() -> None:
    """64 x 96 x 96 voxels of 4.5 mm are 18 times too many positions.

    The axis with the smallest cells goes to its next divisor, equal axes together: (2, 2, 2)
    leaves 73728 positions, (4, 2, 2) 36864 and (4, 3, 3) 16384, below 32^3 = 32768.
    """
    assert plan_pooling((4.5, 4.5, 4.5), (64, 96, 96), 4.5) == (4, 3, 3)
