"""How long the demo will take: more with more steps, and as slow as the machine is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from screener_nnu.demo import forecast
from screener_nnu.demo.settings import DemoSize


def test_minutes_grow_with_steps_and_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "_seconds_of_a_step", lambda width: 0.5)
    usual = forecast.expected_minutes(DemoSize())
    assert usual < forecast.expected_minutes(replace(DemoSize(), descriptor=2000))
    monkeypatch.setattr(forecast, "_seconds_of_a_step", lambda width: 1.5)
    slow = forecast.expected_minutes(DemoSize())
    other = forecast._OTHER_SECONDS / 60
    assert slow - other == pytest.approx(3 * (usual - other))


@pytest.mark.long
def test_a_step_is_timed_on_the_network_of_that_width() -> None:
    wide, narrow = (forecast._seconds_of_a_step(width) for width in (16, 2))
    assert 0 < narrow < wide
