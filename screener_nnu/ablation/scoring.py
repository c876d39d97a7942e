"""Scores of teachers and of baselines without learning on synthetic anomalies, as histograms.

All on the plan's grid, where the networks work: the maps of a network are computed once, and a
further density costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from screener_nnu.ablation.anomaly_store import NONE, AnomalyStore
from screener_nnu.ablation.counting import Bins, Counts, ScanVoxels, count_scan
from screener_nnu.ablation.judged import Judged
from screener_nnu.ablation.slices_figure import shown_slice
from screener_nnu.case_score import IMAGE, case_score
from screener_nnu.checkpoints import write_bytes
from screener_nnu.detectors import TEACHER, ModelRef
from screener_nnu.detectors.base import LoadedDetector
from screener_nnu.errors import ScreenerError, some
from screener_nnu.evaluation.baselines import BASELINES, BaselineInput, HuHistogram
from screener_nnu.files import file_sha256
from screener_nnu.inference.map_store import MapStore, maps_folder
from screener_nnu.inference.tiles import needed_cells
from screener_nnu.inference.volume import ScanScores, cells_in_body, map_of_cells, score_scan
from screener_nnu.sampling.spread import spread

_SCANS = 20

#: Of stored counts; raised with every change of what they hold.
_VERSION = 5
#: The case score that is made of a map, beside those of `vector_scores` and `image_scores`.
CASE_SCORE = "case_score"

#: (case, kind, voxels that count) -> what each method says of a scan with such anomalies, on the
#: plan's grid.
ScoreFunction = Callable[[str, str, np.ndarray], dict[str, ScanScores]]
#: Voxels of a scan, and by method their scores (n,) and the case scores.
_Found = tuple[ScanVoxels, dict[str, tuple[np.ndarray, dict[str, float]]]]


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
    path = counts_file(folder, model, anomalies)
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
    path = counts_file(folder, model, anomalies)
    if not path.is_file():
        name = model.trained_plans
        score = _of_positions if loaded.module.by_position else _of_images
        _keep(path, _judge(name, anomalies, score(name, loaded, anomalies, device))[name])
    return Judged.from_file(path)


def counts_file(folder: Path, model: ModelRef, anomalies: AnomalyStore) -> Path:
    """Where the counts of a trained detector are kept."""
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
        name = f"{case}__{kind}_{anomalies.identity_of(case, kind)}"
        painted = cache(lambda: anomalies.paint(case, kind))
        y, c = store.maps(name, lambda kind: painted().image(kind))
        y, c = y.to(device), None if c is None else c.to(device)
        inside = cells_in_body(counted, counted.shape, teacher.cell).to(device)
        needed = torch.from_numpy(needed_cells(counted, teacher.cell, 0)).to(device)
        cells = teacher.score(y, c, needed)[0]
        voxels = map_of_cells(cells, teacher.cell, counted.shape, plan, counted)
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

    Raises:
        ScreenerError: scores of a scan cannot be counted; it is named, and the detector too.
    """
    of_cases: dict[str, list[list[dict[str, float]]]] = {}
    counted: dict[str, dict[str, list[Counts]]] = {}
    slices: dict[str, dict[str, np.ndarray]] = {}
    names = anomalies.names

    def voxels_of(case: str, kind: str) -> _Found:
        with _naming(title, case, kind):
            return _voxels(anomalies, scores, case, kind)

    of_bins = spread(names, _SCANS)
    for kind in (NONE, *anomalies.kinds):
        first = {case: voxels_of(case, kind) for case in dict.fromkeys(of_bins)}
        methods = list(next(iter(first.values()))[1])
        bins = {}
        if kind != NONE:
            for m in methods:
                with _naming(m, some(first), kind):
                    parts = [(found[m][0], scan.annotated) for scan, found in first.values()]
                    bins[m] = Bins.of(parts)
        for method in methods:
            of_cases.setdefault(method, []).append([])
        for case in tqdm(names, desc=f"{title}: {kind}", unit="scan"):
            known = first.pop(case, None)
            scan, found = known or voxels_of(case, kind)
            for method in methods:
                voxels, cases = found[method]
                of_cases[method][-1].append(cases)
                if kind != NONE:
                    of_method = counted.setdefault(method, {}).setdefault(kind, [])
                    with _naming(method, case, kind):
                        of_method.append(count_scan(voxels, scan, bins[method]))
                    if case == names[0]:
                        slices.setdefault(method, {})[kind] = shown_slice(voxels, scan)
    return {
        method: Judged(
            names,
            {kind: np.stack([one.voxels for one in of]) for kind, of in kinds.items()},
            _columns(of_cases[method]),
            {kind: np.stack([one.overlap for one in of]) for kind, of in kinds.items()},
            {kind: tuple(one.froc for one in of) for kind, of in kinds.items()},
            {kind: np.stack([one.changes for one in of]) for kind, of in kinds.items()},
            slices[method],
        )
        for method, kinds in counted.items()
    }


@contextmanager
def _naming(method: str, case: str, kind: str) -> Iterator[None]:
    """Says in a user's error which detector it was, and which scan with which anomalies."""
    try:
        yield
    except ScreenerError as error:
        raise ScreenerError(f"{method} on {case} ({kind}): {error}") from error


def _columns(found: Sequence[Sequence[dict[str, float]]]) -> dict[str, np.ndarray]:
    """Case scores (kinds, scans) by name."""
    return {
        name: np.array([[case.get(name, np.nan) for case in row] for row in found])
        for name in found[0][0]
    }


def _voxels(anomalies: AnomalyStore, scores: ScoreFunction, case: str, kind: str) -> _Found:
    """The voxels that count; their scores and the case scores by method."""
    masks, change = anomalies.masks(case, kind), anomalies.change(case, kind)
    scan = ScanVoxels.of(*masks, change, anomalies.settings.preprocessing)
    found = {}
    for method, of_scan in scores(case, kind, scan.counted).items():
        voxels = of_scan.scores[scan.counted]
        others = {f"{IMAGE}{name}": value for name, value in of_scan.image_scores.items()}
        scores_of_case = {CASE_SCORE: case_score(voxels), **of_scan.vector_scores, **others}
        found[method] = voxels, scores_of_case
    return scan, found
