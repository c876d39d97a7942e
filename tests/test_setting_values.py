"""Settings that may be left out: a type or nothing, in every way that Python can write it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.setting_values import (
    Count,
    Positive,
    PositiveRange,
    Size,
    SizeOrNone,
    assign,
    parse,
)


@dataclass(frozen=True)
class Part:
    steps: Count
    rate: Positive = 0.5


@dataclass(frozen=True)
class Whole:
    plain: int | None = None
    number: float | None = None
    limited: Count | None = None
    named: Optional[Count] = None  # noqa: UP045
    shape: Size | None = None
    between: PositiveRange | None = None
    words: dict[str, Any] | None = None
    part: Part | None = None
    parts: tuple[Part | None, ...] = ()


FILLED = {
    "plain": 1,
    "number": 2.0,
    "limited": 3,
    "named": 4,
    "shape": [5, 6, 7],
    "between": [0.5, 1.5],
    "words": {"a": 1},
    "part": {"steps": 8, "rate": 0.25},
    "parts": [None, {"steps": 9, "rate": 0.5}],
}


def test_what_is_given_has_its_type() -> None:
    read = parse(Whole, FILLED, "whole")
    assert read == Whole(
        1, 2.0, 3, 4, (5, 6, 7), (0.5, 1.5), {"a": 1}, Part(8, 0.25), (None, Part(9))
    )
    assert type(parse(Whole, {"number": 2}, "whole").number) is float


def test_nothing_is_nothing() -> None:
    empty = {key: None for key in FILLED if key != "parts"}
    assert parse(Whole, empty, "whole") == parse(Whole, {}, "whole") == Whole()
    assert parse(Whole, asdict(Whole()), "whole") == Whole()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("plain", "x", "whole.plain must be int or null, but is 'x'"),
        ("plain", True, "whole.plain must be int or null, but is True"),
        ("number", float("nan"), "whole.number must be a finite number or null, but is nan"),
        ("limited", 0, "whole.limited must be at least 1 or null, but is 0"),
        ("named", 1.5, "whole.named must be int or null, but is 1.5"),
        ("shape", 3, "whole.shape must be a list or null, but is 3"),
        ("shape", [1, None, 1], "whole.shape must be int, but is None"),
        ("between", [2, 1], "whole.between must be a lower value, then a higher one or null"),
        ("words", 3, "whole.words must be dict or null, but is 3"),
        ("part", 3, "whole.part must hold settings or null, but is 3"),
        ("part", {"steps": None}, "whole.part.steps must be int, but is None"),
        ("part", {"steps": 0}, "whole.part.steps must be at least 1, but is 0"),
        ("part", {}, "whole.part was written by another version, for it lacks the settings steps"),
        ("part", {"steps": 1, "x": 1}, "for it has the settings x"),
        ("parts", None, "whole.parts must be a list, but is None"),
        ("parts", [3], "whole.parts must hold settings or null, but is 3"),
    ],
)
def test_what_fits_neither_is_named_with_both(key: str, value: Any, message: str) -> None:
    with pytest.raises(ScreenerError) as error:
        parse(Whole, {key: value}, "whole")
    assert message in str(error.value)


def test_a_part_is_given_and_taken_away_as_a_whole() -> None:
    values = asdict(Whole())
    with pytest.raises(ScreenerError, match=r"'part' of 'part.steps' is null: .* part={\.\.\.}"):
        assign(values, "part.steps=3")
    assign(values, 'part={"steps": 3}')
    assign(values, "part.steps=4")
    assert parse(Whole, values, "whole").part == Part(4)
    assign(values, "part=null")
    assert parse(Whole, values, "whole").part is None


def test_a_size_has_three_numbers_or_is_left_to_a_default() -> None:
    assert parse(SizeOrNone, [], "size") == ()
    assert parse(SizeOrNone, [4, 5, 6], "size") == (4, 5, 6)
    for wrong in ([4, 5], [4, 5, 6, 7]):
        with pytest.raises(ScreenerError, match=r"size must be three numbers, or \[\] for the def"):
            parse(SizeOrNone, wrong, "size")
    with pytest.raises(ScreenerError, match="size must be at least 1"):
        parse(SizeOrNone, [4, 0, 6], "size")
