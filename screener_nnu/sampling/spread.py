"""A few of many, evenly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def at_most(names: tuple[str, ...], most: int | None) -> tuple[str, ...]:
    """As `spread`; all of them with 0 or None."""
    return tuple(spread(names, most)) if most and most < len(names) else names


def spread(items: Iterable[Item], most: int) -> list[Item]:
    """At most so many items, spread evenly over the list, its ends among them.

    Example:
        >>> spread("abcdefg", 3), spread("ab", 3)
        (['a', 'd', 'g'], ['a', 'b'])
    """
    every = list(items)
    places = np.linspace(0, len(every) - 1, min(most, len(every))).astype(int)
    return [every[place] for place in places]
