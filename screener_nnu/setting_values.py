"""Settings from plain values: types and limits, every refusal naming the setting."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from screener_nnu.errors import ScreenerError


@dataclass(frozen=True)
class Within:
    """Marks a number that has bounds.

    Example:
        >>> str(Within(at_least=0, below=1)), Within(above=0).holds(0)
        ('at least 0 and below 1', False)
    """

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether a number is allowed."""
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def __str__(self) -> str:
        """The bounds in words."""
        named = [(f.name, getattr(self, f.name)) for f in fields(self)]
        bounds = [f"{name.replace('_', ' ')} {v}" for name, v in named if math.isfinite(v)]
        return " and ".join(bounds)


@dataclass(frozen=True)
class Rising:
    """Marks a pair whose second value may not be lower than the first, or must be higher."""

    strictly: bool = False

    def holds(self, values: Sequence[float]) -> bool:
        """Whether a pair is allowed."""
        low, high = values
        return low < high if self.strictly else low <= high

    def __str__(self) -> str:
        """The rule in words."""
        return "a lower and a higher value" if self.strictly else "a lower value, then a higher one"


class Odd:
    """Marks a number that must be odd."""

    def holds(self, value: int) -> bool:
        """Whether a number is allowed."""
        return value % 2 == 1

    def __str__(self) -> str:
        """The rule in words."""
        return "odd"


class OneOf:
    """Marks a text of which there are few."""

    def __init__(self, *names: str) -> None:
        """Keeps the allowed ones."""
        self.names = names

    def holds(self, value: str) -> bool:
        """Whether a text is allowed."""
        return value in self.names

    def __str__(self) -> str:
        """The allowed ones."""
        return " or ".join(self.names)


class ThreeOrNone:
    """Marks a list that has three numbers, or none where a default is meant."""

    def holds(self, values: Sequence[float]) -> bool:
        """Whether a list is allowed."""
        return len(values) in (0, 3)

    def __str__(self) -> str:
        """The rule in words."""
        return "three numbers, or [] for the default"


#: How names of settings that depend on others end.
OPTIONS = "options"
Count = Annotated[int, Within(at_least=1)]
CountOrNone = Annotated[int, Within(at_least=0)]
Positive = Annotated[float, Within(above=0)]
NotNegative = Annotated[float, Within(at_least=0)]
Fraction = Annotated[float, Within(at_least=0, at_most=1)]
Size = tuple[Count, Count, Count]
SizeOrNone = Annotated[tuple[Count, ...], ThreeOrNone()]
PositiveRange = Annotated[tuple[Positive, Positive], Rising()]


def parse(kind: Any, value: Any, where: str, rest: str = "") -> Any:
    """Turns plain JSON values into the annotated type.

    Args:
        kind: a dataclass, or the type of one of its fields, perhaps with limits or `| None`.
        value: plain values.
        where: dotted name of the setting, for what is said about a value that does not fit.
        rest: what else would fit, in words.

    Raises:
        ScreenerError: another type, outside its limits, or settings missing or unknown.
    """
    if is_dataclass(kind):
        return _parse_dataclass(kind, value, where, rest)
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        (inner,) = (k for k in get_args(kind) if k is not NoneType)
        return None if value is None else parse(inner, value, where, " or null")
    if origin is Annotated:
        inner, *limits = get_args(kind)
        parsed = parse(inner, value, where, rest)
        for limit in limits:
            if not limit.holds(parsed):
                raise ScreenerError(f"{where} must be {limit}{rest}, but is {value}")
        return parsed
    if origin is tuple:
        return _parse_tuple(kind, value, where, rest)
    if origin is dict:
        kind = dict
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ScreenerError(f"{where} must be {kind.__name__}{rest}, but is {value!r}")
    if kind is float and not math.isfinite(value):
        raise ScreenerError(f"{where} must be a finite number{rest}, but is {value}")
    return value


def _parse_dataclass(kind: Any, value: Any, where: str, rest: str) -> Any:
    if not isinstance(value, dict):
        raise ScreenerError(f"{where} must hold settings{rest}, but is {value!r}")
    # Plans and checkpoints of an older version lack settings that came later: they get defaults.
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    missing, unknown = needed - set(value), set(value) - {f.name for f in fields(kind)}
    if missing:
        raise ScreenerError(
            f"{where} was written by another version, for it lacks the settings "
            f"{', '.join(sorted(missing))}: run screener_plan_and_preprocess again"
        )
    if unknown:
        raise ScreenerError(
            f"{where} was written by another version, for it has the settings "
            f"{', '.join(sorted(unknown))}, which are unknown here: update screener_nnu, or run "
            "screener_plan_and_preprocess again"
        )
    hints = get_type_hints(kind, include_extras=True)
    values = {key: parse(hints[key], v, f"{where}.{key}") for key, v in value.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ScreenerError(f"{where}: {error}") from error


def _parse_tuple(kind: Any, value: Any, where: str, rest: str) -> tuple[Any, ...]:
    items = get_args(kind)
    if not isinstance(value, (list, tuple)):
        raise ScreenerError(f"{where} must be a list{rest}, but is {value!r}")
    if items[-1] is Ellipsis:
        return tuple(parse(items[0], v, where) for v in value)
    if len(items) != len(value):
        raise ScreenerError(f"{where} needs {len(items)} values, but has {len(value)}")
    return tuple(parse(t, v, where) for t, v in zip(items, value, strict=True))


def assign(values: dict[str, Any], assignment: str) -> None:
    """Puts a `key=value` setting with a dotted key into nested plain values.

    Raises:
        ScreenerError: no `=`, or a key that is not there or belongs to settings that are null.
    """
    key, separator, text = assignment.partition("=")
    if not separator:
        raise ScreenerError(f"setting '{assignment}' is not of the form key=value")
    *parents, leaf = key.split(".")
    node: Any = values
    for depth, name in enumerate(parents, 1):
        if isinstance(node, dict) and node.get(name, "") is None:
            whole = ".".join(parents[:depth])
            raise ScreenerError(f"'{whole}' of '{key}' is null: give all of it, {whole}={{...}}")
        node = node.get(name) if isinstance(node, dict) else None
    # What options there are depends on other settings; see where they are read.
    if not isinstance(node, dict) or (leaf not in node and not _is_free(parents)):
        known = ", ".join(sorted(node)) if isinstance(node, dict) else ", ".join(sorted(values))
        raise ScreenerError(f"no setting '{key}'; known here: {known}")
    node[leaf] = _parse_text(text)


def _is_free(parents: list[str]) -> bool:
    """Whether a setting belongs to those that depend on others."""
    return bool(parents) and parents[-1].endswith(OPTIONS)


def _parse_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if text in ("True", "False"):
            return text == "True"
        return text
