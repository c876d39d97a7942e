"""The bank of filters against SciPy, and its windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from screener_nnu.descriptors.filters import FilterBank, FiltersSettings
from screener_nnu.plans import PreprocessingSettings

WINDOWS = {"ct": [(-1000, 300), (-160, 240)], "mr": [(-3, 3)], "picture": [(0, 255)]}
VALUES = {"ct": (0.0, 300.0), "mr": (0.0, 1.5), "picture": (128.0, 60.0)}


def bank(modality: str, sigmas: tuple[float, ...], variances: tuple[float, ...]) -> FilterBank:
    made = FilterBank(sigmas, variances)
    spacing, window = (1.0, 1.0, 1.0), (0.0, 255.0) if modality == "picture" else (-1000.0, 300.0)
    made.check_images(
        PreprocessingSettings(spacing, spacing, (-1e4, 1e4), window, modality=modality)
    )
    return made


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    sigmas = [sigma if n > 1 else 0 for n in values.shape]
    return gaussian_filter(values, sigmas, mode="nearest", truncate=np.ceil(3 * sigma) / sigma)


@pytest.mark.parametrize("modality", ["ct", "mr", "picture"])
def test_maps_are_those_of_scipy(modality: str) -> None:
    mean, std = VALUES[modality]
    shape = (1, 30, 40) if modality == "picture" else (9, 14, 17)
    image = np.random.default_rng(0).normal(mean, std, shape)
    made = bank(modality, (0.8, 3.2), (1.6,))
    found = made(torch.from_numpy(image)[None, None])[0].double().numpy()
    units = [np.clip((image - low) / (high - low), 0, 1) for low, high in WINDOWS[modality]]
    expected = [*units, *(smooth(u, 0.8) for u in units), *(smooth(u, 3.2) for u in units)]
    expected += [np.log(np.maximum(smooth(u * u, 1.6) - smooth(u, 1.6) ** 2, 1e-4)) for u in units]
    assert made.channels == len(expected) == len(found)
    np.testing.assert_allclose(found, np.stack(expected), atol=2e-3)


@pytest.mark.parametrize("mean", [0.0, 200.0])
def test_maps_are_the_same_under_autocast(mean: float) -> None:
    made = bank("ct", (0.8, 3.2), (1.6, 3.2))
    drawn = torch.Generator().manual_seed(0)
    image = mean + 20 * torch.randn(1, 1, 9, 14, 17, generator=drawn)
    expected = made(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made(image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_there_are_fourteen_of_ct_and_colours_are_looked_at_together() -> None:
    default = FiltersSettings()
    made = bank("ct", default.sigmas, default.variance_sigmas)
    assert made.channels == 14
    colours = torch.rand(1, 3, 1, 12, 12) * 255
    picture = bank("picture", default.sigmas, default.variance_sigmas)
    assert picture.channels == 7
    torch.testing.assert_close(picture(colours), picture(colours.mean(1, keepdim=True)))


def test_weights_of_another_bank_are_refused() -> None:
    with pytest.raises(RuntimeError, match="other settings"):
        bank("ct", (1.0,), (2.0,)).load_state_dict(bank("ct", (1.5,), (2.0,)).state_dict())
