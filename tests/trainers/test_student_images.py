"""Jitter in HU: ranges, noise in HU, and nothing where it is switched off."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from screener_nnu.plans import JitterSettings, Plan
from screener_nnu.trainers.student_images import jittered_hu

PLAN = {
    "configurations": {"3d_fullres": {"normalization_schemes": ["CTNormalization"]}},
    "foreground_intensity_properties_per_channel": {
        "0": {"percentile_00_5": -900.0, "percentile_99_5": 1100.0, "mean": 0.0, "std": 400.0}
    },
}
OFF = JitterSettings(
    blur_sigma_mm=0.0, sharpen=0.0, noise=0.0, brightness=(1, 1), contrast=(1, 1), gamma=(1, 1)
)


def jitter(hu: torch.Tensor, settings: JitterSettings, seed: int = 0) -> torch.Tensor:
    preprocessing = SimpleNamespace(spacing=(3.0, 2.0, 1.0), hu_window=(-1000.0, 300.0))
    given: Any = SimpleNamespace(jitter=settings, preprocessing=preprocessing)
    return jittered_hu(hu, Plan(PLAN, given), torch.Generator().manual_seed(seed))


def test_without_strength_only_the_bounds_act() -> None:
    hu = torch.linspace(-1500, 2000, 2 * 8**3).view(2, 1, 8, 8, 8)
    found = jitter(hu, replace(OFF, probability=1.0))
    torch.testing.assert_close(found, hu.clamp(-900, 1100), atol=1e-3, rtol=0)


def test_values_stay_within_the_bounds() -> None:
    hu = torch.empty(6, 1, 8, 8, 8).uniform_(
        -1500, 2000, generator=torch.Generator().manual_seed(1)
    )
    found = jitter(hu, JitterSettings(probability=1.0))
    assert float(found.min()) >= -900.001 and float(found.max()) <= 1100.001
    assert not torch.allclose(found, hu.clamp(-900, 1100), atol=1.0)


def test_noise_is_that_of_the_teachers_images() -> None:
    """Its standard deviation is drawn between 0 and `noise` x 1300 HU for each crop."""
    settings = replace(OFF, noise=0.05, probability=1.0)
    found = jitter(torch.full((200, 1, 6, 6, 6), 100.0), settings)
    deviations = found.flatten(1).std(dim=1)
    assert float(deviations.max()) < 75
    assert float(deviations.mean()) == pytest.approx(32.5, rel=0.15)
