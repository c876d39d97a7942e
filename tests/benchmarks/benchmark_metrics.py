"""Measures the streamed metrics in processor time, and compares them with exact sorting.

python tests/benchmarks/benchmark_metrics.py --voxels 20000000
python tests/benchmarks/benchmark_metrics.py --voxels 1000000000 --exact_voxels 0
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from screener_nnu.case_score import case_score
from screener_nnu.evaluation.froc import count_froc, least_voxels, place_thresholds
from screener_nnu.evaluation.histograms import (
    BinIndex,
    CaseHistogram,
    merge_histograms,
    quantile_edges,
)
from screener_nnu.evaluation.lesions import LesionHistograms, find_lesions
from screener_nnu.evaluation.metrics import MAX_FPR, area_under_roc, score_histogram

SPACING = (1.5, 1.5, 1.5)


def make_scan(
    shape: tuple[int, int, int], prevalence: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth scores about 100 as of an anomaly map, and round lesions with higher ones."""
    rng = np.random.default_rng(seed)
    scores = ndimage.uniform_filter(rng.standard_normal(shape, dtype=np.float32), 3)
    scores /= scores.std()
    annotation = np.zeros(shape, dtype=bool)
    grid = np.ogrid[-6:7, -6:7, -6:7]
    ball = sum(axis**2 for axis in grid) <= 36
    for _ in range(max(int(prevalence * annotation.size / ball.sum()), 1)):
        corner = [int(rng.integers(0, size - 13)) for size in shape]
        annotation[tuple(slice(start, start + 13) for start in corner)] |= ball
    return 100 + 10 * (scores + np.float32(1.5) * annotation), annotation


def main() -> None:
    """Prints the time of each part, the rate, and how far the figures are from exact ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=20_000_000)
    parser.add_argument("--exact_voxels", type=int, default=20_000_000, help="sorted exactly")
    parser.add_argument("--prevalence", type=float, default=0.005)
    arguments = parser.parse_args()
    # One scan is counted over and over: a billion voxels need not be held to be counted.
    shape = (200, 256, 256)
    volume, annotation = make_scan(shape, arguments.prevalence, 0)
    repeats = max(round(arguments.voxels / volume.size), 1)
    scores, annotated = volume.ravel(), annotation.ravel()
    rng = np.random.default_rng(0)
    sample = rng.integers(0, scores.size, 2_000_000)

    def timed(title: str, times: int = 1) -> None:
        nonlocal start
        spent = (time.process_time() - start) / times
        rate = scores.size / spent / 1e6
        print(f"{title:42s} {spent:7.2f} s a scan, {rate:6.0f} M voxels/s", flush=True)
        start = time.process_time()

    print(f"{repeats} scans of {scores.size / 1e6:.1f} M voxels, processor time of one core")
    start = time.process_time()
    edges = quantile_edges([scores[annotated], scores[sample][~annotated[sample]]])
    timed("bins placed")
    counted = [CaseHistogram.count("scan", scores, annotated, edges) for _ in range(repeats)]
    timed("voxels counted", repeats)
    lesions = find_lesions(annotation)
    histograms = LesionHistograms.count(lesions, BinIndex(edges).find(scores[annotated]))
    timed(f"{lesions.sizes.size} lesions labelled and counted")
    thresholds = place_thresholds(scores[~annotated], np.ones(int((~annotated).sum())))
    start = time.process_time()
    body = np.ones(shape, dtype=bool)
    count_froc(scores, body, annotated, lesions, thresholds, least_voxels(30, SPACING))
    timed(f"FROC at {thresholds.size} thresholds")
    case_score(scores)
    timed("score of the case")
    pooled = merge_histograms(counted)
    streamed = score_histogram(pooled, edges)
    area_under_roc(histograms.overlap(edges.size), pooled.negative, MAX_FPR)
    print(f"all figures of the histograms {time.process_time() - start:.2f} s")
    if arguments.exact_voxels:
        compare(scores[: arguments.exact_voxels], annotated[: arguments.exact_voxels])
    print(f"AUROC {streamed['auroc']:.4f}, AP {streamed['average_precision']:.4f}")
    compare_areas(rng)


def compare_areas(rng: np.random.Generator, draws: int = 100, bins: int = 5000) -> None:
    """AUROC of bootstrap samples as a share of pairs, and along the curve up to all but a rate."""
    positive, negative = rng.integers(0, (5, 50), (draws, bins, 2)).astype(float).transpose(2, 0, 1)
    found, spent = [], []
    for max_fpr in (1.0, 1.0 - 1e-12):
        start = time.process_time()
        found.append([area_under_roc(positive, negative, max_fpr) for _ in range(10)][0])
        spent.append(time.process_time() - start)
    apart = np.abs(found[0] - found[1]).max()
    faster = spent[1] / spent[0]
    print(f"AUROC of {draws} samples: pairs {faster:.1f} times as fast, {apart:.0e} from the curve")


def compare(scores: np.ndarray, annotated: np.ndarray) -> None:
    """Compares the streamed figures of some voxels with scikit-learn's."""
    start = time.process_time()
    edges = quantile_edges([scores[annotated], scores[~annotated][::10]])
    streamed = score_histogram(CaseHistogram.count("some", scores, annotated, edges), edges)
    middle = time.process_time()
    auroc = float(roc_auc_score(annotated, scores))
    precision = float(average_precision_score(annotated, scores))
    end = time.process_time()
    print(f"{scores.size / 1e6:.1f} M voxels: streamed {middle - start:.2f} s, ", end="")
    print(f"scikit-learn {end - middle:.2f} s")
    print(f"AUROC differs by {abs(streamed['auroc'] - auroc):.1e}")
    print(f"AP differs by {abs(streamed['average_precision'] / precision - 1):.1e} (relative)")


if __name__ == "__main__":
    main()
