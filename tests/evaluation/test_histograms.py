from __future__ import annotations

import numpy as np
import pytest

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.histograms import (
    BinIndex,
    CaseHistogram,
    merge_histograms,
    quantile_edges,
)


def explicit_counts(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, None)
    return np.bincount(bins, minlength=edges.size)


@pytest.mark.parametrize("chunk", [7, 1000, 1 << 22])
def test_counts_equal_an_explicit_search_also_outside_the_edges(chunk: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=5000).astype(np.float32)
    values[::10] = 0.25
    edges = np.unique(np.append(rng.normal(size=50) * 0.5, 0.25)).astype(np.float32)
    counts = BinIndex(edges).count(values, chunk)
    np.testing.assert_array_equal(counts, explicit_counts(values, edges))
    assert counts[0] > 0 and counts[-1] > 0 and counts.sum() == values.size


def test_a_value_on_an_edge_belongs_to_the_bin_above() -> None:
    edges = np.array([0, 1, 2], dtype=np.float32)
    values = np.array([-5, 0, 1, 1, 2, 9], dtype=np.float32)
    np.testing.assert_array_equal(BinIndex(edges).count(values), [2, 2, 2])


def test_quantiles_spread_each_class_evenly() -> None:
    rng = np.random.default_rng(1)
    annotated = rng.normal(5, 1, 20_000).astype(np.float32)
    other = rng.normal(0, 1, 200_000).astype(np.float32)
    edges = quantile_edges([annotated, other], bins=400)
    assert edges.dtype == np.float32 and (np.diff(edges) > 0).all()
    assert 390 <= edges.size <= 400
    assert BinIndex(edges).count(annotated).max() <= 20_000 / 190
    assert BinIndex(edges).count(other).max() <= 200_000 / 190


def test_tied_value_has_a_bin_of_its_own() -> None:
    rng = np.random.default_rng(2)
    sample = np.concatenate([np.full(5000, 0.5), rng.random(20_000)]).astype(np.float32)
    edges = quantile_edges([sample], bins=100)
    tied = int(np.searchsorted(edges, np.float32(0.5), side="right")) - 1
    ties = int((sample == np.float32(0.5)).sum())
    assert edges[tied] == 0.5
    assert BinIndex(edges).count(sample)[tied] == ties


def test_few_distinct_values_get_a_bin_each_and_constants_one() -> None:
    sample = np.array([3, 1, 1, 2, 3], dtype=np.float32)
    np.testing.assert_array_equal(quantile_edges([sample, sample[:0]]), [1, 2, 3])
    np.testing.assert_array_equal(quantile_edges([np.full(1000, 7.0)], bins=8), [7])
    np.testing.assert_array_equal(quantile_edges([sample], include=[2.5, 9]), [1, 2, 2.5, 3, 9])


def test_edges_refuse_nothing_and_nan() -> None:
    with pytest.raises(ScreenerError, match="finite"):
        quantile_edges([])
    with pytest.raises(ScreenerError, match="finite"):
        quantile_edges([np.array([1.0, np.nan])])


def test_merged_histograms_equal_the_joint_one() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(3, 400)).astype(np.float32)
    annotated = rng.random((3, 400)) < 0.1
    edges = quantile_edges([scores.ravel()], bins=64)
    cases = [CaseHistogram.count(f"case{i}", scores[i], annotated[i], edges) for i in range(3)]
    joint = CaseHistogram.count("joint", scores, annotated, edges)
    chained = merge_histograms([merge_histograms(cases[:2]), cases[2]], "all")
    for merged in (merge_histograms(cases), chained):
        np.testing.assert_array_equal(merged.positive, joint.positive)
        np.testing.assert_array_equal(merged.negative, joint.negative)
    assert chained.case == "all"


def test_merging_does_not_overflow_32_bits() -> None:
    full = np.array([2**32 - 1], dtype=np.uint32)
    half = CaseHistogram("a", full, full)
    assert merge_histograms([half, half]).positive[0] == 2 * (2**32 - 1)


def test_merging_refuses_nothing_and_other_bins() -> None:
    with pytest.raises(ScreenerError, match="no case"):
        merge_histograms([])
    one = CaseHistogram("a", np.zeros(3, int), np.zeros(3, int))
    other = CaseHistogram("b", np.zeros(4, int), np.zeros(4, int))
    with pytest.raises(ScreenerError, match="different bins"):
        merge_histograms([one, other])


def test_nan_is_refused_by_the_name_of_the_case() -> None:
    with pytest.raises(CaseError, match="case7: .*NaN"):
        CaseHistogram.count(
            "case7", np.array([0.0, np.nan]), np.array([True, False]), np.zeros(1, np.float32)
        )


def test_neighbouring_floats_stay_apart() -> None:
    start = np.float32(1.0)
    values = [start]
    for _ in range(999):
        values.append(np.nextafter(values[-1], np.float32(2)))
    sample = np.array(values, dtype=np.float32)
    edges = quantile_edges([sample], bins=500)
    assert BinIndex(edges).count(sample).max() <= 3


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
