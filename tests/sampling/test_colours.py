"""Grey level, saturation and hue against scikit-image's YIQ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2yiq, yiq2rgb

from screener_nnu.sampling.colours import between, colour_matrices, grey_level, is_coloured

RGB = torch.rand(5, 3, 1, 6, 7, generator=torch.Generator().manual_seed(0))


def test_grey_level_is_the_luma() -> None:
    expected = rgb2yiq(np.moveaxis(RGB.numpy(), 1, -1))[..., 0]
    np.testing.assert_allclose(grey_level(RGB)[:, 0].numpy(), expected, atol=1e-6)
    assert torch.equal(grey_level(RGB[:, :1]), RGB[:, :1])
    assert is_coloured(RGB) and not is_coloured(RGB[:, :1])


@pytest.mark.parametrize("seed", range(3))
def test_matrices_stretch_and_turn_the_chroma(seed: int) -> None:
    rng = np.random.default_rng(seed)
    saturation, turns = rng.uniform(0, 2, 5), rng.uniform(-0.5, 0.5, 5)
    matrices = colour_matrices(torch.from_numpy(saturation), torch.from_numpy(turns))
    found = torch.einsum("bij,bjdhw->bidhw", matrices.float(), RGB)
    yiq = rgb2yiq(np.moveaxis(RGB.numpy().astype(float), 1, -1))
    chroma = yiq[..., 1] + 1j * yiq[..., 2]
    chroma *= (saturation * np.exp(2j * np.pi * turns))[:, None, None, None]
    expected = yiq2rgb(np.stack([yiq[..., 0], chroma.real, chroma.imag], -1))
    np.testing.assert_allclose(found.numpy(), np.moveaxis(expected, -1, 1), atol=1e-5)


def test_grey_stays_and_saturation_0_is_grey() -> None:
    zero = torch.zeros(1)
    grey = torch.full((3,), 0.4)
    torch.testing.assert_close(colour_matrices(zero + 1.7, zero + 0.3)[0] @ grey, grey)
    pixel = torch.tensor([0.9, 0.2, 0.4])
    luma = 0.299 * 0.9 + 0.587 * 0.2 + 0.114 * 0.4
    found = colour_matrices(zero, zero + 0.2)[0] @ pixel
    torch.testing.assert_close(found, torch.full((3,), luma))


def test_between_maps_the_unit_interval() -> None:
    found = between(torch.tensor([0.0, 0.5, 1.0]), (-2.0, 4.0))
    torch.testing.assert_close(found, torch.tensor([-2.0, 1.0, 4.0]))
