"""Findings read from files, and measured as SimpleITK measures them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import CaseError
from screener_nnu.viewer.findings import measure_findings, read_findings

ROW = {
    "number": 2,
    "volume_ml": 1.5,
    "peak_score": 21.25,
    "mean_score": 18.5,
    "percentile": 99.5,
    "centre_mm": [1.0, -2.0, 3.0],
    "peak_mm": [2.0, -3.0, 4.0],
}


def blobs(phantom: Any) -> tuple[sitk.Image, sitk.Image]:
    """Three labels of odd shapes with gaps in their numbers, and a noisy map."""
    labels = np.zeros((25, 30, 40), np.uint16)
    labels[3:9, 5:8, 6:20] = 4
    labels[5:20, 20:22, 30:31] = 9
    labels[7, 21:25, 28:33] = 9
    labels[20, 4, 10] = 1
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(phantom.score)
    turn = (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)
    score = sitk.Image(phantom.score)
    for each in (image, score):
        each.SetDirection(turn)
    return image, score


def test_labels_are_measured_as_simpleitk_does(phantom: Any) -> None:
    labels, score = blobs(phantom)
    rows = measure_findings(labels, score)
    oracle = sitk.LabelIntensityStatisticsImageFilter()
    oracle.Execute(labels, score)
    assert sorted(row.number for row in rows) == [1, 4, 9]
    assert [row.peak_score for row in rows] == sorted((r.peak_score for r in rows), reverse=True)
    for row in rows:
        n = row.number
        assert row.volume_ml == pytest.approx(oracle.GetPhysicalSize(n) / 1000)
        assert row.peak_score == pytest.approx(oracle.GetMaximum(n))
        assert row.mean_score == pytest.approx(oracle.GetMean(n), rel=1e-5)
        np.testing.assert_allclose(row.centre_mm, oracle.GetCentroid(n), atol=1e-6)
        peak = score.TransformIndexToPhysicalPoint(oracle.GetMaximumIndex(n))
        np.testing.assert_allclose(row.peak_mm, peak, atol=1e-6)


def test_an_empty_image_has_no_findings(phantom: Any) -> None:
    assert measure_findings(phantom.body * 0, phantom.score) == ()


def test_a_list_and_its_labels_are_read(phantom: Any, tmp_path: Path) -> None:
    table, labels = tmp_path / "a.json", tmp_path / "a.nii.gz"
    table.write_text(json.dumps({"threshold": 17.5, "findings": [ROW]}))
    image, score = blobs(phantom)
    sitk.WriteImage(image, str(labels))
    for paths, with_image in (((table,), False), ((labels, table), True)):
        found = read_findings(paths, score, "a")
        (row,) = found.rows
        assert (row.number, row.peak_score, row.percentile) == (2, 21.25, 99.5)
        assert row.centre_mm == (1.0, -2.0, 3.0) and row.peak_mm == (2.0, -3.0, 4.0)
        assert found.threshold == 17.5 and (found.image is not None) == with_image
        assert found.unit is None  # it does not say
    table.write_text(json.dumps({"score_unit": "HU", "findings": []}))
    assert read_findings((labels, table), score, "a").unit == "HU"
    assert [r.number for r in read_findings((labels,), score, "a").rows].count(4) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"findings": 3}',
        '{"findings": [{"number": 1}]}',
        json.dumps({"findings": [{**ROW, "centre_mm": [1, 2]}]}),
        json.dumps({"findings": [{**ROW, "peak_mm": [1, 2, float("nan")]}]}),
        json.dumps({"findings": [{**ROW, "volume_ml": "much"}]}),
        '{"findings": ["row"]}',
        "\udcff",
    ],
)
def test_what_is_no_list_of_findings_is_named(phantom: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CaseError, match="a: .*is no list of findings"):
        read_findings((path,), phantom.score, "a")


def test_what_is_no_image_of_labels_is_named(phantom: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"nothing")
    with pytest.raises(CaseError, match="cannot be read"):
        read_findings((path,), phantom.score, "a")
    sitk.WriteImage(phantom.score, str(path))
    with pytest.raises(CaseError, match="is no image of labels"):
        read_findings((path,), phantom.score, "a")
    sitk.WriteImage(phantom.body[1:, :, :], str(path))
    with pytest.raises(CaseError, match=r"has \(39, 30, 25\) voxels"):
        read_findings((path,), phantom.score, "a")
