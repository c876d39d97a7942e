"""Cases that workers of an executor or of a cluster work on, some of which are killed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.workers import part_of, run_cases
from screener_nnu.workers.crew import Crew, current_crew, working_with

# Workers import the functions they run by name, so these lie in a module that they find.
MODULE = """
    import os, signal, time
    import numpy as np
    from screener_nnu.errors import CaseError
    from screener_nnu.ownership import owned_folders

    def work(case, item, marks):
        mark = os.path.join(marks, f"{case}_{len(os.listdir(marks))}")
        open(mark, "a").close()
        if case == "always":
            os.kill(os.getpid(), signal.SIGKILL)
        if case == "wrong":
            raise CaseError(case, "no such slice")
        if case == "large":
            held = []
            for _ in range(24):  # 1.2 GB
                held.append(np.ones(50_000_000, np.uint8))
                time.sleep(0.1)
        return item, os.environ.get("OMP_NUM_THREADS"), [str(f) for f in owned_folders()]
"""


@pytest.fixture
def work(made_work: Callable[[str, str], Any]) -> Any:
    return made_work("crew_work", MODULE)


def died(reason: str) -> str:
    return f"died: {reason}"


class KilledWorker(Exception):  # noqa: N818
    """As Dask names its own."""


class Losing(ThreadPoolExecutor):
    """Loses workers, and counts cases that are under way at a time."""

    def __init__(self, workers: int, lost: dict[str, int]) -> None:
        super().__init__(workers)
        self.lost, self.most, self.now, self.lock = lost, 0, 0, threading.Lock()

    def submit(self, function: Any, /, *words: Any, **named: Any) -> Future[Any]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        future = super().submit(self.attempt, function, *words)
        future.add_done_callback(self.done)
        return future

    def done(self, _: Future[Any]) -> None:
        with self.lock:
            self.now -= 1

    def attempt(self, function: Any, case: str, item: Any) -> Any:
        if self.lost.get(case, 0):
            self.lost[case] -= 1
            raise KilledWorker(case)
        return function(case, item)


def twice(case: str, number: int) -> int:
    return 2 * number


def test_a_lost_worker_costs_its_case_at_most(caplog: pytest.LogCaptureFixture) -> None:
    cases = {name: number for number, name in enumerate("abcdefgh")}
    executor = Losing(3, {"b": 1, "e": 2})
    with caplog.at_level(logging.WARNING):
        outcomes = dict(run_cases(twice, cases, 1, lambda reason: reason, executor))
    assert "was killed twice" in str(outcomes.pop("e"))
    assert outcomes == {name: 2 * number for name, number in cases.items() if name != "e"}
    assert executor.most == 3  # none waits where a worker that dies would take it along
    assert "workers died under 2 cases" in caplog.text


def test_a_crew_is_taken_as_long_as_its_block_lasts() -> None:
    large = Losing(1, {})

    @contextmanager
    def alone() -> Any:
        yield large

    crew = Crew(Losing(2, {"b": 9}), lambda: 2, alone, " and 9 GB")
    with working_with(crew):
        assert current_crew() is crew
        # That no process is asked for makes no difference.
        assert dict(run_cases(twice, {"a": 1, "b": 2}, 0, int)) == {"a": 2, "b": 4}
    assert large.most == 1
    assert current_crew() is None


def test_errors_of_a_case_come_through_and_the_others_are_called_off() -> None:
    def fail(case: str, number: int) -> int:
        raise ScreenerError("no space")

    with pytest.raises(ScreenerError, match="no space"):
        list(run_cases(fail, {"a": 1, "b": 2}, 0, int, ThreadPoolExecutor(1)))


def test_workers_that_are_gone_are_no_fault_of_the_cases(work: Any) -> None:
    executor: Executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ScreenerError, match="the workers are gone .*run the same command again"):
        list(run_cases(twice, {"a": 1}, 0, int, executor))
    # One that a killed process has broken gives no further case a chance.
    with (
        ProcessPoolExecutor(1) as broken,
        pytest.raises(ScreenerError, match="the workers are gone"),
    ):
        list(run_cases(work, {"always": 1, "b": 2}, 0, died, broken))


def test_parts_are_all_cases_and_no_case_twice() -> None:
    cases = {name: name for name in "gfedcba"}
    parts = [part_of(cases, part, 3) for part in range(3)]
    assert [list(part) for part in parts] == [["a", "d", "g"], ["b", "e"], ["c", "f"]]
    with pytest.raises(ScreenerError, match="no part 3 of 3: parts are counted from 0 to 2"):
        part_of(cases, 3, 3)


@pytest.mark.slow
def test_dask_kills_who_takes_too_much_and_tries_it_alone(
    work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    from screener_nnu.ownership import own_folder
    from screener_nnu.workers import cluster

    # 1 GB for each of two workers, and 2 GB for one.
    monkeypatch.setattr(cluster, "free_memory", lambda: int(2e9 / cluster._USABLE))
    own_folder(tmp_path / "out")
    cases = {name: number for number, name in enumerate(("a", "large", "b", "always", "c"))}
    with cluster.own_cluster(2):
        outcomes = dict(run_cases(work, cases, 0, died))
        with pytest.raises(Exception, match="no such slice"):
            list(run_cases(work, {"wrong": 1}, 0, died))
        again = dict(run_cases(work, {"d": 9}, 0, died))  # after the one that was alone
    reason = str(outcomes.pop("always"))
    assert reason.startswith("died: its worker was killed twice") and "and 2.0 GB" in reason
    assert {name: outcome[0] for name, outcome in outcomes.items()} == {
        "a": 0, "large": 1, "b": 2, "c": 4
    }  # fmt: skip
    assert all(threads == "1" for _, threads, _ in outcomes.values())
    assert all(str(tmp_path / "out") in folders for *_, folders in outcomes.values())
    assert again["d"][0] == 9
    tries = [path.name.partition("_")[0] for path in (tmp_path / "marks").iterdir()]
    assert tries.count("large") == tries.count("always") == 2


def test_a_scheduler_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from screener_nnu.workers import cluster

    monkeypatch.setattr(cluster, "_PATIENCE", 1.0)
    with (
        pytest.raises(ScreenerError, match="no scheduler at tcp://127.0.0.1:9 .*'dask scheduler'"),
        cluster.running_cluster("tcp://127.0.0.1:9", None),
    ):
        pass
    assert current_crew() is None
