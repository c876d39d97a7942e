"""Scores of teachers and of baselines without learning on synthetic anomalies, as histograms.

All on the plan's grid, where the networks work: the maps of a network are computed once, and a
further density costs seconds.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from screener_nnu.ablation.anomaly_store import NONE, AnomalyStore
from screener_nnu.case_score import IMAGE, case_score
from screener_nnu.checkpoints import write_bytes
from screener_nnu.detectors import TEACHER, ModelRef
from screener_nnu.detectors.base import LoadedDetector
from screener_nnu.evaluation.baselines import BASELINES, BaselineInput, HuHistogram
from screener_nnu.evaluation.histograms import CaseHistogram, quantile_edges
from screener_nnu.files import file_sha256
from screener_nnu.inference.map_store import MapStore, maps_folder
from screener_nnu.inference.sliding_window import cells_to_voxels
from screener_nnu.inference.tiles import needed_cells
from screener_nnu.inference.volume import ScanScores, cells_in_body, score_scan
from screener_nnu.sampling.spread import spread
from screener_nnu.synthetic.anomalies import KINDS

_BINS = 4096
_SAMPLE = 200_000
_SCANS = 20
_SCORES = "score_"

#: Of stored counts; raised with every change of what they hold.
_VERSION = 2
#: The case score that is made of a map, beside those of `vector_scores` and `image_scores`.
CASE_SCORE = "case_score"

#: (case, kind, voxels that count) -> what each method says of a scan with such anomalies, on the
#: plan's grid.
ScoreFunction = Callable[[str, str, np.ndarray], dict[str, ScanScores]]


@dataclass(frozen=True)
class Judged:
    """Counts of one method.

    Attributes:
        cases: names of the scans.
        counts: annotated and other voxels a bin, (scans, 2, K), by kind of anomaly.
        case_scores: by name, of each scan without anomalies, then with each kind,
            (1 + kinds, scans).
    """

    cases: tuple[str, ...]
    counts: dict[str, np.ndarray]
    case_scores: dict[str, np.ndarray] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """A compressed NumPy archive."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"cases": np.array(self.cases), **self.counts}
        arrays |= {f"{_SCORES}{name}": values for name, values in self.case_scores.items()}
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_file(cls, path: Path) -> Judged:
        """Reads what `to_bytes` gave."""
        with np.load(path) as stored:
            counts = {kind: stored[kind] for kind in KINDS}
            scores = {k.removeprefix(_SCORES): stored[k] for k in stored if k.startswith(_SCORES)}
            return cls(tuple(str(case) for case in stored["cases"]), counts, scores)


def judge_baselines(
    anomalies: AnomalyStore, histogram: HuHistogram, folder: Path
) -> dict[str, Judged]:
    """Counts of every baseline without learning, kept in `folder`."""
    paths = {name: folder / f"{name}_{anomalies.identity}_{_VERSION}.npz" for name in BASELINES}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        made = _judge("baselines", anomalies, _baselines(missing, anomalies, histogram))
        for name, judged in made.items():
            _keep(paths[name], judged)
    return {name: Judged.from_file(path) for name, path in paths.items()}


def judge_teacher(
    dataset: str, plans_name: str, anomalies: AnomalyStore, device: torch.device, folder: Path
) -> Judged:
    """Counts of the teacher of a plan; those of the same weights are read from `folder`."""
    model = ModelRef(dataset, plans_name, TEACHER)
    path = _counts_file(folder, model, anomalies)
    if path.is_file():
        return Judged.from_file(path)
    return judge_detector(model, model.load(device), anomalies, device, folder)


def judge_detector(
    model: ModelRef,
    loaded: LoadedDetector,
    anomalies: AnomalyStore,
    device: torch.device,
    folder: Path,
) -> Judged:
    """Counts of a trained detector; those of the same weights are read from `folder`."""
    path = _counts_file(folder, model, anomalies)
    if not path.is_file():
        name = model.trained_plans
        score = _of_positions if loaded.module.by_position else _of_images
        _keep(path, _judge(name, anomalies, score(name, loaded, anomalies, device))[name])
    return Judged.from_file(path)


def _counts_file(folder: Path, model: ModelRef, anomalies: AnomalyStore) -> Path:
    weights = file_sha256(model.file)[:12]
    kind = "" if model.stage == "density" else f"_{model.detector}"
    return folder / f"{model.trained_plans}{kind}_{weights}_{anomalies.identity}_{_VERSION}.npz"


def _keep(path: Path, judged: Judged) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, judged.to_bytes())


def _of_images(
    name: str, loaded: LoadedDetector, anomalies: AnomalyStore, device: torch.device
) -> ScoreFunction:
    """Scores of a detector that sees images."""

    def scores(case: str, kind: str, counted: np.ndarray) -> dict[str, ScanScores]:
        made = anomalies.paint(case, kind)
        images = made.hu, made.equalised
        return {name: score_scan(loaded.module, *images, loaded.plan, device, counted)}

    return scores


