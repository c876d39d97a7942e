"""A labelled raw dataset, made ready for stock training with a plan of another dataset.

Nothing that stock nnU-Net has written for its own plans is changed.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.finetuning.checkpoint import input_settings
from screener_nnu.paths import dataset_name, preprocessed_folder, raw_folder
from screener_nnu.plans import CONFIGURATION, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledDataset:
    """A raw nnU-Net dataset with one CT channel and a label for each case.

    Attributes:
        name: full name `DatasetXXX_Name`.
        dataset_json: its `dataset.json`.
        images, labels: file of each case, by the case's name.
    """

    name: str
    dataset_json: dict[str, Any]
    images: dict[str, Path]
    labels: dict[str, Path]

    @property
    def cases(self) -> list[str]:
        """Names of the cases, sorted."""
        return sorted(self.images)

    @property
    def folder(self) -> Path:
        """The preprocessed folder."""
        return preprocessed_folder(self.name)

    @property
    def file_ending(self) -> str:
        """Ending of image and label files, with the dot."""
        return str(self.dataset_json["file_ending"])

    @property
    def reader(self) -> str:
        """Name of nnU-Net's reader for the file format."""
        from nnunetv2.imageio.reader_writer_registry import (
            determine_reader_writer_from_dataset_json,
        )

        example = str(self.images[self.cases[0]])
        found = determine_reader_writer_from_dataset_json(
            self.dataset_json, example, allow_nonmatching_filename=True, verbose=False
        )
        return str(found.__name__)


def read_labelled_dataset(dataset: int | str) -> LabelledDataset:
    """Reads a raw dataset and checks that it can be fine-tuned on.

    Raises:
        ScreenerError: no such dataset, no cases, another modality than one CT channel, no
            foreground label, or another `dataset.json` among the preprocessed data.
        CaseError: a case without its label.
    """
    name = dataset_name(dataset)
    path = raw_folder(name) / "dataset.json"
    if not path.is_file():
        raise ScreenerError(f"no {path}: a labelled dataset needs nnU-Net's raw folder")
    dataset_json: dict[str, Any] = json.loads(path.read_text())
    _check_channels(name, dataset_json)
    _check_labels(name, dataset_json)
    images, labels = _case_files(path.parent, dataset_json)
    if not images:
        raise ScreenerError(f"{path.parent / 'imagesTr'} holds no *{dataset_json['file_ending']}")
    for case, label in labels.items():
        if not label.is_file():
            raise CaseError(case, f"its label {label} is missing; add it or remove the image")
    return LabelledDataset(name, dataset_json, images, labels)


def prepare_dataset(dataset: LabelledDataset, plan: Mapping[str, Any], processes: int) -> bool:
    """Brings `dataset.json`, fingerprint, cases and reference labels to the preprocessed folder.

    Cases are preprocessed by stock nnU-Net, which deletes the folder of the plan's data
    identifier first; so that is done only when cases, files or settings are not those of the
    last time.

    Args:
        dataset: the labelled dataset.
        plan: its plan, already written.
        processes: worker processes.

    Returns:
        Whether cases were preprocessed.

    Raises:
        ScreenerError: nnU-Net's workers failed.
    """
    dataset.folder.mkdir(parents=True, exist_ok=True)
    if not (dataset.folder / "dataset.json").is_file():
        shutil.copy2(raw_folder(dataset.name) / "dataset.json", dataset.folder)
    _ensure_fingerprint(dataset, processes)
    identifier = plan["configurations"][CONFIGURATION]["data_identifier"]
    # Not inside the cases' folder: nnU-Net tells the kind of dataset by the file endings there.
    marker = dataset.folder / f"{identifier}.settings.json"
    settings = {**input_settings(plan), "reader": plan["image_reader_writer"]}
    settings["cases"] = dataset.cases
    reason = _reason_to_preprocess(dataset, dataset.folder / identifier, marker, settings)
    if reason:
        logger.info("preprocessing %d cases of %s: %s", len(dataset.cases), dataset.name, reason)
        marker.unlink(missing_ok=True)
        _preprocess(dataset, plan["plans_name"], processes)
        write_json(marker, settings)
    for case, label in dataset.labels.items():
        copy = dataset.folder / "gt_segmentations" / f"{case}{dataset.file_ending}"
        _copy_if_newer(label, copy)
    return bool(reason)


