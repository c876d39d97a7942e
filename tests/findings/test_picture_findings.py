"""Findings of a picture: areas and places in pixels, labels as PNG."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import skimage.io

from screener_nnu.findings import write_findings
from screener_nnu.findings.tables import PICTURE_COLUMNS
from screener_nnu.least_volume import PIXEL_ML


def image(array: np.ndarray) -> sitk.Image:
    made = sitk.GetImageFromArray(array[None])
    made.SetSpacing((1.0, 1.0, 999.0))
    return made


def map_of_picture() -> np.ndarray:
    """Three places above 5: 12 pixels, 4 that touch by a corner, 3 that are too few."""
    score = np.zeros((20, 30), np.float32)
    score[2:5, 10:14] = 8
    score[3, 12] = 9.5
    score[10:12, 20] = score[12:14, 21] = 7
    score[17, 3:6] = 20
    return score


def test_rows_are_in_pixels(tmp_path: Path) -> None:
    score = map_of_picture()
    body = np.ones(score.shape, np.uint8)
    write_findings("a", image(score), image(body), 5.0, tmp_path, minimum_ml=4 * PIXEL_ML, limit=1)
    write_findings("b", image(score), image(body), 5.0, tmp_path, minimum_ml=4 * PIXEL_ML)
    names = {p.name for p in tmp_path.iterdir() if p.name[0] == "b"}
    assert names == {"b_findings.json", "b_findings.csv", "b_findings.png"}
    values = json.loads((tmp_path / "b_findings.json").read_text())
    assert values["minimum_px"] == 4 and values["connectivity"] == 8
    assert values["coordinates"].startswith("pixel") and "minimum_ml" not in values
    assert values["too_small"] == {"count": 1, "area_px": 3}
    first, second = values["findings"]
    assert first == {
        "number": 1,
        "area_px": 12,
        "peak_score": 9.5,
        "mean_score": pytest.approx(8.125),
        "percentile": None,
        "centre_pixel": first["centre_pixel"],
        "peak_pixel": [12, 3],
        "first_pixel": [10, 2],
        "last_pixel": [13, 4],
    }
    assert second["area_px"] == 4 and second["first_pixel"] == [20, 10]
    with (tmp_path / "b_findings.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == PICTURE_COLUMNS
    assert [row["area_px"] for row in rows] == ["12", "4"]
    assert (rows[0]["peak_pixel_x"], rows[0]["peak_pixel_y"]) == ("12", "3")
    labels = skimage.io.imread(tmp_path / "b_findings.png")
    np.testing.assert_array_equal(labels, (score == 7) * 2 + ((score > 7) & (score < 20)))
    beyond = json.loads((tmp_path / "a_findings.json").read_text())["beyond_limit"]
    assert beyond == {"count": 1, "area_px": 4}


def test_very_many_findings_have_labels_of_16_bits(tmp_path: Path) -> None:
    score = np.zeros((60, 60), np.float32)
    score[::2, ::2] = 9
    body = image(np.ones(score.shape, np.uint8))
    write_findings("a", image(score), body, 5.0, tmp_path, minimum_ml=0, limit=800)
    labels = skimage.io.imread(tmp_path / "a_findings.png")
    assert labels.dtype == np.uint16 and labels.max() == 800
