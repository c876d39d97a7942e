"""Runs the steps one after another and writes the page."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any, TextIO

from screener_nnu.demo.forecast import expected_minutes
from screener_nnu.demo.settings import LABELLED, PRETRAINING, DemoPaths, DemoSize
from screener_nnu.demo.steps import PROCESSES, Step, demo_steps
from screener_nnu.demo.terminal import (
    announced_command,
    duration,
    last_lines,
    output_to,
    progress_line,
)
from screener_nnu.errors import ScreenerError
from screener_nnu.files import replacing
from screener_nnu.plans import write_json

logger = logging.getLogger(__name__)


def run_demo(root: Path, restart: bool = False, size: DemoSize | None = None) -> Path:
    """Runs the pipeline on phantoms; an interrupted run goes on where it stopped.

    Args:
        root: folder of everything that the demo writes; new, empty or of an earlier demo.
        restart: delete what an earlier demo left there.
        size: what to compute.

    Returns:
        The page.

    Raises:
        ScreenerError: the folder holds other files or a demo of another size, or a step failed.
    """
    paths, size = DemoPaths(root), size or DemoSize()
    record = _open_record(paths, size, restart)
    _set_environment(paths.environment)
    device = _device(paths)
    steps = demo_steps(paths, size, device)
    print(f"The whole pipeline on computed CT, in {root} (all output: {paths.log})", flush=True)
    if device == "cpu" and not record["finished"]:
        with output_to(paths.log):
            minutes = expected_minutes(size)
        print(f"This will take about {minutes:.0f} min on this machine", flush=True)
    for number, step in enumerate(steps, 1):
        with output_to(paths.log) as terminal:
            _run_step(f"{number:2d}/{len(steps)}", step, paths, record, terminal)
    with output_to(paths.log):
        from screener_nnu.demo.collect import collect_report
        from screener_nnu.demo.page import render_page

        report = collect_report(paths, size, steps, record["seconds"])
        with replacing(paths.report) as temporary:
            temporary.write_text(render_page(report), encoding="utf-8")
    print(f"\n{report.verdict}\n\nAll steps: {duration(sum(record['seconds'].values()))}")
    print(f"Open {paths.report.resolve()}", flush=True)
    return paths.report


def _open_record(paths: DemoPaths, size: DemoSize, restart: bool) -> dict[str, Any]:
    """Checks the folder; returns size and times of an earlier run, or new ones."""
    wanted = json.loads(json.dumps(asdict(size)))
    occupied = paths.root.is_dir() and any(paths.root.iterdir())
    if occupied and not paths.record.is_file():
        raise ScreenerError(f"{paths.root} holds other files; name a new folder with -o")
    if occupied and restart:
        _delete_earlier(paths)
    if paths.record.is_file():
        record: dict[str, Any] = json.loads(paths.record.read_text())
        if record["size"] != wanted:
            raise ScreenerError(
                f"{paths.root} holds a demo of another version or size; begin anew with --restart, "
                "or name another folder with -o"
            )
        return record
    record = {"size": wanted, "seconds": {}, "finished": []}
    write_json(paths.record, record)
    return record


def _delete_earlier(paths: DemoPaths) -> None:
    """Deletes what a demo writes and nothing else."""
    roots = [paths.root / f"nnUNet_{kind}" for kind in ("raw", "preprocessed", "results")]
    sets = [root / name for root in roots for name in (PRETRAINING, LABELLED)]
    for folder in (*sets, paths.test, paths.maps("student").parent, paths.evaluation):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.parent / f".{folder.name}.unfinished", ignore_errors=True)
    for file in (paths.log, paths.report, paths.record):
        file.unlink(missing_ok=True)
    for root in roots:
        with suppress(OSError):  # it holds something else, or is not there
            root.rmdir()


def _set_environment(folders: Mapping[str, str]) -> None:
    """Points nnU-Net at the demo's folders, in this process and its children.

    Raises:
        ScreenerError: nnU-Net was imported with other folders, which it does not forget.
    """
    known = sys.modules.get("nnunetv2.paths")
    for name, folder in folders.items():
        if known is not None and getattr(known, name) != folder:
            raise ScreenerError("nnU-Net already works in other folders: use a new process")
        os.environ[name] = folder
    os.environ.setdefault("nnUNet_def_n_proc", str(PROCESSES))


def _device(paths: DemoPaths) -> str:
    """CUDA where it is there, else the processor."""
    with output_to(paths.log):
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


def _run_step(
    number: str, step: Step, paths: DemoPaths, record: dict[str, Any], terminal: TextIO
) -> None:
    """Runs a step and adds its time to the record; repeating a finished one costs it nothing."""
    command = f"\n{announced_command(step.command)}" if step.command else ""
    print(f"\n{number} {step.title}{command}", file=terminal, flush=True)
    print(f"\n===== {number} {step.title}\n$ {step.command}", flush=True)
    begin = monotonic()
    with progress_line(terminal, paths.log):
        problem = _attempt(step)
    seconds = monotonic() - begin
    if step.name not in record["finished"]:
        record["seconds"][step.name] = record["seconds"].get(step.name, 0.0) + seconds
        record["finished"] += [] if problem else [step.name]
        write_json(paths.record, record)
    if problem:
        sys.stdout.flush()
        tail = "\n    ".join(last_lines(paths.log, 8))
        raise ScreenerError(
            f"step '{step.title}' failed ({problem}); the end of {paths.log}:\n    {tail}\n"
            "Run the same command again to go on from here."
        )
    print(f"      done in {duration(seconds)}", file=terminal, flush=True)


def _attempt(step: Step) -> str:
    """Runs a step; returns what went wrong, or nothing. Ctrl-C is passed on."""
    try:
        step.action()
    except SystemExit as error:
        if error.code == 130:
            raise KeyboardInterrupt from error
        return f"exit code {error.code}" if error.code else ""
    except Exception as error:
        # The commands turn user errors into exit codes, so this is a fault of the program.
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return ""
