"""`dataset.json`: both of nnU-Net's forms are read, and whatever it would trip over is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.description import Labels, read_description

PLAIN = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 6,
    "file_ending": ".nii.gz",
}
REGIONS = {"background": 0, "organ": [1, 2], "tumour": [2], "ignore": 3}


def read(folder: Path, values: Any) -> dict[str, Any]:
    path = folder / "dataset.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return read_description(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": {"background": 0, "lesion": 1, "ignore": 2}},
        {"labels": {"background": 0, "a": 2, "b": 1}},
        {"labels": REGIONS, "regions_class_order": [1, 2]},
        {"labels": {"background": 0, "a": [1], "b": [2]}},
        {"dataset": {"a": {"images": ["/x/a_0000.nii.gz"], "label": "/x/a.nii.gz"}}},
    ],
)
def test_what_nnunet_takes_is_taken_and_understood_alike(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    found = read(tmp_path, {**PLAIN, **changes})
    assert found == {**PLAIN, **changes}
    labels = Labels.of(found["labels"])
    manager = LabelManager(found["labels"], found.get("regions_class_order"))
    assert labels.declared - {labels.ignore} == set(manager.all_labels)
    assert labels.ignore == manager.ignore_label
    foreground = (
        manager.foreground_regions
        if manager.has_regions
        else [(int(value),) for value in manager.foreground_labels]
    )
    assert sorted(labels.classes.values()) == sorted(foreground)


def test_first_form_of_nnunet_for_channels_is_taken(tmp_path: Path) -> None:
    values = {**PLAIN, "modality": {"0": "ct"}}
    del values["channel_names"]
    assert read(tmp_path, values) == values


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"channel_names": None}, 'channel_names must be {"0": "CT"}, but is None'),
        ({"channel_names": ["CT"]}, 'channel_names must be {"0": "CT"}'),
        ({"channel_names": {"0": "MRI"}}, "one CT channel"),
        ({"labels": None}, "labels must give a number to each name"),
        ({"labels": ["background", "lesion"]}, "labels must give a number to each name"),
        ({"labels": {"0": "background", "1": "lesion"}}, "the name first, then the number"),
        ({"labels": {"background": 0, "lesion": 1.0}}, 'label "lesion" is 1.0'),
        ({"labels": {"background": 0, "lesion": "1"}}, "label \"lesion\" is '1'"),
        ({"labels": {"background": 0, "lesion": True}}, 'label "lesion" is True'),
        ({"labels": {"background": 0, "lesion": []}}, 'label "lesion" is []'),
        ({"labels": {"background": 0, "lesion": [1, "2"]}}, 'label "lesion" is'),
        ({"labels": {"lesion": 1}}, '"background": 0, but have None'),
        ({"labels": {"background": 1, "lesion": 0}}, '"background": 0, but have 1'),
        ({"labels": {"background": [0], "lesion": 1}}, '"background": 0, but have [0]'),
        ({"labels": {"background": 0}}, "no foreground label"),
        ({"labels": {"background": 0, "ignore": 1}}, "no foreground label"),
        ({"labels": {"background": 0, "a": 1, "b": 3}}, "without a gap, but are [0, 1, 3]"),
        ({"labels": {"background": 0, "a": 2}}, "without a gap, but are [0, 2]"),
        ({"labels": {"background": 0, "a": -1}}, "without a gap, but are [-1, 0]"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, '"a" and "b" are the same label, [1]'),
        ({"labels": {"background": 0, "a": 1, "ignore": 3}}, "the highest label, 2, but is 3"),
        ({"labels": {"background": 0, "a": 1, "ignore": [2]}}, "whole number, and no list"),
        ({"labels": REGIONS}, "one label for each of organ, tumour"),
        ({"labels": REGIONS, "regions_class_order": [1]}, "one label for each of organ, tumour"),
        ({"labels": REGIONS, "regions_class_order": [1, 9]}, "one label for each of organ"),
        ({"labels": REGIONS, "regions_class_order": "12"}, "one label for each of organ"),
        ({"file_ending": None}, "file_ending is None"),
        ({"file_ending": "nii.gz"}, "file_ending is 'nii.gz'"),
        ({"dataset": ["a"]}, 'dataset must be as in {"a"'),
        ({"dataset": {"a": {"images": ["x", "y"], "label": "z"}}}, 'that of "a" is not'),
        ({"dataset": {"a": {"images": ["x"]}}}, 'that of "a" is not'),
    ],
)
def test_faults_are_named_with_what_is_allowed(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ScreenerError) as caught:
        read(tmp_path, {**PLAIN, **changes})
    assert reason in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "dataset.json"))


def test_all_faults_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ScreenerError) as caught:
        read(tmp_path, {})
    assert all(key in str(caught.value) for key in ("channel_names", "labels", "file_ending"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ('{"labels": {', "not valid JSON"),
        ("[1]", "no JSON object"),
        ('{"labels": {"background": 0, "lesion": 1, "lesion": 2}}', '"lesion" stands twice'),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ScreenerError, match=f"^{tmp_path / 'dataset.json'} .*{reason}.*: correct"):
        read(tmp_path, text)
