"""Train, validation and test cases, seeded and stratified by source data set."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import SplitSettings

#: Share of the cases that validate, and how many at most.
HELD_OUT = (0.05, 50)


def split_cases(
    sources: Mapping[str, str],
    num_test: int,
    seed: int,
    groups: Mapping[str, str] = MappingProxyType({}),
    validation_share: float = HELD_OUT[0],
    most_validation: int = HELD_OUT[1],
) -> SplitSettings:
    """Splits cases: `num_test` for testing, a share (1 at least) for validation, the rest to train.

    Args:
        sources: source data set of each case.
        num_test: cases that only evaluation may read.
        seed: of the random order.
        groups: group, such as the patient, of cases that have one; no group is parted, so that
            the numbers are met as nearly as groups allow, from above.
        validation_share, most_validation: of the cases, and how many at most.

    Raises:
        ScreenerError: nothing would be left to train on.
    """
    names = sorted(sources)
    if len(names) == 1 and num_test == 0:
        # One scan still makes a run; its validation figures then say nothing about other scans.
        return SplitSettings(train=tuple(names), validation=tuple(names))
    num_validation = int(np.clip(round(validation_share * len(names)), 1, most_validation))
    if len(names) - num_test - num_validation < 1:
        raise ScreenerError(
            f"{len(names)} usable cases are too few for {num_test} test cases and "
            f"{num_validation} for validation: lower --num_test"
        )
    order = _stratified_order(sources, seed)
    if groups:
        order = _group_by_group(order, groups)
        num_test = _whole_groups(order, groups, num_test)
        num_validation = _whole_groups(order, groups, num_test + num_validation) - num_test
    test, validation = order[:num_test], order[num_test : num_test + num_validation]
    train = order[num_test + num_validation :]
    if not train:
        raise ScreenerError(
            f"the {len(names)} usable cases belong to {len({groups.get(n, n) for n in names})} "
            "groups, too few to train on some and to validate on others"
        )
    return SplitSettings(tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test)))


def _group_by_group(order: list[str], groups: Mapping[str, str]) -> list[str]:
    """The cases of a group behind its first one."""
    members: dict[str, list[str]] = {}
    for name in order:
        members.setdefault(_group(name, groups), []).append(name)
    return [name for group in members.values() for name in group]


def _whole_groups(order: list[str], groups: Mapping[str, str], count: int) -> int:
    """The first number of cases, from a count on, that parts no group."""
    while 0 < count < len(order) and _group(order[count - 1], groups) == _group(
        order[count], groups
    ):
        count += 1
    return count


def _group(name: str, groups: Mapping[str, str]) -> str:
    # A case without group is one by itself, and must not meet a group of its name.
    return f"group {groups[name]}" if name in groups else f"case {name}"


def _stratified_order(sources: Mapping[str, str], seed: int) -> list[str]:
    """A random order in which every prefix holds each source in about its share."""
    generator = np.random.default_rng(seed)
    place: dict[str, float] = {}
    for source in sorted(set(sources.values())):
        members = generator.permutation(sorted(n for n, s in sources.items() if s == source))
        # Even places with one random offset a source, as in systematic sampling.
        offset = generator.uniform()
        for i, name in enumerate(members):
            place[str(name)] = (i + offset) / len(members)
    return sorted(place, key=lambda name: (place[name], name))
