"""Figures of a finished training: nnU-Net's Dice and our surface Dice of each validation case."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.finetuning.ball import read_label
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.lowshot.design import LowShotRun, Setting
from screener_nnu.lowshot.surface import normalised_surface_dice
from screener_nnu.plans import write_json

Label = int | tuple[int, ...]
Figures = Mapping[Label, Mapping[str, float]]
TOLERANCE_MM = 2.0


@dataclass(frozen=True)
class Record:
    """Figures of one case in one training.

    Attributes:
        start, setting: the training.
        case: validation case.
        dice, nsd: mean over the labels that reference or prediction hold; NaN where none do.
    """

    start: str
    setting: Setting
    case: str
    dice: float
    nsd: float


def measure(run: LowShotRun, dataset: LabelledDataset, tolerance: float) -> list[Record]:
    """Figures of all validation cases of a finished training.

    Surface Dice is kept beside nnU-Net's summary and used again as long as that is older.

    Args:
        run: the training.
        dataset: its dataset, whose reference labels nnU-Net has compared with.
        tolerance: of the surface Dice (mm).

    Raises:
        ScreenerError: the summary lacks a validation case.
        CaseError: a prediction cannot be read, or has another shape than its reference.
    """
    summary = read_summary(run.training.summary_file, dataset.file_ending)
    missing = sorted(set(run.cases["val"]) - set(summary))
    if missing:
        raise ScreenerError(
            f"{run.training.summary_file} lacks {', '.join(missing)}: delete it, and the "
            "validation is done again"
        )
    stored = run.training.folder / f"screener_nsd_{tolerance:g}mm.json"
    if _newer(stored, run.training.summary_file):
        nsd = {k: np.nan if v is None else v for k, v in json.loads(stored.read_text()).items()}
    else:
        nsd = {
            case: _surface_dice(run, dataset, case, list(summary[case]), tolerance)
            for case in run.cases["val"]
        }
        write_json(stored, {k: None if np.isnan(v) else v for k, v in nsd.items()})
    return [
        Record(run.start, run.setting, case, mean_dice(summary[case]), nsd[case])
        for case in run.cases["val"]
    ]


def read_summary(path: Path, file_ending: str) -> dict[str, Figures]:
    """nnU-Net's figures of each case, by label or region of labels.

    Raises:
        ScreenerError: the file is damaged.
    """
    from nnunetv2.evaluation.evaluate_predictions import load_summary_json

    try:
        entries = load_summary_json(str(path))["metric_per_case"]
    except (OSError, ValueError, KeyError) as error:
        raise ScreenerError(
            f"{path} cannot be read ({error}): delete it, and the validation is done again"
        ) from error
    return {
        Path(entry["prediction_file"]).name.removesuffix(file_ending): entry["metrics"]
        for entry in entries
    }


def mean_dice(figures: Figures) -> float:
    """Dice of a case, averaged over labels; NaN where reference and prediction hold none."""
    return nan_mean([label["Dice"] for label in figures.values()])


def nan_mean(values: Iterable[float]) -> float:
    """Mean of the values that are numbers; NaN when none is."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


def _surface_dice(
    run: LowShotRun,
    dataset: LabelledDataset,
    case: str,
    labels: Sequence[Label],
    tolerance: float,
) -> float:
    name = f"{case}{dataset.file_ending}"
    reference, spacing = read_label(dataset.folder / "gt_segmentations" / name)
    prediction, _ = read_label(run.training.summary_file.parent / name)
    if reference.shape != prediction.shape:
        raise CaseError(
            case,
            f"prediction {prediction.shape} and reference {reference.shape} have different shapes; "
            f"has the label changed? Delete {run.training.folder} and train again",
        )
    # As in nnU-Net's Dice, what lies under the label `ignore` is neither found nor missed.
    counted = reference != dataset.dataset_json["labels"].get("ignore", -1)
    pairs = [
        (np.isin(prediction, label) & counted, np.isin(reference, label) & counted)
        for label in labels
    ]
    return nan_mean([normalised_surface_dice(*pair, spacing, tolerance) for pair in pairs])


def _newer(path: Path, other: Path) -> bool:
    return path.is_file() and path.stat().st_mtime >= other.stat().st_mtime
