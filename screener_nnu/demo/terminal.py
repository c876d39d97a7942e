"""A quiet terminal: what the commands print goes to a log, a line tells how far they are."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_TAIL_BYTES = 4096
_INDENT = " " * 6
_WIDTH = 88
_CONTROL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@contextmanager
def output_to(log: Path) -> Iterator[TextIO]:
    """Sends everything that is printed, also by child processes, to a log file.

    Yields:
        A stream that still leads to the terminal.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    saved = os.dup(1), os.dup(2)
    with log.open("ab") as file, os.fdopen(os.dup(saved[0]), "w") as terminal:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield terminal
        finally:
            _flush()
            for target, source in zip((1, 2), saved, strict=True):
                os.dup2(source, target)
                os.close(source)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def last_lines(log: Path, count: int) -> list[str]:
    """Last lines of a log that are not empty; of a progress bar only its last state."""
    if not log.is_file():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = _CONTROL_CODES.sub("", text).split("\n")
    states = [line.rstrip("\r").rpartition("\r")[2].strip() for line in lines]
    return [state for state in states if state][-count:]


@contextmanager
def progress_line(terminal: TextIO, log: Path) -> Iterator[None]:
    """Repeats the last line of the log on the terminal each second, where there is one."""
    if not terminal.isatty():
        yield
        return
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(1.0):
            width = shutil.get_terminal_size().columns - len(_INDENT) - 1
            line = "".join(last_lines(log, 1))[:width]
            terminal.write(f"\r\x1b[K{_INDENT}{line}")
            terminal.flush()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        terminal.write("\r\x1b[K")
        terminal.flush()


def broken_command(command: str) -> str:
    """A command line broken before its options, such that it can be copied."""
    words: list[str] = []
    for word in map(shlex.quote, shlex.split(command)):
        if words and re.fullmatch("-+[a-z]+", words[-1]):
            words[-1] += f" {word}"  # an option stays with its value
        else:
            words.append(word)
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > _WIDTH:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return " \\\n".join(lines)


def announced_command(command: str) -> str:
    """A command line as the terminal shows it."""
    return f"{_INDENT}$ " + broken_command(command).replace("\n", f"\n{_INDENT}")


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    Example:
        >>> duration(7.4), duration(185.0)
        ('7 s', '3 min 5 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
