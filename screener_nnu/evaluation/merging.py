"""Merges evaluations of different cases over equal bins into one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.baselines import is_baseline
from screener_nnu.evaluation.bins import BINS_FILE, Bins
from screener_nnu.evaluation.evaluate import Evaluation, summarise_records
from screener_nnu.evaluation.records import record_path, stored_signature
from screener_nnu.files import replacing

SUMMARY = "summary.json"


def merge_evaluations(
    folders: Sequence[Path],
    out: Path,
    threshold: float | None = None,
    bootstrap: bool = True,
    protocol: str = "full",
) -> Evaluation:
    """Computes the figures of all cases of several evaluations from their stored records.

    The records are copied, so that the result resembles one evaluation and merges further.

    Args:
        folders: folders of finished evaluations over equal bins, with equal settings.
        out: folder of the result.
        threshold: score at which Dice of the maps is measured; None takes the best one.
        bootstrap: whether to compute intervals over cases.
        protocol: `full` or `paper`.

    Raises:
        ScreenerError: when an evaluation is not finished, bins or settings differ, or a case
            stands in two of them.
    """
    bins = Bins.load(folders[0])
    place: dict[str, Path] = {}
    skipped: dict[str, str] = {}
    for folder in folders:
        _check_bins(folders[0], bins, folder)
        summary = _read_summary(folder)
        for case in summary["cases"]:
            if case in place:
                raise ScreenerError(f"{case} stands in {place[case]} and in {folder}; keep one")
            place[case] = folder
        skipped |= summary["skipped"]
    expected: dict[str, Any] = {}
    for method, placed in bins.methods.items():
        for case, folder in place.items():
            source = record_path(folder, method, case)
            signature = stored_signature(source)
            if signature is None or signature["bins"] != placed.digest:
                raise ScreenerError(f"{source} is missing or of other bins; evaluate {folder} anew")
            settings = expected.setdefault(method, signature["settings"])
            _check_settings(settings, signature["settings"], folders[0], folder)
            with replacing(record_path(out, method, case)) as temporary:
                shutil.copyfile(source, temporary)
    Bins(bins.methods).save(out / BINS_FILE)
    skipped = {case: reason for case, reason in skipped.items() if case not in place}
    maps = [method for method in bins.methods if not is_baseline(method)]
    thresholds = dict.fromkeys(maps, threshold) if threshold is not None else {}
    return summarise_records(out, bins, sorted(place), skipped, thresholds, bootstrap, protocol)


def _check_bins(first: Path, bins: Bins, folder: Path) -> None:
    other = Bins.load(folder)
    if set(other.methods) != set(bins.methods):
        raise ScreenerError(
            f"{first} has {', '.join(bins.methods)}, but {folder} has {', '.join(other.methods)}; "
            "evaluate the same methods in both"
        )
    for method, placed in bins.methods.items():
        if other.methods[method].digest != placed.digest:
            raise ScreenerError(
                f"{folder} has other bins of {method} than {first}; evaluate it again with "
                f"--bins {first / BINS_FILE}"
            )


def _check_settings(
    one: Mapping[str, Any], other: Mapping[str, Any], first: Path, folder: Path
) -> None:
    for name, value in one.items():
        if other.get(name) != value:
            raise ScreenerError(
                f"{first} and {folder} differ in {name}: {value} and {other.get(name)}; evaluate "
                "one of them again"
            )


def _read_summary(folder: Path) -> dict[str, Any]:
    """Summary of a finished evaluation."""
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        return {"cases": list(summary["cases"]), "skipped": dict(summary["skipped"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScreenerError(
            f"{path} is missing or damaged; run the evaluation of {folder} to its end"
        ) from error
