from __future__ import annotations

import numpy as np
import pytest

from screener_nnu.evaluation.binning import BinIndex


def make_edges(kind: str, rng: np.random.Generator) -> np.ndarray:
    normal = rng.normal(size=40_000)
    made = {
        "normal": normal,
        "skewed": np.exp(6 * normal),
        "far": 1e4 + 1e-2 * normal,
        "crowded": np.concatenate([1e-3 * normal, [-1e30, 1e30]]),
        "both signs": np.sign(normal) * np.exp(5 * normal),
        "integers": np.arange(-50, 50),
        "one": np.array([0.5]),
        "whole range": np.array([-3.4e38, -1.0, 0.0, 1.0, 3.4e38]),
    }
    return np.unique(made[kind].astype(np.float32))


@pytest.mark.parametrize(
    "kind",
    ["normal", "skewed", "far", "crowded", "both signs", "integers", "one", "whole range"],
)
def test_bins_equal_a_binary_search(kind: str) -> None:
    rng = np.random.default_rng(0)
    edges = make_edges(kind, rng)
    values = np.concatenate(
        [
            edges,
            np.nextafter(edges, np.float32(np.inf)),
            np.nextafter(edges, np.float32(-np.inf)),
            rng.choice(edges, 20_000) * rng.uniform(0.9, 1, 20_000).astype(np.float32),
            np.array([-np.inf, np.inf, 0.0, -0.0, 1e-40, -1e-40], dtype=np.float32),
        ]
    )
    expected = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, None)
    np.testing.assert_array_equal(BinIndex(edges).find(values), expected)


def test_counting_in_chunks_counts_every_value_of_any_shape() -> None:
    rng = np.random.default_rng(1)
    edges = make_edges("normal", rng)
    values = rng.normal(size=(31, 100, 7)).astype(np.float32)
    whole = BinIndex(edges).count(values)
    np.testing.assert_array_equal(BinIndex(edges).count(values, chunk=999), whole)
    assert whole.sum() == values.size
