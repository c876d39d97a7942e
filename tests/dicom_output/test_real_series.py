"""Real CT series, for instance of Soft-tissue-Sarcoma: folders named in SCREENER_TEST_DICOM."""

from __future__ import annotations

import os
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom_output import write_dicom_seg, write_parametric_map

FOLDERS = [Path(p) for p in os.environ.get("SCREENER_TEST_DICOM", "").split(os.pathsep) if p]
pytestmark = pytest.mark.skipif(not FOLDERS, reason="SCREENER_TEST_DICOM names no folder of CT")


@pytest.fixture(params=FOLDERS, ids=str)
def files(request: pytest.FixtureRequest) -> list[Path]:
    found = sorted(path for path in request.param.iterdir() if path.is_file())
    np.random.default_rng(0).shuffle(found)
    return found


def source_affine(files: list[Path]) -> tuple[np.ndarray, int]:
    """From (slice, row, column, 1) to mm by the headers, slices rising, and how many there are."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    across, down = np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(across, down)
    places = np.array([header.ImagePositionPatient for header in headers], float)
    places = places[np.argsort(places @ normal)]
    between_rows, between_columns = map(float, headers[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = (places[-1] - places[0]) / (len(places) - 1)
    affine[:3, 1] = down * between_rows
    affine[:3, 2] = across * between_columns
    affine[:3, 3] = places[0]
    return affine, len(places)


def upwards(volume: hd.Volume, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels with rising slices, and their affine beside that of the source."""
    relative = np.linalg.inv(affine) @ volume.affine
    if relative[0, 0] < 0:
        turned = np.eye(4)
        turned[0, 0], turned[0, 3] = -1, volume.array.shape[0] - 1
        return volume.array[::-1], relative @ turned
    return volume.array, relative


def test_values_and_geometry_come_back(files: list[Path], tools, tmp_path: Path) -> None:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent)))
    image = reader.Execute()
    affine, slices = source_affine(files)
    findings, (score, _) = tools.make_findings(image, minimum_ml=0.1), tools.make_map(image)
    write_dicom_seg(findings, files, tmp_path / "seg.dcm")
    write_parametric_map(score, files, tmp_path / "map.dcm")

    array, relative = upwards(hd.imread(tmp_path / "map.dcm").get_volume(), affine)
    np.testing.assert_allclose(relative, np.eye(4), atol=1e-4)
    np.testing.assert_array_equal(array.astype(np.float32), sitk.GetArrayViewFromImage(score))
    assert array.shape[0] == slices

    seg = hd.seg.segread(tmp_path / "seg.dcm")
    array, relative = upwards(seg.get_volume(combine_segments=True), affine)
    labels = sitk.GetArrayViewFromImage(findings.image)
    first = round(relative[0, 3])
    expected = np.eye(4)
    expected[0, 3] = first
    np.testing.assert_allclose(relative, expected, atol=1e-4)
    np.testing.assert_array_equal(array, labels[first : first + len(array)])
    assert array.any(axis=(1, 2)).sum() == labels.any(axis=(1, 2)).sum() > 0
