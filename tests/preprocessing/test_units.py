"""Which values can be Hounsfield units of a person."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest

from screener_nnu.errors import CaseError
from screener_nnu.preprocessing.units import check_intensities, warn_of_full_views

Change = Callable[[np.ndarray], np.ndarray]


def tissue(size: int = 24, seed: int = 0) -> np.ndarray:
    """A piece from within a body: no air, some bone."""
    rng = np.random.default_rng(seed)
    array = rng.normal(40, 30, (size, size, size))
    array[:4] = rng.normal(700, 150, array[:4].shape)
    return np.rint(array)


def with_padding(value: float) -> Change:
    def pad(array: np.ndarray) -> np.ndarray:
        array[:, :6] = value
        return array

    return pad


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a,
        lambda a: np.clip(a, -1024, 3071),
        with_padding(-1024),
        with_padding(-2000),
        with_padding(-3024),
        lambda a: np.where(a > 600, 3071, a),
        lambda a: np.where(a > 600, 30000, a),
    ],
)
def test_what_scanners_make_is_taken(person: Callable[..., np.ndarray], change: Change) -> None:
    check_intensities(change(person()), "a")


def test_a_piece_without_air_is_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_intensities(tissue(), "limb")
    assert "limb: no voxel lies below -500 HU" in caplog.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a + 1024, r"HU \+ 1024: subtract 1024"),
        (lambda a: a + 1000, r"HU \+ 1024: subtract 1024"),
        (lambda a: with_padding(-2000)(a + 1024), r"HU \+ 1024: subtract 1024"),
        (lambda a: with_padding(-1024)(a + 1024), r"HU \+ 1024: subtract 1024"),
        (lambda a: np.where(np.arange(a.size).reshape(a.shape) == 7, -1, a + 1024), r"HU \+ 1024"),
        (lambda a: a - 1024, "HU - 1024: add 1024"),
        (lambda a: np.clip(a / 1000, -1, 1), "all values lie between -1 and"),
        (lambda a: (a + 1024) / 3000, "all values lie between"),
        (with_padding(0), "15% of the voxels are exactly 0.*replace it by -1024"),
        (lambda a: np.full_like(a, -1000), "nothing but air"),
        (lambda a: np.abs(a) / 4 + 1, "no value is negative"),
        (lambda a: a * 40, "lies between -200 and 300 HU, where tissue does"),
    ],
)
def test_other_units_are_refused(
    person: Callable[..., np.ndarray], change: Change, reason: str
) -> None:
    with pytest.raises(CaseError, match=reason):
        check_intensities(change(person()), "a")


@pytest.mark.parametrize("shift", [1024, -1024])
def test_a_piece_of_other_units_is_refused(shift: int) -> None:
    with pytest.raises(CaseError):
        check_intensities(tissue() + shift, "a")


def test_large_scans_are_judged_by_a_sample(person: Callable[..., np.ndarray]) -> None:
    array = person((160, 160, 160))
    check_intensities(array, "a")
    with pytest.raises(CaseError, match="subtract 1024"):
        check_intensities(array + 1024, "a")
    array[159, 159, 159] = np.nan  # every voxel counts where one is enough
    with pytest.raises(CaseError, match="NaN"):
        check_intensities(array, "a")


def test_full_views_are_named_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_full_views({"a": 0.3, "b": 0.97})
        assert not caplog.records
        warn_of_full_views({"a": 0.3, "c": 1.0, "b": 0.985})
    (record,) = caplog.records
    assert "in 2 of 3 scans the body fills the field of view (b, c)" in record.getMessage()
