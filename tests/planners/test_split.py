"""The split: sizes, no case in two sets, seeds, shares of the sources."""

from __future__ import annotations

from collections import Counter

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.planners.split import split_cases


def sources(**counts: int) -> dict[str, str]:
    return {f"{name}_{i:04d}": name for name, count in counts.items() for i in range(count)}


@pytest.mark.parametrize(
    ("cases", "num_test", "validation"),
    [(2, 0, 1), (10, 3, 1), (29, 0, 1), (31, 4, 2), (100, 20, 5), (999, 0, 50), (3000, 100, 50)],
)
def test_sizes_and_no_overlap(cases: int, num_test: int, validation: int) -> None:
    names = sources(a=cases)
    split = split_cases(names, num_test, seed=1)
    assert len(split.validation) == validation and len(split.test) == num_test
    everything = [*split.train, *split.validation, *split.test]
    assert sorted(everything) == sorted(names)


def test_split_follows_the_seed_and_not_the_order_of_names() -> None:
    names = sources(a=60, b=40)
    backwards = dict(reversed(names.items()))
    assert split_cases(names, 10, 7) == split_cases(backwards, 10, 7)
    assert split_cases(names, 10, 7) != split_cases(names, 10, 8)


def test_drawn_and_not_cut_off_in_order() -> None:
    split = split_cases(sources(a=400), 100, seed=0)
    numbers = [int(name[-4:]) for name in split.test]
    assert 150 < sum(numbers) / len(numbers) < 250
    assert list(split.test) == sorted(split.test)


@pytest.mark.parametrize("seed", range(8))
def test_each_set_holds_each_source_in_its_share(seed: int) -> None:
    names = sources(a=500, b=300, c=180, d=20)
    split = split_cases(names, 100, seed)
    for chosen in (split.test, split.validation):
        count = Counter(names[case] for case in chosen)
        for source, total in (("a", 500), ("b", 300), ("c", 180), ("d", 20)):
            assert abs(count[source] - len(chosen) * total / 1000) <= 1 + 1e-9


def test_every_case_is_tested_for_some_seed() -> None:
    names = sources(a=12, b=6)
    tested = {case for seed in range(60) for case in split_cases(names, 6, seed).test}
    assert tested == set(names)


def test_one_scan_makes_a_run() -> None:
    split = split_cases({"only": "a"}, 0, 0)
    assert split.train == split.validation == ("only",) and split.test == ()


@pytest.mark.parametrize(("cases", "num_test"), [(0, 0), (1, 1), (5, 4), (5, 40)])
def test_too_few_cases_are_refused_with_the_way_out(cases: int, num_test: int) -> None:
    with pytest.raises(ScreenerError, match=rf"{cases} usable cases.*{num_test} test.*--num_test"):
        split_cases(sources(a=cases), num_test, 0)


def test_all_but_one_may_be_tested() -> None:
    split = split_cases(sources(a=5), 3, 0)
    assert (len(split.train), len(split.validation), len(split.test)) == (1, 1, 3)
