"""Units of anomaly scores as they are written for people."""

from __future__ import annotations

#: Of -log q; what a map without a word on it holds.
NATS = "nats"
#: Of distances, which have none.
NO_UNIT = "none"


def shown_unit(unit: str) -> str:
    """The unit alone; empty where scores have none."""
    return "" if unit == NO_UNIT else unit


def behind(unit: str) -> str:
    """The unit behind a number.

    >>> f"peak 12.3{behind('nats')}", f"peak 12.3{behind('none')}"
    ('peak 12.3 nats', 'peak 12.3')
    """
    return f" {unit}" if shown_unit(unit) else ""


def in_brackets(unit: str) -> str:
    """The unit behind the name of a quantity.

    >>> f"anomaly score{in_brackets('HU')}", f"anomaly score{in_brackets('none')}"
    ('anomaly score (HU)', 'anomaly score')
    """
    return f" ({unit})" if shown_unit(unit) else ""
