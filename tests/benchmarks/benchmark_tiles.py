"""Time and AUROC on synthetic anomalies by tile and overlap: what `--fast` and small tiles cost.

    python tests/benchmarks/benchmark_tiles.py -d 901 -p ScreenerPlans -i anomalies -o tiles

where `anomalies` was written by `screener_synthesize_anomalies`, a folder of images and masks a
kind. Prints for teacher and student, for each tile and overlap, seconds of processor time of the
networks a scan, the AUROC of voxels of the body (mean over scans), its difference to the first
setting, scan by scan, and the largest change of a score.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from screener_nnu.detectors import ModelRef
from screener_nnu.inference.images import find_images
from screener_nnu.inference.predict import AnomalyMap, Predictor
from screener_nnu.paths import set_default_folders
from screener_nnu.plans import Plan
from screener_nnu.preprocessing.reading import read_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", dest="dataset", required=True)
    parser.add_argument("-p", dest="plans", default="ScreenerPlans")
    parser.add_argument("-i", dest="anomalies", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["student", "teacher"])
    parser.add_argument("--tiles", nargs="+", type=int, default=[120, 80, 40])
    parser.add_argument("--overlaps", nargs="+", type=float, default=[0.5, 0.25, 0.0])
    arguments = parser.parse_args()
    set_default_folders()
    torch.set_num_threads(1)
    settings = [(tile, overlap) for tile in arguments.tiles for overlap in arguments.overlaps]
    print("| model | tile | overlap | s a scan | AUROC | difference | at most | largest change |")
    print("|---|---|---|---|---|---|---|---|")
    for model in arguments.models:
        named = ModelRef(arguments.dataset, arguments.plans, model)
        scorer, plan, statistics = named.load(torch.device("cpu"))
        first: list[tuple[float, np.ndarray]] = []
        for tile, overlap in settings:
            predictor = Predictor(
                scorer, _with_tile(plan, tile, overlap), statistics["lowest"], torch.device("cpu")
            )
            seconds, results = _measure(predictor, arguments.anomalies)
            first = first or results
            _report(f"| {model} | {tile} | {overlap:g}", seconds, results, first)


def _with_tile(plan: Plan, tile: int, overlap: float) -> Plan:
    settings = plan.settings
    shape = (tile, tile, tile)
    inference = replace(settings.inference, teacher_tile=shape, student_tile=shape, overlap=overlap)
    return plan.with_settings(replace(settings, inference=inference))


def _measure(predictor: Predictor, anomalies: Path) -> tuple[float, list[tuple[float, np.ndarray]]]:
    """Processor seconds a scan, and AUROC and scores of the body of each scan."""
    results, seconds = [], 0.0
    for images in sorted(anomalies.glob("*/images")):
        for case, path in find_images(images).items():
            raw = read_image(path, case)
            begin = time.process_time()
            result = predictor.predict(raw)
            seconds += time.process_time() - begin
            mask = read_image_mask(images.with_name("masks") / f"{case}.nii.gz")
            results.append(_auroc(result, mask))
    return seconds / len(results), results


def read_image_mask(path: Path) -> np.ndarray:
    """Annotation (z, y, x), bool."""
    import SimpleITK as sitk  # noqa: N813

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0


def _auroc(result: AnomalyMap, mask: np.ndarray) -> tuple[float, np.ndarray]:
    import SimpleITK as sitk  # noqa: N813
    from sklearn.metrics import roc_auc_score

    body = sitk.GetArrayViewFromImage(result.body) > 0
    scores = sitk.GetArrayViewFromImage(result.score)[body]
    return float(roc_auc_score(mask[body], scores)), scores


def _report(
    label: str,
    seconds: float,
    results: list[tuple[float, np.ndarray]],
    first: list[tuple[float, np.ndarray]],
) -> None:
    aurocs = np.array([auroc for auroc, _ in results])
    differences = aurocs - np.array([auroc for auroc, _ in first])
    change = max(float(np.abs(a - b).max()) for (_, a), (_, b) in zip(results, first, strict=True))
    print(
        f"{label} | {seconds:.1f} | {aurocs.mean():.4f} | {differences.mean():+.4f} "
        f"| {np.abs(differences).max():.4f} | {change:.2f} nats |",
        flush=True,
    )


if __name__ == "__main__":
    main()
