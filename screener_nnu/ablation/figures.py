"""Figures of an ablation: AUROC for each kind of anomaly and their mean, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from screener_nnu.ablation.scoring import Judged
from screener_nnu.evaluation.metrics import MAX_FPR, area_under_roc, weighted_auroc
from screener_nnu.synthetic.anomalies import KINDS

COLUMNS = (*KINDS, "mean")
_SAMPLES = 1000


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


def table_row(method: str, runs: Sequence[Judged], nll: Sequence[float] = ()) -> Row:
    """Figures of a method from one or several runs that differ by their seed.

    The same scans are drawn for every method and kind, so rows can be compared in pairs.
    """
    full = [_areas(run, 1.0) for run in runs]
    start = [_areas(run, MAX_FPR) for run in runs]
    return Row(
        method,
        _average(full, len(runs[0].cases)),
        _average(start, len(runs[0].cases)),
        tuple(float(run["mean"][0]) for run in full),
        float(np.mean(nll)) if len(nll) else None,
        {
            name: _case_figure([run.case_scores[name] for run in runs])
            for name in runs[0].case_scores
        },
    )


def _case_figure(runs: Sequence[np.ndarray]) -> Figure:
    """AUROC of case scores (1 + kinds, scans) of runs, those without anomalies first."""
    drawn = _draws(runs[0].shape[1])
    none = np.zeros_like(drawn)
    positive, negative = np.hstack([none, drawn]), np.hstack([drawn, none])
    areas = [
        weighted_auroc([*scores[0], *of_kind], positive, negative)
        for scores in runs
        for of_kind in scores[1:]
    ]
    return _figure(np.mean(areas, axis=0), runs[0].shape[1])


def _draws(scans: int) -> np.ndarray:
    """How often each scan counts: all once, then in each bootstrap sample, (1 + samples, scans)."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(scans, np.full(scans, 1 / scans), size=_SAMPLES)
    return np.concatenate([np.ones((1, scans)), drawn])


def difference(run: Judged, first: Judged) -> Figure:
    """Mean AUROC of a run less that of another, with the interval over the same draws of scans."""
    less = _areas(run, 1.0)["mean"] - _areas(first, 1.0)["mean"]
    return _figure(less, len(run.cases))


def _areas(run: Judged, max_fpr: float) -> dict[str, np.ndarray]:
    """The area on all scans, then on each bootstrap sample of them, by column."""
    weights = _draws(len(run.cases))
    areas = {}
    for kind, counts in run.counts.items():
        positive, negative = (weights @ counts[:, side].astype(float) for side in (0, 1))
        areas[kind] = area_under_roc(positive, negative, max_fpr)
    areas["mean"] = np.mean(list(areas.values()), axis=0)
    return areas


def _average(runs: Sequence[Mapping[str, np.ndarray]], scans: int) -> dict[str, Figure]:
    figures = {}
    for column in COLUMNS:
        figures[column] = _figure(np.mean([run[column] for run in runs], axis=0), scans)
    return figures


def _figure(values: np.ndarray, scans: int) -> Figure:
    """A figure on all scans, then on each bootstrap sample of them, with its interval."""
    low = high = None
    if scans > 1:
        low, high = (float(v) for v in np.nanpercentile(values[1:], [2.5, 97.5]))
    return Figure(float(values[0]), low, high)