def _check_channels(name: str, dataset_json: Mapping[str, Any]) -> None:
    channels = dataset_json.get("channel_names", dataset_json.get("modality", {}))
    if len(channels) != 1 or str(next(iter(channels.values()))).upper() != "CT":
        raise ScreenerError(
            f"{name} has the channels {list(channels.values())}, but the student knows one CT "
            'channel; dataset.json must say "channel_names": {"0": "CT"}'
        )


def _check_labels(name: str, dataset_json: Mapping[str, Any]) -> None:
    labels = dataset_json.get("labels", {})
    if not set(labels) - {"background", "ignore"}:
        raise ScreenerError(f"dataset.json of {name} names no foreground label to learn")
    path = preprocessed_folder(name) / "dataset.json"
    if path.is_file() and json.loads(path.read_text()).get("labels") != labels:
        raise ScreenerError(
            f"{path} names other labels than the raw dataset; stock nnU-Net wrote it for an "
            "older version of the dataset: remove or correct it"
        )


def _case_files(
    folder: Path, dataset_json: dict[str, Any]
) -> tuple[dict[str, Path], dict[str, Path]]:
    ending = dataset_json["file_ending"]
    if "dataset" in dataset_json:
        from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

        listed = get_filenames_of_train_images_and_targets(str(folder), dict(dataset_json))
        images = {case: Path(files["images"][0]) for case, files in listed.items()}
        return images, {case: Path(files["label"]) for case, files in listed.items()}
    channel = f"_0000{ending}"
    found = (path.name for path in (folder / "imagesTr").glob(f"*{channel}"))
    # Hidden files are what a killed program was writing.
    names = sorted(name for name in found if not name.startswith("."))
    cases = [name.removesuffix(channel) for name in names]
    images = {case: folder / "imagesTr" / f"{case}{channel}" for case in cases}
    return images, {case: folder / "labelsTr" / f"{case}{ending}" for case in cases}


def _ensure_fingerprint(dataset: LabelledDataset, processes: int) -> None:
    # nnU-Net's trainer copies this file; the plan itself does not depend on it.
    if (dataset.folder / "dataset_fingerprint.json").is_file():
        return
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    logger.info("extracting the fingerprint of %s, which nnU-Net's trainer wants", dataset.name)
    try:
        DatasetFingerprintExtractor(dataset.name, processes).run(overwrite_existing=False)
    except RuntimeError as error:
        raise _worker_error(dataset, error, processes) from error


def _reason_to_preprocess(
    dataset: LabelledDataset, folder: Path, marker: Path, settings: Mapping[str, Any]
) -> str:
    """Why the cases must be made (again); empty when they are there and up to date."""
    if not marker.is_file() or not folder.is_dir():
        return "not done yet"
    done = json.loads(marker.read_text())
    changed = [key for key in settings if done.get(key) != settings[key]]
    if changed:
        return f"{', '.join(changed)} changed"
    present = {path.name for path in folder.iterdir()}
    if any(f"{case}{end}" not in present for case in dataset.cases for end in (".pkl", ".b2nd")):
        return "cases are missing"
    newest = max(p.stat().st_mtime for p in [*dataset.images.values(), *dataset.labels.values()])
    return "raw files are newer" if newest > marker.stat().st_mtime else ""


def _preprocess(dataset: LabelledDataset, plans_name: str, processes: int) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    try:
        DefaultPreprocessor(verbose=False).run(
            dataset.name, CONFIGURATION, plans_name, num_processes=processes
        )
    except RuntimeError as error:
        raise _worker_error(dataset, error, processes) from error


def _worker_error(dataset: LabelledDataset, error: RuntimeError, processes: int) -> ScreenerError:
    return ScreenerError(
        f"nnU-Net could not read or preprocess {dataset.name} with {processes} processes: {error}\n"
        "If memory ran out, lower -np; nnUNetv2_plan_and_preprocess --verify_dataset_integrity "
        "finds broken cases"
    )


def _copy_if_newer(source: Path, target: Path) -> None:
    if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
