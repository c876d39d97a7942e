"""Figures of counted scores on each kind of anomaly and their mean, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from screener_nnu.ablation.counting import CHANGE_CLASSES
from screener_nnu.ablation.judged import Judged
from screener_nnu.evaluation.froc import froc_figures, sensitivity_name
from screener_nnu.evaluation.metrics import (
    MAX_FPR,
    METRICS,
    area_under_roc,
    weighted_auroc,
)

MEAN = "mean"
AUROC = "auroc"
FPR30 = "auroc_fpr30"
SENSITIVITY = sensitivity_name(1.0)
_SAMPLES = 1000
# Bootstrap samples that are summed at a time: they stay in the cache.
_BATCH = 64


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % bootstrap interval over scans; a single scan gives none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        method: name of the cell or baseline.
        auroc, auroc_fpr30: voxel AUROC, and up to a false positive rate of 0.3, by kind and for
            `mean`; averaged over seeds.
        seeds: mean AUROC of each seed.
        nll: held-out negative log-likelihood (nats), averaged over seeds; None for baselines.
        case_auroc: scans with anomalies of a kind against the same scans without, the mean over
            the kinds, by name of the case score; averaged over seeds.
    """

    method: str
    auroc: dict[str, Figure]
    auroc_fpr30: dict[str, Figure]
    seeds: tuple[float, ...]
    nll: float | None = None
    case_auroc: dict[str, Figure] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Kinds of anomalies, and `mean`."""
        return tuple(self.auroc)


#: Figure on all scans, then on each bootstrap sample of them, (1 + samples,), by column.
Draws = dict[str, np.ndarray]


class _Sums(NamedTuple):
    """Counts of a kind of anomaly, summed over drawn scans (samples, K); the draws themselves."""

    positive: np.ndarray
    negative: np.ndarray
    run: Judged
    kind: str
    weights: np.ndarray


_Metric = Callable[[_Sums], np.ndarray]


def _of_voxels(function: Callable[..., np.ndarray]) -> _Metric:
    return lambda sums: function(sums.positive, sums.negative)


def _of_regions(sums: _Sums) -> np.ndarray:
    regions = sums.weights @ sums.run.overlaps[sums.kind]
    return area_under_roc(regions, sums.negative, MAX_FPR)


def _sensitivity(sums: _Sums) -> np.ndarray:
    return froc_figures(sums.run.froc[sums.kind], sums.weights)[SENSITIVITY]


#: Figures of voxels and anomalies that a comparison lists beside AUROC: title and function.
FURTHER: dict[str, tuple[str, _Metric]] = {
    FPR30: ("AUROC@0.3", _of_voxels(METRICS[FPR30].function)),
    "aupro_fpr30": ("AUPRO@0.3", _of_regions),
    "average_precision": ("AP", _of_voxels(METRICS["average_precision"].function)),
    "best_dice": ("best Dice", _of_voxels(METRICS["best_dice"].function)),
    SENSITIVITY: ("found at 1 FP", _sensitivity),
}
_FUNCTIONS = {AUROC: _of_voxels(area_under_roc)} | {name: f for name, (_, f) in FURTHER.items()}


@dataclass(frozen=True)
class Drawn:
    """What figures need of a judged run; its counts, which are large, are not kept.

    Attributes:
        cases: names of the scans.
        case_scores: see `Judged`.
        draws: figures of voxels and anomalies by name, on the same draws of scans for every run.
        changes: see `change_draws`; empty where they were not asked for.
        shares: of all anomalous voxels, those of each class of change.
    """

    cases: tuple[str, ...]
    case_scores: dict[str, np.ndarray]
    draws: dict[str, Draws]
    changes: Draws
    shares: dict[str, float]

    @classmethod
    def of(
        cls, run: Judged, names: Sequence[str] = tuple(_FUNCTIONS), by_change: bool = True
    ) -> Drawn:
        """Draws scans and computes figures, `auroc` or of `FURTHER`, and those by change."""
        changes, shares = change_draws(run) if by_change else ({}, {})
        return cls(run.cases, run.case_scores, draws_of(run, names), changes, shares)


def draws_of(run: Judged, names: Sequence[str]) -> dict[str, Draws]:
    """Figures by name, on the same draws of scans for every run.

    The counts of a kind are summed over drawn scans once for all figures.
    """
    weights, which = _weights(len(run.cases))
    found: dict[str, Draws] = {name: {} for name in names}
    for kind in run.kinds:
        counts = run.counts[kind].astype(float)
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for start in range(0, len(weights), _BATCH):
            part = weights[start : start + _BATCH]
            sums = _Sums(part @ counts[:, 0], part @ counts[:, 1], run, kind, part)
            for name in names:
                parts[name].append(_FUNCTIONS[name](sums))
        for name in names:
            found[name][kind] = np.concatenate(parts[name])[which]
    return {
        name: {**of_kinds, MEAN: np.mean(list(of_kinds.values()), axis=0)}
        for name, of_kinds in found.items()
    }


def change_draws(run: Judged) -> tuple[Draws, dict[str, float]]:
    """Voxel AUROC by how much anomalous voxels have changed, on the same draws of scans.

    Of each class against all other voxels of the body; the mean over the kinds of anomalies,
    weighted by their voxels of that class. Classes without a voxel are left out.

    Returns:
        Draws by class, and the share of all anomalous voxels that is in each.
    """
    weights, which = _weights(len(run.cases))
    areas, sizes = np.zeros((2, len(CHANGE_CLASSES), len(weights)))
    for kind, changes in run.changes.items():
        negative = weights @ run.counts[kind][:, 1].astype(float)
        for number in range(len(CHANGE_CLASSES)):
            positive = weights @ changes[:, number].astype(float)
            size = positive.sum(axis=1)
            areas[number] += np.where(size > 0, area_under_roc(positive, negative), 0) * size
            sizes[number] += size
    means = np.divide(areas, sizes, out=np.full_like(areas, np.nan), where=sizes > 0)[:, which]
    of_all = sizes[:, which[0]]
    known = {name: number for number, name in enumerate(CHANGE_CLASSES) if of_all[number]}
    shares = {name: float(of_all[n] / of_all.sum()) for name, n in known.items()}
    return {name: means[number] for name, number in known.items()}, shares


def auroc_draws(run: Judged) -> Draws:
    """Voxel AUROC on the same draws of scans for every run."""
    return draws_of(run, [AUROC])[AUROC]


def averaged(runs: Sequence[Draws], scans: int) -> dict[str, Figure]:
    """Figures by column, the mean over runs."""
    return {
        column: figure_of(np.mean([run[column] for run in runs], axis=0), scans)
        for column in runs[0]
    }


def table_row(method: str, runs: Sequence[Judged], nll: Sequence[float] = ()) -> Row:
    """Figures of a method from one or several runs that differ by their seed.

    The same scans are drawn for every method and kind, so rows can be compared in pairs.
    """
    return row_of(method, [Drawn.of(run, (AUROC, FPR30), by_change=False) for run in runs], nll)


def row_of(method: str, runs: Sequence[Drawn], nll: Sequence[float] = ()) -> Row:
    """The same from runs whose scans were drawn."""
    full = [run.draws[AUROC] for run in runs]
    return Row(
        method,
        averaged(full, len(runs[0].cases)),
        averaged([run.draws[FPR30] for run in runs], len(runs[0].cases)),
        tuple(float(run[MEAN][0]) for run in full),
        float(np.mean(nll)) if len(nll) else None,
        {
            name: _case_figure([run.case_scores[name] for run in runs])
            for name in runs[0].case_scores
        },
    )


def _case_figure(runs: Sequence[np.ndarray]) -> Figure:
    """AUROC of case scores (1 + kinds, scans) of runs, those without anomalies first."""
    if not all(np.isfinite(scores).all() for scores in runs):
        # A scan whose score is not defined has no place in an order.
        return Figure(np.nan, None, None)
    drawn, which = _weights(runs[0].shape[1])
    none = np.zeros_like(drawn)
    positive, negative = np.hstack([none, drawn]), np.hstack([drawn, none])
    areas = [
        weighted_auroc([*scores[0], *of_kind], positive, negative)
        for scores in runs
        for of_kind in scores[1:]
    ]
    return figure_of(np.mean(areas, axis=0)[which], runs[0].shape[1])


def _weights(scans: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each scan counts, of all once and of bootstrap samples; few scans repeat them.

    Returns:
        Samples that differ (n, scans), and which of them each draw is, (1 + samples,), all scans
        first.
    """
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(scans, np.full(scans, 1 / scans), size=_SAMPLES)
    draws = np.concatenate([np.ones((1, scans)), drawn])
    weights, which = np.unique(draws, axis=0, return_inverse=True)
    return weights, which.reshape(-1)


def less(runs: Sequence[Draws], first: Sequence[Draws], scans: int) -> Figure:
    """Mean of a figure over kinds and runs less that of another method, on the same draws."""
    means = [np.mean([run[MEAN] for run in group], axis=0) for group in (runs, first)]
    return figure_of(means[0] - means[1], scans)


def figure_of(values: np.ndarray, scans: int) -> Figure:
    """A figure on all scans, then on each bootstrap sample of them, with its interval."""
    low = high = None
    if scans > 1 and np.isfinite(values[1:]).any():
        low, high = (float(v) for v in np.nanpercentile(values[1:], [2.5, 97.5]))
    return Figure(float(values[0]), low, high)
