"""The files of the findings, read back by other libraries."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu import __version__
from screener_nnu.errors import ScreenerError
from screener_nnu.findings import write_findings
from screener_nnu.findings.tables import COLUMNS

THRESHOLD = 11.0


def write(scan, output: Path, **options):
    options = {"minimum_ml": 0.02, **options}
    return write_findings("a", scan.score, scan.body, THRESHOLD, output, **options)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_three_files_and_nothing_else(scan, tmp_path: Path) -> None:
    write(scan, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a_findings.csv", "a_findings.json", "a_findings.nii.gz"]


def test_the_table_has_the_values_of_the_findings(scan, tmp_path: Path) -> None:
    findings = write(scan, tmp_path, percentile=lambda score: 99.87654321)
    rows = rows_of(tmp_path / "a_findings.csv")
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(findings.rows) > 5
    for row, finding in zip(rows, findings.rows, strict=True):
        assert int(row["number"]) == finding.number
        assert int(row["voxels"]) == finding.voxels
        assert float(row["volume_ml"]) == pytest.approx(finding.volume_ml, abs=1e-6)
        assert float(row["peak_score"]) == pytest.approx(finding.peak_score, abs=1e-4)
        assert float(row["mean_score"]) == pytest.approx(finding.mean_score, abs=1e-4)
        assert float(row["percentile"]) == 99.8765
        for name in ("centre", "peak"):
            place = [float(row[f"{name}_mm_{axis}"]) for axis in "xyz"]
            assert place == pytest.approx(getattr(finding, f"{name}_mm"), abs=1e-3)
        for name in ("centre_voxel", "peak_voxel", "first_voxel", "last_voxel"):
            assert tuple(int(row[f"{name}_{axis}"]) for axis in "xyz") == getattr(finding, name)


def test_json_and_table_agree(scan, tmp_path: Path) -> None:
    write(scan, tmp_path, percentile=lambda score: 99.5 if score > 30 else None, limit=7)
    rows = rows_of(tmp_path / "a_findings.csv")
    listed = json.loads((tmp_path / "a_findings.json").read_text())["findings"]
    assert len(rows) == len(listed) == 7
    for row, values in zip(rows, listed, strict=True):
        flat = {}
        for name, value in values.items():
            axes = dict(zip("xyz", value, strict=True)) if isinstance(value, list) else None
            flat |= {f"{name}_{a}": v for a, v in axes.items()} if axes else {name: value}
        assert {k: "" if v is None else str(v) for k, v in flat.items()} == row
    assert {row["percentile"] for row in rows} == {"", "99.5"}


def test_json_says_what_was_asked_for_and_left_out(scan, tmp_path: Path) -> None:
    findings = write(scan, tmp_path, limit=3)
    values = json.loads((tmp_path / "a_findings.json").read_text())
    del values["findings"]
    assert values == {
        "schema": "screener_nnu.findings",
        "schema_version": 1,
        "software": f"screener_nnu {__version__}",
        "case": "a",
        "coordinates": "mm in patient coordinates (LPS); voxel indices (x, y, z) from 0",
        "score_unit": "nats",
        "threshold": THRESHOLD,
        "minimum_ml": 0.02,
        "connectivity": 26,
        "limit": 3,
        "count": 3,
        "too_small": {
            "count": findings.too_small.count,
            "volume_ml": round(findings.too_small.volume_ml, 6),
        },
        "beyond_limit": {
            "count": findings.beyond_limit.count,
            "volume_ml": round(findings.beyond_limit.volume_ml, 6),
        },
    }


def test_a_cut_list_is_told(scan, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write(scan, tmp_path)
        assert not caplog.records
        findings = write(scan, tmp_path, limit=2)
    (record,) = caplog.records
    assert f"a: 2 findings are listed, {findings.beyond_limit.count} more" in record.getMessage()


def test_the_image_lies_on_the_scan_for_nibabel_too(scan, tmp_path: Path) -> None:
    findings = write(scan, tmp_path)
    image = nibabel.load(tmp_path / "a_findings.nii.gz")
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    np.testing.assert_allclose(image.affine, to_ras @ scan.affine, atol=1e-4)
    labels = np.asarray(image.dataobj)
    assert labels.dtype == np.uint8
    for row in findings.rows:
        assert labels[row.peak_voxel] == row.number


def test_no_finding(scan, tmp_path: Path) -> None:
    write_findings("a", scan.score, scan.body, 1000.0, tmp_path)
    assert (tmp_path / "a_findings.csv").read_text() == ",".join(COLUMNS) + "\n"
    values = json.loads((tmp_path / "a_findings.json").read_text())
    assert (values["count"], values["findings"]) == (0, [])
    assert not sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "a_findings.nii.gz")).any()


def test_numbers_of_numpy_are_written(scan, tmp_path: Path) -> None:
    threshold, percentile = np.float32(11.0), np.float32(99.0)
    write_findings("a", scan.score, scan.body, threshold, tmp_path, lambda score: percentile)
    values = json.loads((tmp_path / "a_findings.json").read_text())
    assert (values["threshold"], values["findings"][0]["percentile"]) == (11.0, 99.0)


def test_a_percentile_that_is_no_number_is_unknown(scan, tmp_path: Path) -> None:
    write(scan, tmp_path, percentile=lambda score: float("nan"))
    values = json.loads((tmp_path / "a_findings.json").read_text())
    assert {row["percentile"] for row in values["findings"]} == {None}


def test_a_failed_run_leaves_no_json(scan, tmp_path: Path) -> None:
    write(scan, tmp_path)
    (tmp_path / "a_findings.csv").unlink()
    (tmp_path / "a_findings.csv").mkdir()
    with pytest.raises(ScreenerError, match="a_findings.csv cannot be written"):
        write(scan, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_findings.csv", "a_findings.nii.gz"]


@pytest.mark.parametrize("unit", ["none", "HU"])
def test_the_unit_is_named_and_changes_nothing_else(scan, tmp_path: Path, unit: str) -> None:
    assert write(scan, tmp_path / "usual").unit == "nats"
    assert write(scan, tmp_path / "other", unit=unit).unit == unit
    usual, other = (tmp_path / name / "a_findings.json" for name in ("usual", "other"))
    text = usual.read_text()
    assert text.count("nats") == 1
    assert other.read_text() == text.replace("nats", unit)
    tables = [(path.parent / "a_findings.csv").read_bytes() for path in (usual, other)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(("words", "shown"), [({}, " nats"), ({"unit": "none"}, "")])
def test_a_threshold_that_is_no_number_is_told_in_its_unit(
    scan, tmp_path: Path, words: dict[str, str], shown: str
) -> None:
    with pytest.raises(ScreenerError, match=f"a threshold of inf{shown} finds nothing"):
        write_findings("a", scan.score, scan.body, np.inf, tmp_path, **words)
