"""Which figure of a scan's scores tells a scan with an anomaly from other scans without one.

python tests/benchmarks/benchmark_case_score.py 901 PLANS [--teacher] [--painted]

On the plan's validation scans, each as it is and with an anomaly. AUROC compares a scan with an
anomaly with other scans without: anatomy and field of view differ, as in practice. An anomaly is so
many ml of the body whose scores are lifted to a high percentile of the other scans: one that the
model finds. With --painted it is painted into the HU, and the model may miss it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from screener_nnu.calibration.scans import load_predictor
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import CaseError
from screener_nnu.inference.volume import score_map
from screener_nnu.paths import cases_folder, dataset_name
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.cases import anomalous_case


def above_volume(scores: np.ndarray, voxel_ml: float, volume_ml: float) -> float:
    """The score above which so many ml of the body lie."""
    kept = min(max(round(volume_ml / voxel_ml), 1), scores.size)
    return float(np.partition(scores, scores.size - kept)[scores.size - kept])


def figures() -> dict[str, Callable[[np.ndarray, float], float]]:
    """Candidates by name; of the body's scores and the volume of a voxel (ml)."""
    made: dict[str, Callable[[np.ndarray, float], float]] = {
        "mean": lambda scores, _: float(scores.mean())
    }
    for percentile in (95, 99, 99.5, 99.9, 99.95, 99.99, 100):
        made[f"p{percentile}"] = lambda s, _, p=percentile: float(np.percentile(s, p))
    for volume in (0.5, 1.0, 5.0, 20.0):
        made[f"{volume:g} ml"] = partial(above_volume, volume_ml=volume)
    return made


def auroc(clean: np.ndarray, ill: np.ndarray) -> float:
    """Share of pairs of different scans whose order is right."""
    right = (ill[:, None] > clean[None]) + 0.5 * (ill[:, None] == clean[None])
    return float(right[~np.eye(clean.size, dtype=bool)].mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("plans")
    parser.add_argument("--teacher", action="store_true")
    parser.add_argument("--painted", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = dataset_name(arguments.dataset)
    predictor, _ = load_predictor(
        ModelRef(dataset, arguments.plans, "teacher" if arguments.teacher else "student"),
        torch.device("cpu"),
    )
    settings = predictor.plan.settings
    cases = CaseFolder(cases_folder(dataset, settings.data_identifier))
    names = settings.split.validation
    voxel_ml = float(np.prod(settings.preprocessing.spacing)) / 1000
    scored: dict[str, list[np.ndarray]] = {}

    def score(kind: str, hu: np.ndarray, equalised: np.ndarray, body: np.ndarray) -> None:
        scores = score_map(predictor.scorer, hu, equalised, predictor.plan, predictor.device)
        scored.setdefault(kind, []).append(scores[body])

    for case in names:
        try:
            ill = [
                anomalous_case(cases, case, names, kind, settings.preprocessing, settings.seed)
                for kind in (KINDS if arguments.painted else KINDS[:1])
            ]
        except CaseError as error:
            print(f"left out: {error}")
            continue
        equalised = cases.read(case, "equalised").astype(np.float32)
        score("clean", cases.read(case, "hu"), equalised, ill[0].body)
        for kind, one in zip(KINDS, ill if arguments.painted else [], strict=False):
            score(kind, one.hu, one.equalised, one.body)
    if not arguments.painted:
        scored |= lifted(scored["clean"], voxel_ml)
    report(scored, voxel_ml)


def lifted(clean: list[np.ndarray], voxel_ml: float) -> dict[str, list[np.ndarray]]:
    """Scans of which some ml have the scores of a percentile of the other scans."""
    rng = np.random.default_rng(0)
    made: dict[str, list[np.ndarray]] = {}
    for percentile in (99.9, 99.99, 99.999):
        for volume in (1.0, 5.0, 20.0):
            for place, scores in enumerate(clean):
                others = np.concatenate([s for i, s in enumerate(clean) if i != place])
                one = scores.copy()
                chosen = rng.choice(one.size, round(volume / voxel_ml), replace=False)
                one[chosen] = np.maximum(one[chosen], np.percentile(others, percentile))
                made.setdefault(f"{volume:g} ml, p{percentile:g}", []).append(one)
    return made


def report(scored: dict[str, list[np.ndarray]], voxel_ml: float) -> None:
    """AUROC of every figure for every kind of anomaly."""
    kinds = [kind for kind in scored if kind != "clean"]
    litres = np.array([scores.size for scores in scored["clean"]]) * voxel_ml / 1000
    print(f"{litres.size} scans, bodies of {litres.min():.1f} to {litres.max():.1f} litres; AUROC")
    print("figure   " + "".join(f"{kind:>16}" for kind in (*kinds, "mean")))
    for name, figure in figures().items():
        values = {k: np.array([figure(s, voxel_ml) for s in v]) for k, v in scored.items()}
        areas = [auroc(values["clean"], values[kind]) for kind in kinds]
        print(f"{name:9}" + "".join(f"{area:16.3f}" for area in (*areas, np.mean(areas))))


if __name__ == "__main__":
    main()
