from __future__ import annotations

import errno
import logging
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.locks import locked, one_after_another, only_one

HOLD = """
import sys, time
from pathlib import Path
from screener_nnu.locks import locked
with locked(Path(sys.argv[1]), "SOME_FOLDER"):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """Another process that holds a lock until it is killed."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "new" / "some.lock"
    process = hold(path)
    told: list[str] = []

    def kill() -> None:
        told.append("busy")
        process.kill()

    with locked(path, "SOME_FOLDER", kill):
        assert told == ["busy"]
    process.wait()
    with locked(path, "SOME_FOLDER", lambda: told.append("busy")):
        assert told == ["busy"] and path.is_file()


def test_a_lock_that_is_taken_may_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.lock"

    def refuse() -> None:
        raise ScreenerError("taken")

    with hold(path) as process:
        with pytest.raises(ScreenerError, match="^taken$"), locked(path, "SOME_FOLDER", refuse):
            raise AssertionError
        process.kill()


def test_a_lock_ends_with_an_error_within(tmp_path: Path) -> None:
    path = tmp_path / "some.lock"
    with pytest.raises(OSError, match="of the work"), locked(path, "SOME_FOLDER"):
        raise OSError(errno.EACCES, "of the work")
    with locked(path, "SOME_FOLDER", lambda: pytest.fail("still held")):
        pass


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ScreenerError, match="cannot be written.*another one in SOME_FOLDER"),
        locked(tmp_path / "file" / "some.lock", "SOME_FOLDER"),
    ):
        raise AssertionError


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    entered = False
    with locked(tmp_path / "some.lock", "SOME_FOLDER"):
        entered = True
    assert entered


def test_what_another_run_does_is_waited_for_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "some.lock"
    with hold(path) as process:
        refused = r"^another process is counting sheep: wait for it or stop it$"
        with pytest.raises(ScreenerError, match=refused):
            only_one(path, "SOME_FOLDER", "counting sheep").__enter__()
        killer = threading.Timer(0.3, process.kill)
        killer.start()
        with caplog.at_level(logging.INFO):
            with one_after_another(path, "SOME_FOLDER", "counting sheep"):
                assert process.wait() != 0
    assert "another run is counting sheep: waiting for it" in caplog.text
