"""Smoothing and mirroring of volumes against SciPy and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from screener_nnu.sampling.mirroring import mirrored
from screener_nnu.sampling.smoothing import gaussian_smooth


@pytest.mark.parametrize("shape", [(7, 9, 11), (1, 9, 11)])
@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_smoothing_is_that_of_scipy(shape: tuple[int, int, int], sigma: float) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, *shape)).astype(np.float32)
    sigmas = (0, 0, *(sigma if n > 1 else 0 for n in shape))
    expected = gaussian_filter(values, sigmas, mode="nearest", truncate=np.ceil(3 * sigma) / sigma)
    found = gaussian_smooth(torch.from_numpy(values), sigma)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_each_axis_may_have_a_width_of_its_own() -> None:
    values = np.random.default_rng(0).normal(size=(2, 1, 7, 9, 11)).astype(np.float32)
    expected = values
    for axis, sigma in enumerate((0.7, 0, 2.0)):
        if sigma:
            one = [sigma if n == axis + 2 else 0 for n in range(5)]
            reach = np.ceil(3 * sigma) / sigma
            expected = gaussian_filter(expected, one, mode="nearest", truncate=reach)
    found = gaussian_smooth(torch.from_numpy(values), (0.7, 0, 2.0))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_no_smoothing_leaves_the_images_alone() -> None:
    images = torch.rand(1, 1, 4, 4, 4)
    assert torch.equal(gaussian_smooth(images, 0.0), images)


def test_an_axis_can_be_smoothed_alone() -> None:
    values = np.random.default_rng(0).normal(size=(1, 1, 7, 9, 11)).astype(np.float32)
    expected = gaussian_filter(values, (0, 0, 1.0, 0, 0), mode="nearest", truncate=3)
    found = gaussian_smooth(torch.from_numpy(values), (1.0, 0.0, 0.0))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_smoothing_is_in_float32_under_autocast() -> None:
    images = torch.rand(1, 1, 7, 9, 11, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gaussian_smooth(images, 1.0)
    torch.testing.assert_close(found, gaussian_smooth(images, 1.0), rtol=0, atol=0)


@pytest.mark.parametrize("open_axes", [False, True])
def test_a_tracer_leaves_nothing_behind(open_axes: bool) -> None:
    """A traced program smooths as we do, at other sizes, too, and so do we after it."""

    class Smooth(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return gaussian_smooth(images, 1.7)

    example = torch.rand(1, 2, 13, 14, 15)
    shapes = [(13, 14, 15), *([(9, 21, 4)] if open_axes else [])]
    axes = {n: torch.export.Dim.DYNAMIC for n in (2, 3, 4)} if open_axes else {}
    program = torch.export.export(Smooth(), (example,), dynamic_shapes=(axes,)).module()
    for shape in shapes:
        images = torch.rand(1, 2, *shape)
        expected = [
            gaussian_filter(image.numpy(), 1.7, mode="nearest", truncate=6 / 1.7)
            for image in images[0]
        ]
        for found in (program(images), gaussian_smooth(images, 1.7)):
            np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)


def test_crops_and_masks_are_mirrored_together_and_each_by_itself() -> None:
    images = torch.arange(64 * 27.0).view(64, 1, 3, 3, 3)
    one, other = mirrored((images, -images), torch.Generator().manual_seed(0))
    assert torch.equal(one, -other)
    corners = set()
    for before, after in zip(images, one, strict=True):
        assert torch.equal(before.flatten().sort()[0], after.flatten().sort()[0])
        place = np.argwhere((after[0] == before[0, 0, 0, 0]).numpy())[0]
        corners.add(tuple(int(v) for v in place))
    assert corners == {(z, y, x) for z in (0, 2) for y in (0, 2) for x in (0, 2)}
