"""Markers: those of earlier versions stay valid beside new settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.case_files import CaseFolder, write_case
from screener_nnu.preprocessing.marker import settings_values
from screener_nnu.preprocessing.pipeline import preprocess_dataset
from screener_nnu.preprocessing.prepare import prepare_image
from screener_nnu.preprocessing.reading import read_image

# Of version 0.1, as its markers have them.
EARLIER = {
    "spacing", "storage_spacing", "hu_clip", "hu_window", "body_threshold", "body_block_mm",
    "equalisation", "hu_levels", "clahe_clip", "clahe_tiles", "clahe_bins", "min_slices",
    "max_raw_spacing",
}  # fmt: skip


def test_settings_of_ct_are_those_of_earlier_versions(settings: PreprocessingSettings) -> None:
    found = settings_values(settings)
    assert set(found) == EARLIER
    assert found == {
        k: v for k, v in json.loads(json.dumps(asdict(settings))).items() if k in found
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"modality": "mr"},
        {"modality": "picture"},
        {"modality": "picture", "picture_size": (32, 48)},
        {"modality": "picture", "picture_size": (32, 48), "keep_aspect": True},
    ],
)
def test_new_settings_count_where_they_say_something(
    settings: PreprocessingSettings, changed: dict[str, Any]
) -> None:
    found = settings_values(replace(settings, **changed))
    assert {k: found[k] for k in found.keys() - EARLIER} == json.loads(json.dumps(changed))


def test_cases_of_an_earlier_version_are_left_alone(
    write_image: Callable[..., Path],
    person: Callable[..., np.ndarray],
    settings: PreprocessingSettings,
    tmp_path: Path,
) -> None:
    file, folder = write_image(person()), tmp_path / "cases"
    write_case(folder, "a", prepare_image(read_image(file, "a"), settings))
    marker = folder / "a.json"
    values = json.loads(marker.read_text())
    assert set(values["settings"]) == EARLIER
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.b2nd")}
    made = preprocess_dataset({"a": file}, settings, folder, (1, 1, 1), 0)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.b2nd")} == before
    assert CaseFolder(folder).finished() == ["a"] and not made.skipped
