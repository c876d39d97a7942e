from __future__ import annotations

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from screener_nnu.demo import run
from screener_nnu.demo.settings import DemoPaths, DemoSize
from screener_nnu.demo.steps import Step, demo_steps
from screener_nnu.demo.terminal import announced_command, last_lines, output_to
from screener_nnu.errors import ScreenerError


def _record() -> dict:
    return {"size": {}, "seconds": {}, "finished": []}


def test_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ScreenerError, match="holds other files"):
        run._open_record(DemoPaths(tmp_path), DemoSize(), restart=True)
    assert (tmp_path / "thesis.txt").is_file()


def test_other_size_needs_restart_which_deletes_only_what_the_demo_wrote(tmp_path: Path) -> None:
    paths = DemoPaths(tmp_path / "demo")
    record = run._open_record(paths, DemoSize(), restart=False)
    assert run._open_record(paths, DemoSize(), restart=False) == record
    (paths.raw / "Dataset901_DemoCT").mkdir(parents=True)
    (paths.root / "notes.txt").write_text("mine")
    with pytest.raises(ScreenerError, match="--restart"):
        run._open_record(paths, DemoSize(descriptor=7), restart=False)
    fresh = run._open_record(paths, DemoSize(descriptor=7), restart=True)
    assert fresh["size"]["descriptor"] == 7 and not paths.raw.exists()
    assert (paths.root / "notes.txt").is_file()


def test_times_of_an_interrupted_step_add_up_and_those_of_a_finished_one_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 5.0, 10.0, 17.0, 20.0, 21.0])
    monkeypatch.setattr(run, "monotonic", lambda: next(clock))
    paths, record = DemoPaths(tmp_path), _record()

    def fail() -> None:
        raise SystemExit(1)

    with pytest.raises(ScreenerError, match="exit code 1"):
        run._run_step("1/1", Step("a", "A", "a", fail), paths, record, StringIO())
    for _ in range(2):
        run._run_step("1/1", Step("a", "A", "a", lambda: None), paths, record, StringIO())
        assert record["seconds"] == {"a": 12.0}
    assert json.loads(paths.record.read_text()) == record


def test_commands_parse(tmp_path: Path) -> None:
    """Each line of the page is one that its command accepts."""
    import importlib
    import shlex

    for step in demo_steps(DemoPaths(tmp_path / "with blank"), DemoSize(), "cpu"):
        if step.command:
            command, *arguments = shlex.split(step.command)
            module = importlib.import_module(
                f"screener_nnu.commands.{command.removeprefix('screener_')}"
            )
            parser = getattr(module, "build_parser", None) or module._parser
            parser().parse_args(arguments)
            copied = announced_command(step.command).replace("$ ", "").replace("\\\n", " ")
            assert shlex.split(copied) == [command, *arguments]


def test_output_of_children_goes_to_the_log_and_comes_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "demo.log"
    with output_to(log) as terminal:
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        os.write(2, b"complaint\n")
        print("announced", file=terminal, flush=True)
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "announced\nafter\n"
    assert log.read_text() == "from a child\ncomplaint\n"


def test_last_lines_show_the_last_state_of_a_progress_bar(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    log.write_bytes(b"first\n\n\r 1/9\r 2/9\r\x1b[A 3/9\nlast\r 4/9")
    assert last_lines(log, 2) == ["3/9", "4/9"]
    assert last_lines(tmp_path / "none", 2) == []
