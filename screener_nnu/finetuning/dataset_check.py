"""The door to training: every case of a labelled dataset is looked at before anything is written.

What was read is kept in one small file of the preprocessed folder, so that each file is read once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from tqdm import tqdm

from screener_nnu.errors import CaseError, ScreenerError, printable, some
from screener_nnu.files import file_sha256
from screener_nnu.finetuning.case_check import CaseOutcome, check_case
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.finetuning.description import Labels
from screener_nnu.plans import write_json
from screener_nnu.preprocessing.volumes import check_name
from screener_nnu.workers import run_cases

logger = logging.getLogger(__name__)

CHECK_FILE = "screener_case_check.json"
# Another number makes what earlier versions have kept void.
_VERSION = 1
_MOST_LINES = 20
Values = dict[str, tuple[int, ...]]


def check_cases(dataset: LabelledDataset, processes: int) -> Values:
    """Checks all cases; those that are as they were at the last check are not read again.

    Args:
        dataset: the labelled dataset.
        processes: that read at a time; 0: in this process.

    Returns:
        What the label of each case holds, ascending.

    Raises:
        ScreenerError: cases cannot be trained on; each is listed with its reason and way out.
    """
    _warn_of_leftovers(dataset)
    faults = _name_faults(dataset)
    named = {case for case, found in faults.items() if case in dataset.images}
    pairs = {
        case: (dataset.images[case], dataset.labels[case])
        for case in dataset.cases
        if case not in named
    }
    values = _read_all(dataset, pairs, processes, faults)
    if faults:
        raise ScreenerError(_listing(dataset, faults))
    return values


def require_foreground(
    labels: Labels, values: Mapping[str, Iterable[int]], parts: Mapping[str, Iterable[str]]
) -> None:
    """Refuses training cases without any foreground; a warning names each class that is lacking.

    Args:
        labels: of the dataset.
        values: what the label of each case holds.
        parts: training cases, by a name for messages, such as `fold 0`.

    Raises:
        ScreenerError: in one of the parts no voxel belongs to any class.
    """
    lacking: dict[str, list[str]] = {name: [] for name in labels.classes}
    empty = []
    for part, cases in parts.items():
        held = {value for case in cases for value in values[case]}
        absent = [name for name, own in labels.classes.items() if not held & set(own)]
        if len(absent) == len(labels.classes):
            empty.append(part)
            continue
        for name in absent:
            lacking[name].append(part)
    if empty:
        raise ScreenerError(
            f"no training case of {some(empty)} holds a voxel of {', '.join(labels.classes)}, so "
            "that there is nothing to learn: label cases with a finding, or train on other cases "
            "(-f, --num_cases, --seed)"
        )
    for name, those in lacking.items():
        if those:
            logger.warning("no training case of %s holds a voxel of %s", some(those), name)


def _read_all(
    dataset: LabelledDataset,
    pairs: dict[str, tuple[Path, Path]],
    processes: int,
    faults: dict[str, list[str]],
) -> Values:
    """What the label of each sound case holds; the faults of the others are added."""
    # Before the reading: what is written meanwhile has another state then.
    states = {case: dataset.state(case) for case in pairs}
    description = file_sha256(dataset.description_file)
    values = _kept(dataset, description, states)
    todo = {case: files for case, files in pairs.items() if case not in values}
    if not todo:
        return values
    declared, modality = dataset.label_values.declared, dataset.kind.modality
    work = partial(check_case, declared=declared, modality=modality)
    outcomes = run_cases(
        work, todo, min(processes, len(todo)), lambda why: CaseOutcome(faults=(why,))
    )
    try:
        for case, outcome in tqdm(outcomes, total=len(todo), desc="checking", unit="case"):
            if outcome.faults:
                faults.setdefault(case, []).extend(outcome.faults)
            else:
                values[case] = outcome.values
    finally:
        # Also after Ctrl-C: what was read need not be read again.
        outcomes.close()
        cases = {c: {"files": states[c], "values": list(values[c])} for c in sorted(values)}
        stored = {"version": _VERSION, "dataset_json": description, "cases": cases}
        write_json(dataset.folder / CHECK_FILE, stored)
    return values


def _kept(
    dataset: LabelledDataset, description: str, states: Mapping[str, list[list[int]]]
) -> Values:
    """Of the last check, unless it was one of another `dataset.json`, or cannot be read."""
    try:
        stored = json.loads((dataset.folder / CHECK_FILE).read_text())
        if (stored["version"], stored["dataset_json"]) != (_VERSION, description):
            return {}
        cases = stored["cases"].items()
        return {c: tuple(kept["values"]) for c, kept in cases if states.get(c) == kept["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _warn_of_leftovers(dataset: LabelledDataset) -> None:
    number = dataset.dataset_json.get("numTraining")
    if number != len(dataset.cases):
        logger.warning(
            "%s says numTraining %s, but there are %d images: all of them are used",
            dataset.description_file,
            number,
            len(dataset.cases),
        )
    labels = dataset.labels_without_image()
    if labels:
        names = some(list(map(printable, labels)))
        logger.warning("labels of %s without image are not used: %s", dataset.name, names)


def _name_faults(dataset: LabelledDataset) -> dict[str, list[str]]:
    """What is wrong with the names of files, by case or file."""
    faults: dict[str, list[str]] = {}
    lower: dict[str, str] = {}
    for case in dataset.cases:
        try:
            for path in (dataset.images[case], dataset.labels[case]):
                check_name(path, case)
        except CaseError as error:
            faults.setdefault(case, []).append(error.reason)
        other = lower.setdefault(case.lower(), case)
        if other != case:
            faults.setdefault(case, []).append(
                f"its name differs from that of {other} in upper and lower case only, which not "
                "every file system keeps apart: rename one of them"
            )
    for name in dataset.stray_images():
        faults[name] = [
            "nnU-Net would take it for a case, but its name does not end in "
            f"_0000{dataset.file_ending} or begins with a dot: rename it, or take it out of "
            f"{dataset.images_folder}"
        ]
    return faults


def _listing(dataset: LabelledDataset, faults: Mapping[str, list[str]]) -> str:
    lines = [f"{printable(case)}: {why}" for case in sorted(faults) for why in faults[case]]
    more = len(lines) - _MOST_LINES
    shown = lines[:_MOST_LINES] + ([f"and {more} more"] if more > 0 else [])
    return (
        f"{dataset.name} cannot be trained on before {len(faults)} of its cases are mended:\n  "
        + "\n  ".join(shown)
    )
