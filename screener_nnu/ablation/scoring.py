"""Scores of teachers and of baselines without learning on synthetic anomalies, as histograms.

All on the plan's grid, where the networks work: the maps of a network are computed once, and a
further density costs seconds.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from screener_nnu.ablation.anomaly_store import AnomalyStore
from screener_nnu.checkpoints import write_bytes
from screener_nnu.evaluation.baselines import BASELINES, BaselineInput
from screener_nnu.evaluation.cases import HuHistogram
from screener_nnu.evaluation.histograms import CaseHistogram, quantile_edges
from screener_nnu.inference.map_store import MapStore
from screener_nnu.inference.models import load_teacher
from screener_nnu.inference.sliding_window import cells_to_voxels
from screener_nnu.paths import finished_checkpoint
from screener_nnu.synthetic.anomalies import KINDS

_BINS = 4096
_SAMPLE = 200_000

#: (case, kind) -> scores (D, H, W) on the plan's grid, higher is more anomalous.
ScoreFunction = Callable[[str, str], np.ndarray]


@dataclass(frozen=True)
class Judged:
    """Counts of one method.

    Attributes:
        cases: names of the scans.
        counts: annotated and other voxels a bin, (scans, 2, K), by kind of anomaly.
    """

    cases: tuple[str, ...]
    counts: dict[str, np.ndarray]

    def to_bytes(self) -> bytes:
        """A compressed NumPy archive."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"cases": np.array(self.cases), **self.counts}
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_file(cls, path: Path) -> Judged:
        """Reads what `to_bytes` gave."""
        with np.load(path) as stored:
            counts = {kind: stored[kind] for kind in KINDS}
            return cls(tuple(str(case) for case in stored["cases"]), counts)


def judge_baselines(
    anomalies: AnomalyStore, histogram: HuHistogram, folder: Path
) -> dict[str, Judged]:
    """Counts of every baseline without learning, kept in `folder`."""

    def make(name: str) -> Judged:
        return _judge(name, anomalies, _baseline(name, anomalies, histogram))

    return {
        name: _kept(folder / f"{name}_{anomalies.identity}.npz", partial(make, name))
        for name in BASELINES
    }


def judge_teacher(
    dataset: str, plans_name: str, anomalies: AnomalyStore, device: torch.device, folder: Path
) -> Judged:
    """Counts of the teacher of a plan; those of the same weights are read from `folder`."""
    checkpoint = finished_checkpoint(dataset, "density", plans_name)
    weights = hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12]
    path = folder / f"{plans_name}_{weights}_{anomalies.identity}.npz"
    return _kept(
        path,
        lambda: _judge(plans_name, anomalies, _teacher(dataset, plans_name, anomalies, device)),
    )


def _kept(path: Path, make: Callable[[], Judged]) -> Judged:
    if path.is_file():
        return Judged.from_file(path)
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, made.to_bytes())
    return made


def _teacher(
    dataset: str, plans_name: str, anomalies: AnomalyStore, device: torch.device
) -> ScoreFunction:
    teacher, plan, _ = load_teacher(dataset, plans_name, device)
    folder = anomalies.cases.folder
    store = MapStore(folder.with_name(f"{folder.name}_maps"), teacher.features, plan, device)

    def scores(case: str, kind: str) -> np.ndarray:
        name = f"{case}__{kind}_{anomalies.identity}"
        y, c = store.maps(name, lambda: torch.from_numpy(anomalies.paint(case, kind).equalised))
        cells = teacher.score(y.to(device), None if c is None else c.to(device))[0]
        shape = anomalies.cases.shape(case, "hu")
        return cells_to_voxels(cells, teacher.cell, (0, 0, 0), shape).cpu().numpy()

    return scores


def _baseline(name: str, anomalies: AnomalyStore, histogram: HuHistogram) -> ScoreFunction:
    def scores(case: str, kind: str) -> np.ndarray:
        made = anomalies.paint(case, kind)
        spacing = anomalies.settings.preprocessing.spacing
        given = BaselineInput(made.hu, made.body, spacing, histogram.edges, histogram.counts)
        return BASELINES[name](given)

    return scores


def _judge(title: str, anomalies: AnomalyStore, scores: ScoreFunction) -> Judged:
    """Counts the scores of the voxels of body and anomalies."""
    counts: dict[str, np.ndarray] = {}
    with tqdm(total=len(KINDS) * len(anomalies.names), desc=title, unit="scan") as bar:
        for kind in KINDS:
            parts = []
            for case in anomalies.names:
                mask, counted = anomalies.masks(case, kind)
                parts.append((scores(case, kind)[counted], mask[counted]))
                bar.update()
            edges = _edges(parts)
            found = (CaseHistogram.count("", *part, edges) for part in parts)
            counts[kind] = np.stack([[h.positive, h.negative] for h in found])
    return Judged(anomalies.names, counts)


def _edges(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Bins by quantiles of the annotated and of the other voxels."""
    rng = np.random.default_rng(0)
    samples = []
    for wanted in (True, False):
        values = np.concatenate([scores[mask == wanted] for scores, mask in parts])
        chosen = rng.choice(values, _SAMPLE, replace=False) if values.size > _SAMPLE else values
        samples.append(chosen)
    return quantile_edges(samples, _BINS)
