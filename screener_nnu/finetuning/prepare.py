"""A labelled dataset, made ready for stock training with a plan of another dataset.

Nothing that stock nnU-Net has written for its own plans is changed.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError
from screener_nnu.files import replacing
from screener_nnu.finetuning.checkpoint import input_settings
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.finetuning.killed_workers import named_when_killed
from screener_nnu.locks import one_after_another
from screener_nnu.plans import StockPlan, write_json

logger = logging.getLogger(__name__)


def prepare_dataset(dataset: LabelledDataset, plan: StockPlan, processes: int) -> bool:
    """Brings `dataset.json`, fingerprint, cases and reference labels to the preprocessed folder.

    Cases are preprocessed by stock nnU-Net, which deletes the folder of the plan's data
    identifier first; so that is done only when cases, files or settings are not those of the
    last time, and by one process at a time: others wait and find it done.

    Args:
        dataset: the labelled dataset.
        plan: its plan, already written.
        processes: worker processes.

    Returns:
        Whether cases were preprocessed.

    Raises:
        ScreenerError: nnU-Net's workers failed, or the folder holds cases of somebody else.
    """
    doing = f"preparing {dataset.name} for fine-tuning"
    lock = dataset.folder / ".screener_preparing.lock"
    with one_after_another(lock, "nnUNet_preprocessed", doing):
        return _prepare(dataset, plan, processes)


def _prepare(dataset: LabelledDataset, plan: StockPlan, processes: int) -> bool:
    refuse_foreign_cases(dataset, plan)
    if not (dataset.folder / "dataset.json").is_file():
        _copy(dataset.description_file, dataset.folder / "dataset.json")
    _ensure_fingerprint(dataset, processes)
    folder, marker = _cases_and_marker(dataset, plan)
    settings = {**input_settings(plan), "reader": plan.values["image_reader_writer"]}
    settings["cases"] = dataset.cases
    settings["files"] = {case: dataset.state(case) for case in dataset.cases}
    reason = _reason_to_preprocess(dataset, folder, marker, settings)
    if reason:
        logger.info("preprocessing %d cases of %s: %s", len(dataset.cases), dataset.name, reason)
        # Killed meanwhile, the folder is still known as ours, and made again.
        write_json(marker, {})
        _preprocess(dataset, plan, processes)
    for case, label in dataset.labels.items():
        copy = dataset.folder / "gt_segmentations" / f"{case}{dataset.file_ending}"
        current = copy.is_file() and copy.stat().st_mtime >= label.stat().st_mtime
        # A label may have been replaced by an older file.
        if reason or not current:
            _copy(label, copy)
    if reason:
        write_json(marker, settings)
    return bool(reason)


def refuse_foreign_cases(dataset: LabelledDataset, plan: StockPlan) -> None:
    """Refuses a folder of cases that nnU-Net would delete, but that is not ours.

    Raises:
        ScreenerError: it holds files, and no marker of ours lies beside it.
    """
    folder, marker = _cases_and_marker(dataset, plan)
    if folder.is_dir() and any(folder.iterdir()) and not marker.is_file():
        raise ScreenerError(
            f"{folder} holds files, but no {marker.name} beside it says that they are ours, and "
            "nnU-Net would delete them: move that folder away, or delete it if an interrupted run "
            "of an earlier version left it"
        )


def _cases_and_marker(dataset: LabelledDataset, plan: StockPlan) -> tuple[Path, Path]:
    identifier = plan.configuration["data_identifier"]
    # Not inside the cases' folder: nnU-Net tells the kind of dataset by the file endings there.
    return dataset.folder / identifier, dataset.folder / f"{identifier}.settings.json"


def _ensure_fingerprint(dataset: LabelledDataset, processes: int) -> None:
    # nnU-Net's trainer copies this file; the plan itself does not depend on it.
    if (dataset.folder / "dataset_fingerprint.json").is_file():
        return
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    logger.info("extracting the fingerprint of %s, which nnU-Net's trainer wants", dataset.name)
    with named_when_killed(f"the fingerprint of {dataset.name}", dataset.folder):
        DatasetFingerprintExtractor(dataset.name, processes).run(overwrite_existing=False)


def _reason_to_preprocess(
    dataset: LabelledDataset, folder: Path, marker: Path, settings: Mapping[str, Any]
) -> str:
    """Why the cases must be made (again); empty when they are there and up to date."""
    done = _settings_of(marker)
    if not done or not folder.is_dir():
        return "not done yet"
    compared = set(settings) - ({"files"} - set(done))
    changed = sorted(key for key in compared if done.get(key) != settings[key])
    if changed:
        return f"{', '.join(changed)} changed"
    present = {path.name for path in folder.iterdir()}
    if any(f"{case}{end}" not in present for case in dataset.cases for end in (".pkl", ".b2nd")):
        return "cases are missing"
    if "files" in done:
        return ""
    # An earlier version, which did not keep their states.
    newest = max(p.stat().st_mtime for p in [*dataset.images.values(), *dataset.labels.values()])
    return "raw files are newer" if newest > marker.stat().st_mtime else ""


def _settings_of(marker: Path) -> dict[str, Any]:
    """Settings of the last time; empty when it was not finished, or the marker is damaged."""
    try:
        done = json.loads(marker.read_text())
    except (OSError, ValueError):
        return {}
    return done if isinstance(done, dict) else {}


def _preprocess(dataset: LabelledDataset, plan: StockPlan, processes: int) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    work = f"the preprocessing of {dataset.name} with {processes} processes"
    with named_when_killed(work, dataset.folder):
        DefaultPreprocessor(verbose=False).run(
            dataset.name, plan.configuration_name, plan.name, num_processes=processes
        )


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
