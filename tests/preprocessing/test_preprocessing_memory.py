from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.memory import bounded_processes, estimate_bytes, free_memory


@pytest.mark.parametrize(
    ("free", "wanted", "fit"), [(None, 9, 9), (100, 3, 3), (100, 9, 4), (50, 4, 1), (1, 4, 1)]
)
def test_processes_fit_even_when_the_largest_meet(free: int | None, wanted: int, fit: int) -> None:
    # 80 of 100 may be used: 30 + 20 + 20 + 10.
    estimates = [10, 20, 10, 30, 20, 10, 10, 10, 10, 10]
    assert bounded_processes(estimates, wanted, free) == fit


def test_estimate_grows_with_the_scan(
    write_image: Callable[..., Path],
    person: Callable[..., np.ndarray],
    settings: PreprocessingSettings,
) -> None:
    small = estimate_bytes(write_image(person(), name="a.nii.gz"), settings)
    large = estimate_bytes(write_image(person((48, 80, 96)), name="b.nii.gz"), settings)
    base = estimate_bytes(Path("absent.nii.gz"), settings)
    assert (large - base) == pytest.approx(8 * (small - base), rel=0.01)


def test_free_memory_is_plausible() -> None:
    free = free_memory()
    assert free is None or 10**7 < free < 10**14
