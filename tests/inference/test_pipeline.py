"""Reading, computing and writing side by side: same results, bounded memory, whole files."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path

import pytest

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.inference.pipeline import Outcome, Pipeline


class Log:
    """Notes what happens when."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, event: str) -> None:
        with self.lock:
            self.events.append(event)


def cases(*names: str) -> dict[str, Path]:
    return {name: Path(name) for name in names}


def pipeline(
    log: Log, budget: int = 30, step: str = "", error: BaseException | None = None
) -> Pipeline[str, str]:
    """Every scan needs 10; a step of the scan b may fail."""

    def fail(now: str, case: str) -> None:
        if error is not None and (now, case) == (step, "b"):
            raise error

    def read(case: str, path: Path) -> str:
        log(f"read {case}")
        fail("read", case)
        return f"scan {path}"

    def compute(scan: str) -> str:
        log(f"compute {scan[5:]}")
        fail("compute", scan[5:])
        time.sleep(0.05)
        log(f"computed {scan[5:]}")
        return f"map of {scan}"

    def write(case: str, path: Path, scan: str, result: str) -> None:
        time.sleep(0.02)
        fail("write", case)
        assert result == f"map of {scan}" == f"map of scan {case}"
        log(f"written {case}")

    return Pipeline(read, compute, write, lambda path: 10, budget)


def test_scans_come_in_order_with_their_own_results() -> None:
    log = Log()
    assert list(pipeline(log).run(cases(*"abcd"))) == [Outcome(c) for c in "abcd"]
    written = [e for e in log.events if e.startswith("written")]
    assert written == [f"written {c}" for c in "abcd"]


def test_the_next_scan_is_read_and_the_last_written_during_a_computation() -> None:
    log = Log()
    list(pipeline(log).run(cases(*"abc")))
    during_b = log.events[log.events.index("compute b") : log.events.index("computed b")]
    assert "read c" in log.events[: log.events.index("computed b")]
    assert "written a" in during_b


@pytest.mark.parametrize(("budget", "in_hand"), [(5, 1), (10, 1), (20, 2), (30, 3), (99, 3)])
def test_scans_in_hand_stay_within_the_budget(budget: int, in_hand: int) -> None:
    log = Log()
    list(pipeline(log, budget).run(cases(*"abcdef")))
    now = most = 0
    for event in log.events:
        now += event.startswith("read") - event.startswith("written")
        most = max(most, now)
    assert most <= in_hand and now == 0
    assert most == in_hand or budget > 20  # how soon a file is written is chance


@pytest.mark.parametrize("step", ["read", "compute", "write"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CaseError("b", "is no CT"), "is no CT"),
        (ScreenerError("b.nii.gz cannot be written: disk full"), "disk full"),
        (MemoryError(), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (ZeroDivisionError("of an odd file"), "ZeroDivisionError: of an odd file"),
    ],
)
def test_a_failure_costs_its_own_scan(step: str, error: Exception, reason: str) -> None:
    log = Log()
    made = pipeline(log, step=step, error=error)
    outcomes = {o.case: o.reason for o in made.run(cases(*"abc"))}
    assert list(outcomes) == ["a", "b", "c"]
    assert outcomes["a"] == outcomes["c"] == "" and reason in outcomes["b"]


@pytest.mark.parametrize("step", ["read", "compute", "write"])
def test_an_interrupt_ends_the_run_after_the_file_in_hand(step: str) -> None:
    log = Log()
    made = pipeline(log, step=step, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        list(made.run(cases(*"abcdef")))
    assert not any(event.endswith(("e", "f")) for event in log.events)
    assert "written a" in log.events


class Scan:
    """Something large that a weak reference can follow."""


@pytest.mark.parametrize("step", ["read", "compute", "write"])
def test_a_skipped_scan_does_not_stay_in_memory(step: str) -> None:
    """Not until a rare collection of circles, either: thousands may be skipped."""
    alive: list[weakref.ref[Scan]] = []

    def read(case: str, path: Path) -> Scan:
        scan = Scan()
        alive.append(weakref.ref(scan))
        if step == "read":
            raise CaseError(case, "is no CT")
        return scan

    def compute(scan: Scan) -> Scan:
        if step == "compute":
            raise CaseError("x", "is no CT")
        return scan

    def write(case: str, path: Path, scan: Scan, result: Scan) -> None:
        raise CaseError(case, "is no CT")

    made = Pipeline(read, compute, write, lambda path: 10, 30)
    gc.disable()
    try:
        assert [o.reason for o in made.run(cases(*"abcd"))] == ["is no CT"] * 4
        assert [one() is None for one in alive] == [True] * 4
    finally:
        gc.enable()
