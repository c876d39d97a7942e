"""The estimate as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from screener_nnu.estimate.estimate import Line

_HEAD = ("part", "what", "time", "disk", "memory", "GPU memory")
_ABSENT = "-"


def describe(lines: Sequence[Line]) -> str:
    """Rows of all parts, and of the whole but the last one, which is the prediction of a scan."""
    *parts, prediction = lines
    whole = Line(
        "all of it",
        "one part after the other",
        sum(line.seconds for line in parts),
        sum(line.disk for line in parts),
        max(line.memory for line in parts),
        max(line.device for line in parts),
    )
    rows = [_HEAD, *(_row(line) for line in [*parts, whole, prediction])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(line: Line) -> tuple[str, ...]:
    sizes = (size_of(number) for number in (line.disk, line.memory, line.device))
    return (line.name, line.work, time_of(line.seconds), *sizes)


def time_of(seconds: float) -> str:
    """Seconds, minutes or hours, as many as are of use."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size_of(number: float) -> str:
    """MB, GB or TB."""
    if number < 5e4:
        return _ABSENT
    for unit, word in ((1e12, "TB"), (1e9, "GB")):
        if number >= unit:
            return f"{number / unit:.1f} {word}"
    return f"{number / 1e6:.1f} MB"
