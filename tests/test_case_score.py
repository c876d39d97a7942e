from __future__ import annotations

import numpy as np
import pytest

from screener_nnu.case_score import case_score
from screener_nnu.errors import ScreenerError


@pytest.mark.parametrize("kind", ["noise", "ties", "rising", "falling", "spike", "constant"])
@pytest.mark.parametrize("size", [1, 2, 63, 2001, 200_001])
@pytest.mark.parametrize("percentile", [1e-3, 50.0, 99.95, 100.0])
def test_it_equals_numpys_percentile(kind: str, size: int, percentile: float) -> None:
    scores = np.random.default_rng(1).normal(size=size).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores)
    elif kind in ("rising", "falling"):
        scores = np.sort(scores)[:: 1 if kind == "rising" else -1]
    elif kind == "spike":
        scores[::64] = 50
    elif kind == "constant":
        scores[:] = -3.5
    expected = np.percentile(scores.astype(np.float64), percentile)
    assert case_score(scores, percentile) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [1, 64, 9999])
def test_scores_that_are_no_numbers_are_refused(value: float, place: int) -> None:
    scores = np.linspace(0, 1, 10_000, dtype=np.float32)
    scores[place] = value
    with pytest.raises(ScreenerError, match="NaN or infinite"):
        case_score(scores, 100.0)


def test_a_scan_without_a_body_has_none() -> None:
    with pytest.raises(ScreenerError, match="without body"):
        case_score(np.zeros(0))
