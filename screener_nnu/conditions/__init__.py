"""What the density may know of a voxel's surroundings; one interface for all conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from screener_nnu.conditions.ape import ApeCondition
from screener_nnu.conditions.base import Condition
from screener_nnu.conditions.learned import MaskingInvariantCondition
from screener_nnu.conditions.positional import NoCondition, PositionCondition, SinCosCondition
from screener_nnu.errors import ScreenerError

CONDITIONS: dict[str, Callable[..., Condition]] = {
    "none": NoCondition,
    "sincos": SinCosCondition,
    "position": PositionCondition,
    "masking_invariant": MaskingInvariantCondition,
    "ape": ApeCondition,
}
#: Stage that trains the network of a condition; the others need none.
TRAINED_BY = {"masking_invariant": "condition", "ape": "position"}


def build_condition(kind: str, **arguments: Any) -> Condition:
    """The condition of that name; `ScreenerError` lists the known ones."""
    if kind not in CONDITIONS:
        raise ScreenerError(f"no condition '{kind}'; known: {', '.join(CONDITIONS)}")
    return CONDITIONS[kind](**arguments)


__all__ = ["CONDITIONS", "TRAINED_BY", "Condition", "build_condition"]
