from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.pairing import CaseFiles
from screener_nnu.evaluation.workers import for_each_case

# Spawned processes import the functions they run by name, which tests cannot offer.
MODULE = """
    import os, signal, time
    from screener_nnu.errors import CaseError

    def work(files):
        if files.case == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if files.case == "bad":
            raise CaseError("bad", "no map")
        time.sleep(0.5 * (files.case == "slow"))
        return files.case
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[CaseFiles], str]:
    name = f"screener_test_evaluation_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return __import__(name).work


def cases(*names: str) -> list[CaseFiles]:
    return [CaseFiles(name, {}, Path("body"), Path("mask"), None) for name in names]


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_cases(work: Any, processes: int) -> None:
    found = for_each_case(work, cases("slow", "b", "bad", "a"), processes, "counting")
    assert isinstance(found[2], CaseError) and found[2].reason == "no map"
    assert [found[place] for place in (0, 1, 3)] == ["slow", "b", "a"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_ends_the_evaluation_in_a_sentence(work: Any) -> None:
    with pytest.raises(ScreenerError, match="killed while working on counting.* -np 1"):
        for_each_case(work, cases("a", "killed"), 2, "counting")
