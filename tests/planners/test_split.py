"""The split: sizes, no case in two sets, seeds, shares of the sources."""

from __future__ import annotations

import random
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


@pytest.mark.parametrize("seed", range(40))
def test_no_group_is_parted_and_numbers_are_met_from_above(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(20, 150)
    names = sources(a=count, b=rng.randint(0, 40))
    most = rng.randint(1, 6)
    # Some have no group, and a group may have the name of a case.
    groups = {
        name: rng.choice(["a_0000", *(f"g{rng.randint(0, 2 * count // most)}" for _ in range(5))])
        for name in names
        if rng.random() < 0.8
    }
    largest = max(Counter(groups.values()).values())
    num_test = rng.randint(0, count // 5)
    try:
        split = split_cases(names, num_test, seed, groups, 0.1, 500)
    except ScreenerError as error:
        assert "groups" in str(error) and largest > count // 2
        return
    parts = [split.test, split.validation, split.train]
    assert sorted(c for part in parts for c in part) == sorted(names)
    held = [{groups[c] for c in part if c in groups} for part in parts]
    assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    wanted = max(1, round(0.1 * len(names)))
    assert num_test <= len(split.test) < num_test + largest
    assert len(split.test) == 0 or num_test > 0
    assert wanted - largest < len(split.validation) < wanted + largest and split.train


def test_groups_of_one_change_nothing() -> None:
    names = sources(a=60, b=40)
    alone = {name: f"patient of {name}" for name in names}
    assert split_cases(names, 10, 3, alone) == split_cases(names, 10, 3)


def test_too_few_groups_are_named() -> None:
    names = sources(a=12)
    with pytest.raises(ScreenerError, match="12 usable cases belong to 1 groups"):
        split_cases(names, 0, 0, dict.fromkeys(names, "anna"))