def _of_positions(
    plans_name: str, loaded: LoadedDetector, anomalies: AnomalyStore, device: torch.device
) -> ScoreFunction:
    """Scores of a detector that sees pooled maps, which are computed once for all of a network."""
    teacher, plan, _ = loaded
    store = MapStore(maps_folder(anomalies.cases.folder), teacher.features, plan, device)

    def scores(case: str, kind: str, counted: np.ndarray) -> dict[str, ScanScores]:
        name = f"{case}__{kind}_{anomalies.identity}"
        painted = cache(lambda: anomalies.paint(case, kind))
        y, c = store.maps(name, lambda kind: painted().image(kind))
        y, c = y.to(device), None if c is None else c.to(device)
        inside = cells_in_body(counted, counted.shape, teacher.cell).to(device)
        needed = torch.from_numpy(needed_cells(counted, teacher.cell, 0)).to(device)
        cells = teacher.score(y, c, needed)[0]
        voxels = cells_to_voxels(cells, teacher.cell, (0, 0, 0), counted.shape).cpu().numpy()
        return {plans_name: ScanScores(voxels, teacher.vector_scores(y, inside))}

    return scores


def _baselines(
    names: Sequence[str], anomalies: AnomalyStore, histogram: HuHistogram
) -> ScoreFunction:
    def scores(case: str, kind: str, _: np.ndarray) -> dict[str, ScanScores]:
        made = anomalies.paint(case, kind)
        spacing = anomalies.settings.preprocessing.spacing
        given = BaselineInput(made.grey, made.body, spacing, histogram.edges, histogram.counts)
        return {name: ScanScores(BASELINES[name](given), {}) for name in names}

    return scores


def _judge(title: str, anomalies: AnomalyStore, scores: ScoreFunction) -> dict[str, Judged]:
    """Counts the scores of the voxels of body and anomalies, a scan at a time.

    Bins are placed by the scores of a few scans, which are kept until they are counted.
    """
    counts: dict[str, dict[str, np.ndarray]] = {}
    of_cases: dict[str, list[list[dict[str, float]]]] = {}
    names = anomalies.names
    some = spread(names, _SCANS)
    for kind in (NONE, *KINDS):
        first = {case: _voxels(anomalies, scores, case, kind) for case in dict.fromkeys(some)}
        methods = list(next(iter(first.values()))[1])
        edges = {}
        if kind != NONE:
            edges = {
                m: _edges([(found[m][0], mask) for mask, found in first.values()]) for m in methods
            }
        rows: dict[str, list[list[np.ndarray]]] = {method: [] for method in methods}
        for method in methods:
            of_cases.setdefault(method, []).append([])
        for case in tqdm(names, desc=f"{title}: {kind}", unit="scan"):
            known = first.pop(case, None)
            mask, found = known or _voxels(anomalies, scores, case, kind)
            for method in methods:
                voxels, cases = found[method]
                of_cases[method][-1].append(cases)
                if kind != NONE:
                    counted = CaseHistogram.count("", voxels, mask, edges[method])
                    rows[method].append([counted.positive, counted.negative])
        for method in methods if kind != NONE else ():
            counts.setdefault(method, {})[kind] = np.stack([np.stack(row) for row in rows[method]])
    return {
        method: Judged(names, of_kinds, _columns(of_cases[method]))
        for method, of_kinds in counts.items()
    }


def _columns(found: Sequence[Sequence[dict[str, float]]]) -> dict[str, np.ndarray]:
    """Case scores (kinds, scans) by name."""
    return {
        name: np.array([[case.get(name, np.nan) for case in row] for row in found])
        for name in found[0][0]
    }


def _voxels(
    anomalies: AnomalyStore, scores: ScoreFunction, case: str, kind: str
) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, dict[str, float]]]]:
    """Which of the voxels that count are anomalous; their scores and the case scores by method."""
    mask, counted = anomalies.masks(case, kind)
    found = {}
    for method, of_scan in scores(case, kind, counted).items():
        voxels = of_scan.scores[counted]
        others = {f"{IMAGE}{name}": value for name, value in of_scan.image_scores.items()}
        scores_of_case = {CASE_SCORE: case_score(voxels), **of_scan.vector_scores, **others}
        found[method] = voxels, scores_of_case
    return mask[counted], found


def _edges(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Bins by quantiles of the annotated and of the other voxels."""
    rng = np.random.default_rng(0)
    samples = []
    for wanted in (True, False):
        values = np.concatenate([scores[mask == wanted] for scores, mask in parts])
        chosen = rng.choice(values, _SAMPLE, replace=False) if values.size > _SAMPLE else values
        samples.append(chosen)
    return quantile_edges(samples, _BINS)
