from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.workers import run_cases

# Spawned processes import the functions they run by name, which tests cannot offer; so the
# functions lie in a module that the processes find.
MODULE = """
    import os, signal
    from screener_nnu.errors import ScreenerError

    def work(case, path, marks):
        mark = os.path.join(marks, case)
        first = not os.path.exists(mark)
        open(mark, "a").close()
        if case == "always" or (case == "once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if case == "error":
            raise ScreenerError("no space")
        return path.name
"""


@pytest.fixture
def work(made_work: Callable[[str, str], Any]) -> Any:
    return made_work("test_work", MODULE)


def died(reason: str) -> str:
    return f"died: {reason}"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_processes_are_noticed_and_the_others_go_on(
    work: partial, caplog: pytest.LogCaptureFixture
) -> None:
    cases = {name: Path(name) for name in ("a", "once", "b", "always", "c", "d")}
    with caplog.at_level(logging.WARNING):
        outcomes = dict(run_cases(work, cases, 2, died))
    assert set(outcomes) == set(cases)
    assert outcomes.pop("always").startswith("died: its process was killed twice")
    assert outcomes == {name: name for name in outcomes}
    assert "always" in caplog.text and "once" in caplog.text


@pytest.mark.parametrize("processes", [0, 1])
def test_errors_come_through(work: partial, processes: int) -> None:
    with pytest.raises(ScreenerError, match="no space"):
        list(run_cases(work, {"error": Path("a"), "b": Path("b")}, processes, died))


def test_in_this_process(work: partial) -> None:
    assert list(run_cases(work, {"a": Path("x"), "b": Path("y")}, 0, died)) == [
        ("a", "x"),
        ("b", "y"),
    ]
