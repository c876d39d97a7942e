from __future__ import annotations

import pytest

from screener_nnu.ablation.failures import Failures
from screener_nnu.errors import ScreenerError, StoppedError


def test_a_detector_that_fails_is_left_out_unless_it_is_the_first() -> None:
    failures = Failures("teacher")
    with failures.guard("knn"):
        raise ScreenerError("no room\nfor it")
    assert failures.left(["teacher", "knn", "padim"]) == ["teacher", "padim"]
    assert failures.reasons == {"knn": "no room"}
    with pytest.raises(ScreenerError, match="no teacher"), failures.guard("teacher"):
        raise ScreenerError("no teacher")


def test_a_command_that_was_asked_to_end_does_not_go_on() -> None:
    failures = Failures("teacher")
    with pytest.raises(StoppedError), failures.guard("knn"):
        raise StoppedError("asked to end")
    assert not failures.reasons
