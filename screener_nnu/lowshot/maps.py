"""Anomaly maps of the labelled cases, for the floor that a threshold on them makes."""

from __future__ import annotations

from pathlib import Path

from screener_nnu.calibration.store import trained_identity
from screener_nnu.detectors import ModelRef
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.finetuning.plan import target_stem
from screener_nnu.inference.api import load_predictor
from screener_nnu.inference.predict import predict_files
from screener_nnu.paths import results_folder
from screener_nnu.preprocessing.modality import PICTURE


def predicted_maps(
    dataset: LabelledDataset,
    source: str,
    plans: str,
    model: str,
    device: str | None,
    restart: bool = False,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Predicts the maps of all cases that lack one; they lie among the results of the dataset.

    Args:
        dataset: whose images.
        source, plans: pre-trained dataset, and its plan.
        model: name of a detector of it.
        device: `cuda`, `cpu` or `mps`; by default `cuda` where there is one.
        restart: predict again what is there.

    Returns:
        The map of each case, and why others have none.

    Raises:
        ScreenerError: the model is not trained, or no such device.
    """
    identity = trained_identity(ModelRef(source, plans, model))[:8]
    name = f"maps_{target_stem(source, plans)}_{model}_{identity}"
    folder = results_folder(dataset.name) / name
    predictor = load_predictor(source, plans, model, device)
    skipped = predict_files(predictor, dict(dataset.images), folder, overwrite=restart)
    ending = ".tif" if dataset.kind.modality == PICTURE else ".nii.gz"
    paths = {case: folder / f"{case}{ending}" for case in dataset.cases if case not in skipped}
    return paths, {f"map of {case}": reason for case, reason in skipped.items()}
