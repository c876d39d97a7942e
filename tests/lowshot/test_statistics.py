"""Figures of made-up cases against explicit loops and other formulas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from screener_nnu.lowshot.design import Design, LowShotRun, Setting
from screener_nnu.lowshot.measure import Record
from screener_nnu.lowshot.statistics import case_table, compare, estimate, holm, rank_biserial

Runs = Callable[..., list[LowShotRun]]
Made = Callable[..., list[Record]]
STARTS = ("scratch", "student")


def test_cases_are_averaged_over_seeds(make_runs: Runs, made_up: Made) -> None:
    records = made_up(make_runs(Design((2, 4), 3, 2, 1, 1)))
    table = case_table(records, "dice", 4, STARTS)
    assert table is not None and table.values.shape == (2, 12)
    for row, start in enumerate(STARTS):
        for column, case in enumerate(table.cases):
            own = [
                r.dice
                for r in records
                if (r.start, r.case, r.setting.num_cases) == (start, case, 4)
            ]
            assert len(own) == 2
            assert table.values[row, column] == pytest.approx(np.mean(own))
        for seed in (0, 1):
            own = [
                r.dice
                for r in records
                if (r.start, r.setting.seed, r.setting.num_cases) == (start, seed, 4)
            ]
            assert table.by_seed[row, seed] == pytest.approx(np.mean(own))


def test_only_settings_that_all_starts_have_finished_count(make_runs: Runs, made_up: Made) -> None:
    runs = make_runs(Design((2,), 3, 2, 1, 1))
    lost = Setting(2, 1, 0)
    records = made_up([r for r in runs if not (r.start == "student" and r.setting == lost)])
    table = case_table(records, "dice", 2, STARTS)
    assert table is not None
    assert (1, 0) not in table.settings and len(table.settings) == 5 and table.unfinished == 1
    # Its cases are still there by the other seed, for both starts.
    case = runs[2].cases["val"][0]
    assert runs[2].setting == lost
    for row, start in enumerate(STARTS):
        own = [r.dice for r in records if (r.start, r.case, r.setting.seed) == (start, case, 1)]
        assert table.values[row, table.cases.index(case)] == pytest.approx(own[0])


def test_a_start_without_a_finished_training_does_not_hide_the_others(
    make_runs: Runs, made_up: Made
) -> None:
    records = made_up(make_runs(Design((2,), 3, 1, 1, 1)))
    table = case_table(records, "dice", 2, ("scratch", "failed", "student"))
    assert table is not None and table.starts == STARTS and table.values.shape == (2, 12)
    assert case_table([], "dice", 2, STARTS) is None


def test_undefined_cases_are_left_out_for_all_and_counted() -> None:
    figures = {"scratch": (0.5, math.nan, 0.2), "student": (0.6, 0.9, 0.1)}
    records = [
        Record(start, Setting(2, 0, 0), f"c{place}", value, value)
        for start, values in figures.items()
        for place, value in enumerate(values)
    ]
    table = case_table(records, "nsd", 2, STARTS)
    assert table is not None and table.cases == ("c0", "c2") and table.undefined == 1
    np.testing.assert_allclose(table.values, [[0.5, 0.2], [0.6, 0.1]])


def test_means_of_a_seed_are_over_the_same_cases(make_runs: Runs, made_up: Made) -> None:
    """A case without a figure in one seed of one start counts for no start in that seed."""
    runs = make_runs(Design((2,), 3, 2, 20, 5))
    records = made_up(runs)
    (place,) = [
        i
        for i, r in enumerate(records)
        if (r.start, r.case, r.setting.seed) == ("student", "case_07", 1)
    ]
    lost = records[place]
    records[place] = Record(lost.start, lost.setting, lost.case, math.nan, math.nan)
    table = case_table(records, "dice", 2, ("scratch", "student"))
    assert table is not None and "case_07" in table.cases
    for row, start in enumerate(table.starts):
        figures = [
            r.dice
            for r in records
            if r.start == start and r.setting.seed == 1 and r.case != "case_07"
        ]
        assert table.by_seed[row, 1] == pytest.approx(np.mean(figures))


def test_interval_equals_a_plain_bootstrap() -> None:
    values = np.random.default_rng(1).normal(0.4, 0.2, 15)
    found = estimate(values)
    rng = np.random.default_rng(9)
    means = [rng.choice(values, values.size).mean() for _ in range(8000)]
    low, high = np.percentile(means, [2.5, 97.5])
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * (high - low))
    assert math.isnan(estimate(values[:1]).low)


def exact_p(differences: np.ndarray) -> float:
    """Signed-rank test by going through all signs; differences without ties."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    total = ranks.sum()
    seen = abs(2 * ranks[differences > 0].sum() - total)
    sums = [
        abs(2 * ranks[np.array(signs)].sum() - total)
        for signs in itertools.product((False, True), repeat=differences.size)
    ]
    return float(np.mean(np.array(sums) >= seen))


@pytest.mark.parametrize("seed", range(5))
def test_p_and_effect_by_going_through_all_signs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.random(10)
    differences = rng.normal(0.3, 0.5, 10)
    found = compare(reference + differences, reference)
    assert found.p == pytest.approx(exact_p(differences))
    assert (found.better, found.worse) == ((differences > 0).sum(), (differences < 0).sum())
    assert found.gain == pytest.approx(differences.mean() / reference.mean())
    # Rank-biserial by definition: each pair (i, j) speaks for the sign of the sum (Walsh averages).
    walsh = [np.sign(differences[i] + differences[j]) for i in range(10) for j in range(i, 10)]
    assert found.effect == pytest.approx(np.mean(walsh))


def test_ties_and_zeros() -> None:
    differences = np.array([0.5, 0.5, -0.5, 0.0, 1.0])
    # Ranks of 0.5, 0.5, 0.5, 1.0 are 2, 2, 2, 4.
    assert rank_biserial(differences) == pytest.approx((2 + 2 + 4 - 2) / 10)
    assert rank_biserial(np.array([1.0, 2.0])) == 1.0
    same = compare(np.array([0.3, 0.4]), np.array([0.3, 0.1 + 0.3]))
    assert (same.better, same.worse, same.equal) == (0, 0, 2)
    assert math.isnan(same.p) and math.isnan(same.effect)
    assert math.isnan(compare(np.array([0.3]), np.array([0.0])).gain)


def test_holm_rejects_as_the_step_down_procedure_does() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        p = rng.random(6) ** 3
        corrected = holm([*p, math.nan])
        assert math.isnan(corrected[-1])
        for level in (0.01, 0.05, 0.2):
            rejected = set()
            for place, index in enumerate(np.argsort(p)):
                if p[index] > level / (6 - place):
                    break
                rejected.add(int(index))
            assert {i for i in range(6) if corrected[i] <= level} == rejected
