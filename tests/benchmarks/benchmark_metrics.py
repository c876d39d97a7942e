"""Compares streamed metrics with exact sorting on the same voxels, in one run.

python tests/benchmarks/benchmark_metrics.py --voxels 20000000
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from screener_nnu.evaluation.histograms import CaseHistogram, quantile_edges
from screener_nnu.evaluation.metrics import score_histogram


def main() -> None:
    """Prints both times, their ratio, the rate, and how far the figures differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=20_000_000)
    parser.add_argument("--prevalence", type=float, default=0.005)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    annotated = rng.random(arguments.voxels) < arguments.prevalence
    scores = rng.standard_normal(arguments.voxels, dtype=np.float32)
    scores = 100 + 10 * (scores + np.float32(1.5) * annotated)

    start = time.perf_counter()
    sample = rng.integers(0, scores.size, min(scores.size, 2_000_000))
    positives = scores[np.flatnonzero(annotated)[:2_000_000]]
    edges = quantile_edges([positives, scores[sample][~annotated[sample]]])
    placed = time.perf_counter()
    histogram = CaseHistogram.count("all", scores, annotated, edges)
    counted = time.perf_counter()
    streamed = score_histogram(histogram, edges)
    done = time.perf_counter()

    auroc = float(roc_auc_score(annotated, scores))
    precision = float(average_precision_score(annotated, scores))
    exact = time.perf_counter() - done
    rate = arguments.voxels / (counted - placed)
    print(f"bins {placed - start:.2f} s, count {counted - placed:.2f} s ({rate / 1e6:.0f} M/s)")
    print(f"all streamed metrics {done - start:.2f} s, exact AUROC and AP {exact:.2f} s")
    print(f"exact / streamed = {exact / (done - start):.1f}")
    print(f"AUROC differs by {abs(streamed.auroc - auroc):.1e}")
    print(f"AP differs by {abs(streamed.average_precision / precision - 1):.1e} (relative)")


if __name__ == "__main__":
    main()
