"""Train, validation and test cases, seeded and stratified by source data set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import SplitSettings


def split_cases(sources: Mapping[str, str], num_test: int, seed: int) -> SplitSettings:
    """Splits cases: `num_test` for testing, 5 % (1 to 50) for validation, the rest for training.

    Args:
        sources: source data set of each case.
        num_test: cases that only evaluation may read.
        seed: of the random order.

    Raises:
        ScreenerError: nothing would be left to train on.
    """
    names = sorted(sources)
    if len(names) == 1 and num_test == 0:
        # One scan still makes a run; its validation figures then say nothing about other scans.
        return SplitSettings(train=tuple(names), validation=tuple(names))
    num_validation = int(np.clip(round(0.05 * len(names)), 1, 50))
    if len(names) - num_test - num_validation < 1:
        raise ScreenerError(
            f"{len(names)} usable cases are too few for {num_test} test cases and "
            f"{num_validation} for validation: lower --num_test"
        )
    order = _stratified_order(sources, seed)
    test, validation = order[:num_test], order[num_test : num_test + num_validation]
    train = order[num_test + num_validation :]
    return SplitSettings(tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test)))


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
