"""Which figure of a scan's scores tells a scan with synthetic anomalies from one without.

python tests/benchmarks/benchmark_case_score.py 901 PLANS [--teacher]

On the plan's validation scans, each as it is and with anomalies of each kind. AUROC compares a scan
with anomalies with other scans without any: anatomy and field of view differ, as in practice.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from screener_nnu.calibration.scans import load_predictor
from screener_nnu.errors import CaseError
from screener_nnu.inference.volume import score_map
from screener_nnu.paths import cases_folder, dataset_name
from screener_nnu.plans import ScreenerSettings
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
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = dataset_name(arguments.dataset)
    predictor, _ = load_predictor(dataset, arguments.plans, arguments.teacher, torch.device("cpu"))
    settings = ScreenerSettings.from_dict(predictor.plan["screener"])
    cases = CaseFolder(cases_folder(dataset, settings.data_identifier))
    names = settings.split.validation
    voxel_ml = float(np.prod(settings.preprocessing.spacing)) / 1000
    made: dict[str, dict[str, list[float]]] = {}

    def measure(kind: str, hu: np.ndarray, equalised: np.ndarray, body: np.ndarray) -> None:
        scores = score_map(predictor.scorer, hu, equalised, predictor.plan, predictor.device)
        for name, figure in figures().items():
            made.setdefault(name, {}).setdefault(kind, []).append(figure(scores[body], voxel_ml))

    for case in names:
        try:
            ill = [
                anomalous_case(cases, case, names, kind, settings.preprocessing, settings.seed)
                for kind in KINDS
            ]
        except CaseError as error:
            print(f"left out: {error}")
            continue
        equalised = cases.read(case, "equalised").astype(np.float32)
        measure("clean", cases.read(case, "hu"), equalised, ill[0].body)
        for kind, one in zip(KINDS, ill, strict=True):
            measure(kind, one.hu, one.equalised, one.body)
    print(f"{len(made['mean']['clean'])} scans; AUROC, and share of scans whose figure rises")
    print("figure   " + "".join(f"{kind:>20}" for kind in (*KINDS, "mean")))
    for name, found in made.items():
        clean = np.array(found["clean"])
        areas = [auroc(clean, np.array(found[kind])) for kind in KINDS]
        rises = [float((np.array(found[kind]) > clean).mean()) for kind in KINDS]
        pairs = zip([*areas, np.mean(areas)], [*rises, np.mean(rises)], strict=True)
        print(f"{name:9}" + "".join(f"{a:14.3f} {r:5.2f}" for a, r in pairs))


if __name__ == "__main__":
    main()
