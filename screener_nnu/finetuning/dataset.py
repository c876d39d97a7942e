"""A labelled raw dataset: its description, and the files of its cases."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.description import Labels, read_description, read_json_object
from screener_nnu.finetuning.image_kind import ONE_CT_CHANNEL, ImageKind
from screener_nnu.paths import dataset_name, preprocessed_folder, raw_folder


@dataclass(frozen=True)
class LabelledDataset:
    """A raw nnU-Net dataset with a label for each case.

    Attributes:
        name: full name `DatasetXXX_Name`.
        dataset_json: its `dataset.json`.
        images, labels: file of each case, by the case's name.
        kind: of its images.
    """

    name: str
    dataset_json: dict[str, Any]
    images: dict[str, Path]
    labels: dict[str, Path]
    kind: ImageKind = ONE_CT_CHANNEL

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
    def label_values(self) -> Labels:
        """What the voxels of a label may be."""
        return Labels.of(self.dataset_json["labels"])

    @property
    def description_file(self) -> Path:
        """`dataset.json` of the raw dataset."""
        return raw_folder(self.name) / "dataset.json"

    @property
    def images_folder(self) -> Path:
        """Where images lie, unless `dataset.json` lists them."""
        return raw_folder(self.name) / "imagesTr"

    @property
    def reader(self) -> str:
        """Name of nnU-Net's reader for the file format.

        Raises:
            ScreenerError: nnU-Net has none.
        """
        from nnunetv2.imageio.reader_writer_registry import (
            determine_reader_writer_from_dataset_json,
        )

        # Two readers know .tif, so that the file must tell; others are found without reading it.
        example = str(self.images[self.cases[0]])
        examples = [example] if self.file_ending == ".tif" else [None, example]
        for one in examples:
            try:
                found = determine_reader_writer_from_dataset_json(
                    self.dataset_json,
                    one,  # type: ignore[arg-type]
                    allow_nonmatching_filename=True,
                    verbose=False,
                )
            except RuntimeError:
                continue
            return str(found.__name__)
        raise ScreenerError(
            f"nnU-Net has no reader for {example}: convert the dataset to .nii.gz, .nrrd or .mha"
        )

    def state(self, case: str) -> list[list[int]]:
        """Size (bytes) and time of modification (ns) of image and label; empty for a lost file."""
        return [_state(path) for path in (self.images[case], self.labels[case])]

    def stray_images(self) -> list[str]:
        """Files among the images that nnU-Net takes for cases, but cannot read as such."""
        known = {os.path.abspath(path) for path in self.images.values()}
        return [
            path.name
            for path in self._listed(self.images_folder)
            if os.path.abspath(path) not in known
        ]

    def labels_without_image(self) -> list[str]:
        """Names of label files that belong to no case."""
        known = {path.name for path in self.labels.values()}
        folder = raw_folder(self.name) / "labelsTr"
        names = [path.name for path in self._listed(folder) if not path.name.startswith(".")]
        return [name for name in names if name not in known]

    def _listed(self, folder: Path) -> list[Path]:
        """Files of a folder that have the file ending; none where `dataset.json` lists files."""
        if "dataset" in self.dataset_json or not folder.is_dir():
            return []
        found = folder.glob(f"*{self.file_ending}")
        return sorted(path for path in found if path.is_file())


def read_labelled_dataset(
    dataset: int | str, kind: ImageKind | None = ONE_CT_CHANNEL
) -> LabelledDataset:
    """Reads what a raw dataset consists of.

    Args:
        dataset: number or name.
        kind: of images that it has to hold; None where that is not to be judged.

    See Also:
        `dataset_check.check_cases`: whether its cases can be trained on.

    Raises:
        ScreenerError: no such dataset, no cases, a `dataset.json` that cannot be used, or another
            one among the preprocessed data.
    """
    name = dataset_name(dataset)
    path = raw_folder(name) / "dataset.json"
    dataset_json = read_description(path, kind)
    _check_preprocessed(name, dataset_json)
    images, labels = _case_files(path.parent, dataset_json)
    if not images:
        raise ScreenerError(_no_images(path, dataset_json["file_ending"]))
    return LabelledDataset(name, dataset_json, images, labels, kind or ONE_CT_CHANNEL)


def _check_preprocessed(name: str, dataset_json: Mapping[str, Any]) -> None:
    """Refuses another `dataset.json` among the preprocessed data, which nnU-Net goes by."""
    path = preprocessed_folder(name) / "dataset.json"
    if not path.is_file():
        return
    found = read_json_object(path, "remove it, and that of the raw dataset takes its place")
    for key in ("labels", "regions_class_order", "file_ending", "dataset"):
        if found.get(key) != dataset_json.get(key):
            raise ScreenerError(
                f"{path} names other {key} than the raw dataset; it was written for an older "
                "version of the dataset: remove or correct it"
            )


def _case_files(
    folder: Path, dataset_json: dict[str, Any]
) -> tuple[dict[str, Path], dict[str, Path]]:
    ending = dataset_json["file_ending"]
    if "dataset" in dataset_json:
        from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

        # It changes what it is given.
        listed = get_filenames_of_train_images_and_targets(str(folder), copy.deepcopy(dataset_json))
        images = {case: Path(files["images"][0]) for case, files in listed.items()}
        return images, {case: Path(files["label"]) for case, files in listed.items()}
    channel = f"_0000{ending}"
    found = (path.name for path in (folder / "imagesTr").glob(f"*{channel}"))
    # Hidden files are what a killed program was writing.
    names = sorted(name for name in found if not name.startswith("."))
    cases = [name.removesuffix(channel) for name in names]
    images = {case: folder / "imagesTr" / f"{case}{channel}" for case in cases}
    return images, {case: folder / "labelsTr" / f"{case}{ending}" for case in cases}


def _no_images(path: Path, ending: str) -> str:
    if not (path.parent / "imagesTr").is_dir():
        return f"there is no folder {path.parent / 'imagesTr'}: put the images there"
    names = sorted(file.name for file in (path.parent / "imagesTr").iterdir())
    instead = f", but for instance {names[0]}" if names else ""
    return (
        f"{path.parent / 'imagesTr'} holds no *_0000{ending}{instead}: put the images there under "
        f"such names, or correct file_ending in {path}"
    )


def _state(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]
