from __future__ import annotations

import json
from typing import Any

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.dataset import read_labelled_dataset

TARGET = "Dataset502_Lesions"
LABELLED = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}


def change_json(world: Any, **values: Any) -> None:
    path = world.raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_reads_cases_and_labels(world: Any) -> None:
    dataset = read_labelled_dataset(502)
    assert dataset.name == TARGET and dataset.reader == "SimpleITKIO"
    assert dataset.cases == [f"case_{i}" for i in range(6)]
    assert dataset.labels["case_2"] == world.raw / "labelsTr" / "case_2.nii.gz"


def test_reads_cases_listed_by_path(world: Any) -> None:
    listed = {"x": {"images": ["imagesTr/case_1_0000.nii.gz"], "label": "labelsTr/case_1.nii.gz"}}
    change_json(world, dataset=listed)
    assert read_labelled_dataset(502).labels == {"x": world.raw / "labelsTr" / "case_1.nii.gz"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channel_names": {"0": "MRI"}}, "one CT channel"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "one CT channel"),
        ({"labels": {"background": 0}}, "no foreground label"),
        ({"file_ending": ".mha"}, "holds no"),
    ],
)
def test_unfit_datasets_are_refused(world: Any, change: dict[str, Any], reason: str) -> None:
    change_json(world, **change)
    with pytest.raises(ScreenerError, match=reason):
        read_labelled_dataset(502)


def test_other_labels_among_preprocessed_data_are_refused(world: Any) -> None:
    world.preprocessed.mkdir(parents=True)
    (world.preprocessed / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}')
    with pytest.raises(ScreenerError, match="other labels"):
        read_labelled_dataset(502)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps({**LABELLED, "dataset": {}}), "other dataset than"),
        (json.dumps({**LABELLED, "file_ending": ".mha"}), "other file_ending than"),
        ('{"labels": ', "not valid JSON .*: remove it"),
    ],
)
def test_preprocessed_description_that_nnunet_would_trip_over(
    world: Any, text: str, reason: str
) -> None:
    path = world.preprocessed / "dataset.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ScreenerError, match=reason) as caught:
        read_labelled_dataset(502)
    assert str(path) in str(caught.value) and path.read_text() == text


def test_images_with_another_ending_are_named(world: Any) -> None:
    change_json(world, file_ending=".nrrd")
    with pytest.raises(ScreenerError, match="no .*_0000.nrrd, but for instance case_0_0000.nii.gz"):
        read_labelled_dataset(502)


def test_reader_is_found_without_reading(world: Any) -> None:
    """A damaged first image is for the check of all cases to name, and not for nnU-Net."""
    (world.raw / "imagesTr" / "case_0_0000.nii.gz").write_bytes(b"torn")
    assert read_labelled_dataset(502).reader == "SimpleITKIO"
