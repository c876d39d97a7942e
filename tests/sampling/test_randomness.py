"""Every draw is a function of (seed, stage, step, sample)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from screener_nnu.sampling.randomness import numpy_generator, shuffled_index, torch_generator

CPU = torch.device("cpu")
KEYS = [
    (1, "descriptor", 0),
    (2, "descriptor", 0),
    (1, "condition", 0),
    (1, "descriptor", 1),
    (1, "descriptor", 0, 0),
    (1, "descriptor", 0, 1),
    (1, "descriptor", 1, 0),
]


def test_same_arguments_same_draws() -> None:
    for key in KEYS:
        assert numpy_generator(*key).random() == numpy_generator(*key).random()
        first, second = (torch.rand(4, generator=torch_generator(CPU, *key)) for _ in range(2))
        assert torch.equal(first, second)


def test_every_argument_matters() -> None:
    numbers = {float(numpy_generator(*key).random()) for key in KEYS if len(key) == 3 or key[-1]}
    assert len(numbers) == len([k for k in KEYS if len(k) == 3 or k[-1]])
    draws = [torch_generator(CPU, *k).initial_seed() for k in KEYS if len(k) == 3 or k[-1]]
    assert len(set(draws)) == len(draws)


def test_neighbouring_steps_are_independent() -> None:
    steps = np.array([numpy_generator(7, "density", i).normal(size=2) for i in range(2000)])
    device = torch.stack(
        [torch.randn(2, generator=torch_generator(CPU, 7, "density", i)) for i in range(2000)]
    ).numpy()
    for values in (steps, device):
        np.testing.assert_allclose(values.mean(0), 0, atol=0.1)
        assert abs(np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]) < 0.1
        assert abs(np.corrcoef(values.T)[0, 1]) < 0.1


def test_every_process_and_machine_draws_the_same() -> None:
    """Held as numbers: Python salts `hash` per process, so a name must not go through it."""
    assert numpy_generator(1, "descriptor", 5).integers(1 << 40) == 890804120905
    assert torch_generator(CPU, 1, "descriptor", 5).initial_seed() == 8404916541850031353


@pytest.mark.parametrize("count", [1, 5, 12])
def test_each_pass_takes_every_case_once(count: int) -> None:
    turns = [[shuffled_index(count, 3, "x", t * count + i) for i in range(count)] for t in range(6)]
    for turn in turns:
        assert sorted(turn) == list(range(count))
    if count > 1:
        assert len({tuple(turn) for turn in turns}) > 1


def test_orders_differ_between_seeds_and_stages() -> None:
    orders = {
        tuple(shuffled_index(12, seed, stage, i) for i in range(12))
        for seed, stage in [(1, "a"), (2, "a"), (1, "b")]
    }
    assert len(orders) == 3
