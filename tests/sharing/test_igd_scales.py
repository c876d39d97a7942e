"""What a stranger's file may say about the scales of an IGD model."""

from __future__ import annotations

from typing import Any

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.sharing.weights_check import _check_scales


@pytest.mark.parametrize(
    "values",
    [
        None,
        {},
        {"global": [1.0, 2.0]},
        {"global": [1.0, 2.0], "local": [1.0, 2.0], "third": [1.0, 2.0]},
        {"global": [1.0], "local": [1.0, 2.0]},
        {"global": [0.0, 2.0], "local": [1.0, 2.0]},
        {"global": [float("inf"), 2.0], "local": [1.0, 2.0]},
        {"global": [float("nan"), 2.0], "local": [1.0, 2.0]},
        {"global": [True, 2.0], "local": [1.0, 2.0]},
    ],
)
def test_other_than_two_numbers_of_each_model_are_refused(world: Any, values: Any) -> None:
    plan = world.plan()
    _check_scales({"global": [1.0, 2.0], "local": [0.5, 1e-3]}, plan)
    with pytest.raises(ScreenerError, match="no two numbers above 0 of global, local"):
        _check_scales(values, plan)
