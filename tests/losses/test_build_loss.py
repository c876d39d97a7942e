"""Settings of the plan reach the objectives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.losses import DenseInfoNCE, DenseVICReg, build_loss
from screener_nnu.plans import ContrastSettings, OptimiserSettings

SETTINGS = ContrastSettings(OptimiserSettings(1, 1, 0))
PAIRS = torch.randn(2, 20, 5, generator=torch.Generator().manual_seed(0))


def value(settings: ContrastSettings) -> float:
    return float(build_loss(settings)(*PAIRS)[0])


def test_vicreg_takes_weights_and_reduction() -> None:
    assert value(SETTINGS) == float(DenseVICReg()(*PAIRS)[0])
    other = replace(SETTINGS, vicreg_weights=(1.0, 2.0, 3.0), view_reduction="sum")
    expected = float(DenseVICReg(1.0, 2.0, 3.0, view_reduction="sum")(*PAIRS)[0])
    assert value(other) == expected != value(SETTINGS)


def test_infonce_takes_the_temperature() -> None:
    infonce = replace(SETTINGS, loss="infonce", temperature=0.7)
    assert value(infonce) == float(DenseInfoNCE(0.7)(*PAIRS)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "simclr"}, "no loss 'simclr'; known: vicreg, infonce"),
        ({"view_reduction": "max"}, "loss 'vicreg': view_reduction must be"),
        ({"loss": "infonce", "temperature": 0.0}, "loss 'infonce': temperature must be positive"),
    ],
)
def test_wrong_settings_are_named(change: dict, message: str) -> None:
    with pytest.raises(ScreenerError, match=message):
        build_loss(replace(SETTINGS, **change))
