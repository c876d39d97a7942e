"""Measures how the mean shift's scores depend on the share of anomalies in the batch.

The cohort mode moves test vectors together, so that anomalies support each other. Here the same
training vectors score batches with many, few and very few anomalies, in cohort mode and with a
plain Gaussian on the same batches. Needs nothing but scikit-learn's bundled sets.

python tests/benchmarks/study_prevalence.py --seeds 10
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from screener_nnu.densities.vector_scores import COHORT, VectorScores, VectorScoreSettings

#: Share of the normals that is trained on.
TRAINED = 0.6
#: Batches of a seed, by what the share is called: rare anomalies need more draws.
DRAWS = {"many": 1, "few": 3, "very few": 10}
ONE_MODEL = ("plain", "distance", "knn", "gaussian", "displacement", "rank_mean")


@dataclass(frozen=True)
class Dataset:
    """Vectors, which of them are anomalies, and the shares of anomalies to look at."""

    name: str
    vectors: np.ndarray
    abnormal: np.ndarray
    shares: dict[str, float]


def datasets() -> list[Dataset]:
    """The bundled sets: digits that were never trained on, and malignant among benign tumours."""
    digits = load_digits()
    shares = {"many": 0.38, "few": 0.06, "very few": 0.005}
    sets = [
        Dataset(
            f"digits, anomalies {{{a}, {b}}}", digits.data, np.isin(digits.target, (a, b)), shares
        )
        for a, b in ((1, 8), (5, 9))
    ]
    cancer = load_breast_cancer()
    shares = {"many": 0.5, "few": 0.09, "very few": 0.01}
    return [*sets, Dataset("breast cancer", cancer.data, cancer.target == 0, shares)]


@dataclass(frozen=True)
class Split:
    """One random split of a set: a model of normals, and batches to score."""

    train: torch.Tensor
    normals: torch.Tensor
    anomalies: torch.Tensor
    generator: np.random.Generator

    @classmethod
    def draw(cls, data: Dataset, seed: int) -> Split:
        """Splits the normals and mixes the anomalies."""
        generator = np.random.default_rng(seed)
        normals = generator.permutation(data.vectors[~data.abnormal])
        anomalies = generator.permutation(data.vectors[data.abnormal])
        cut = int(TRAINED * len(normals))
        parts = (normals[:cut], normals[cut:], anomalies)
        return cls(*(torch.tensor(part, dtype=torch.float32) for part in parts), generator)

    def batches(self, share: float, draws: int) -> Iterator[torch.Tensor]:
        """All held-out normals, and drawn anomalies behind them."""
        wanted = round(share / (1 - share) * len(self.normals))
        for _ in range(draws):
            drawn = self.generator.permutation(len(self.anomalies))[: max(wanted, 1)]
            yield torch.cat([self.normals, self.anomalies[drawn]])

    def auroc(self, scores: torch.Tensor) -> float:
        """Of a batch."""
        abnormal = np.arange(len(scores)) >= len(self.normals)
        return float(roc_auc_score(abnormal, scores.numpy()))


def fitted(split: Split, **settings: str) -> VectorScores:
    """The scores of the training vectors."""
    scores = VectorScores(split.train.shape[1], VectorScoreSettings(**settings))  # type: ignore
    scores.fit(split.train)
    return scores


def reference_figures(split: Split, **settings: str) -> dict[str, float]:
    """AUROC of each column that looks at one vector at a time, on all held-out vectors."""
    columns = fitted(split, **settings).score(torch.cat([split.normals, split.anomalies]))
    return {name: split.auroc(columns[name]) for name in ONE_MODEL}


def cohort_figures(
    split: Split, share: float, draws: int, **settings: str
) -> tuple[float, float, float]:
    """Mean AUROC over batches: cohort mode, plain Gaussian, reference displacement."""
    scores = fitted(split, **settings)
    rows = []
    for batch in split.batches(share, draws):
        cohort, alone = scores.score(batch, COHORT), scores.score(batch)
        columns = (cohort["gaussian"], cohort["plain"], alone["displacement"])
        rows.append([split.auroc(column) for column in columns])
    first, second, third = np.mean(rows, axis=0)
    return first, second, third


def interval(values: list[float]) -> str:
    """Mean and 95 % interval over seeds."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return f"{np.mean(values):.3f} ± {half:.3f}"


def study(seeds: int) -> Iterator[str]:
    """The lines of two Markdown tables."""
    one, many = defaultdict(list), defaultdict(list)
    for data in datasets():
        for seed in tqdm(range(seeds), desc=data.name):
            for weights in ("blocks", "uniform"):
                figures = reference_figures(Split.draw(data, seed), weights=weights)
                for name, figure in figures.items():
                    one[data.name, weights, name].append(figure)
                for mix, share in data.shares.items():
                    split = Split.draw(data, seed)
                    figures = cohort_figures(split, share, DRAWS[mix], weights=weights)
                    many[data.name, weights, mix, share].append(figures)
    yield f"AUROC, mean ± half of a 95 % interval over {seeds} seeds (0 to {seeds - 1})."
    yield ""
    yield "| data | weights | " + " | ".join(ONE_MODEL) + " |"
    yield "|---" * (2 + len(ONE_MODEL)) + "|"
    for name, weights in dict.fromkeys(key[:2] for key in one):
        cells = [interval(one[name, weights, column]) for column in ONE_MODEL]
        yield f"| {name} | {weights} | " + " | ".join(cells) + " |"
    yield ""
    yield "| data | weights | share | cohort | plain | cohort - plain | reference displacement |"
    yield "|---|---|---|---|---|---|---|"
    for (name, weights, mix, share), rows in many.items():
        cohort, plain, alone = (list(column) for column in zip(*rows, strict=True))
        gain = [a - b for a, b in zip(cohort, plain, strict=True)]
        cells = [interval(values) for values in (cohort, plain, gain, alone)]
        yield f"| {name} | {weights} | {mix}, {share:.1%} | " + " | ".join(cells) + " |"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    # Each batch says that its scores depend on it, which is what is studied.
    logging.disable(logging.WARNING)
    for line in study(arguments.seeds):
        print(line)


if __name__ == "__main__":
    main()
