"""Tables of figures for the terminal and for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from screener_nnu.evaluation.bootstrap import Interval

MOST_NAMED = 10
"""Cases that are named in a line; all others are in the summary."""


def aligned(rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Lines of a table with a rule below its header.

    Args:
        rows: cells, those of the header first.
        words: columns from the left that are flush left; all others hold figures.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def cell(value: float, interval: Interval | None = None) -> str:
    """A figure with its interval, a dash where it is undefined."""
    text = "-" if undefined(value) else f"{value:.3f}"
    if interval and not undefined(interval.low):
        text += f" [{interval.low:.3f}, {interval.high:.3f}]"
    return text


def undefined(value: Any) -> bool:
    """Whether a figure has no value."""
    return isinstance(value, float) and not math.isfinite(value)


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Figures with null for what is undefined, as JSON knows no NaN."""
    return {key: None if undefined(value) else value for key, value in values.items()}


def summarised(figures: Mapping[str, float], intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """Figures and their intervals as JSON can hold them."""
    ranges = {name: without_nan(asdict(interval)) for name, interval in intervals.items()}
    return {**without_nan(figures), "intervals_95": ranges}


def named(cases: Iterable[str]) -> str:
    """Number and names of cases, of many the first ten.

    >>> named("ab"), named([])
    ('2: a, b', '0')
    """
    listed = list(cases)
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return f"{len(listed)}: {', '.join(listed[:MOST_NAMED])}{more}" if listed else "0"
