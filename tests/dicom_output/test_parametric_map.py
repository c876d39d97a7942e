"""DICOM Parametric Maps, read by the standard's equations and by highdicom."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.uid import ParametricMapStorage

from screener_nnu.dicom_output import write_parametric_map
from screener_nnu.errors import ScreenerError


def real_values(dataset: pydicom.Dataset, tools) -> np.ndarray:
    """Frames as scores, with the mapping that the object states `(frames, rows, columns)`."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    (mapping,) = shared.RealWorldValueMappingSequence
    stored = tools.frames(dataset).astype(np.float64)
    return stored * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept


@pytest.mark.parametrize("bits", [32, 16])
@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIL"])
def test_every_value_lies_where_the_map_has_it(
    series, tools, tmp_path: Path, orientation: str, bits: int
) -> None:
    score, _ = tools.make_map(sitk.DICOMOrient(series.read(), orientation))
    error = write_parametric_map(score, series.files, tmp_path / "map.dcm", bits)
    dataset = pydicom.dcmread(tmp_path / "map.dcm")
    seen = np.zeros(score.GetSize()[::-1], dtype=int)
    array = sitk.GetArrayViewFromImage(score)
    worst = 0.0
    for values, places in zip(real_values(dataset, tools), tools.places(dataset), strict=True):
        points = places.reshape(-1, 3).tolist()
        x, y, z = np.array([score.TransformPhysicalPointToIndex(point) for point in points]).T
        seen[z, y, x] += 1
        worst = max(worst, float(np.abs(array[z, y, x] - values.ravel()).max()))
    assert (seen == 1).all()
    if bits == 32:
        assert worst == error == 0.0
    else:
        step = (float(array.max()) - float(array.min())) / 65535
        assert error == pytest.approx(step / 2)
        assert 0 < worst <= error * (1 + 1e-9)


@pytest.mark.parametrize("bits", [32, 16])
def test_frames_come_as_the_slices_do(series, tools, tmp_path: Path, bits: int) -> None:
    score, _ = tools.make_map(series.read())
    error = write_parametric_map(score, series.files, tmp_path / "map.dcm", bits)
    dataset = pydicom.dcmread(tmp_path / "map.dcm")
    # GDCM sorts slices along the normal, and some readers take frames as they come.
    difference = real_values(dataset, tools) - sitk.GetArrayFromImage(score)
    assert np.abs(difference).max() <= error * (1 + 1e-9)
    numbers = [
        item.FrameContentSequence[0].DimensionIndexValues
        for item in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert numbers == list(range(1, tools.shape[0] + 1))


@pytest.mark.parametrize("bits", [32, 16])
def test_highdicom_sees_values_and_geometry(series, tools, tmp_path: Path, bits: int) -> None:
    score, _ = tools.make_map(series.read())
    error = write_parametric_map(score, series.files, tmp_path / "map.dcm", bits)
    volume = hd.imread(tmp_path / "map.dcm").get_volume(dtype=np.float64)
    to_slice = np.linalg.inv(series.affine) @ volume.affine
    step = int(np.sign(to_slice[2, 0]))
    start = 0 if step == 1 else tools.shape[0] - 1
    expected = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [step, 0, 0, start], [0, 0, 0, 1]])
    np.testing.assert_allclose(to_slice, expected, atol=1e-5)
    scores = sitk.GetArrayFromImage(score)[::step].astype(np.float64)
    np.testing.assert_allclose(volume.array, scores, rtol=0, atol=error * (1 + 1e-9))


def test_the_map_says_what_it_is(series, tools, tmp_path: Path) -> None:
    score, _ = tools.make_map(series.read())
    write_parametric_map(score, series.files, tmp_path / "map.dcm")
    dataset = pydicom.dcmread(tmp_path / "map.dcm")
    assert dataset.SOPClassUID == ParametricMapStorage
    assert dataset.ContentQualification == "RESEARCH"
    assert "PixelData" not in dataset
    shared = dataset.SharedFunctionalGroupsSequence[0]
    (mapping,) = shared.RealWorldValueMappingSequence
    (unit,) = mapping.MeasurementUnitsCodeSequence
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("1", "UCUM")
    assert "nat" in mapping.LUTExplanation
    array = sitk.GetArrayViewFromImage(score)
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == array.min()
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == array.max()
    (window,) = shared.FrameVOILUTSequence
    assert window.WindowWidth == pytest.approx(float(array.max() - array.min()), rel=1e-5)


def test_each_frame_refers_to_the_slice_it_lies_on(series, tools, tmp_path: Path) -> None:
    score, _ = tools.make_map(series.read())
    write_parametric_map(score, series.files, tmp_path / "map.dcm")
    dataset = pydicom.dcmread(tmp_path / "map.dcm")
    positions = {d.SOPInstanceUID: list(d.ImagePositionPatient) for d in series.datasets()}
    referred = set()
    for item in dataset.PerFrameFunctionalGroupsSequence:
        (source,) = item.DerivationImageSequence[0].SourceImageSequence
        place = item.PlanePositionSequence[0].ImagePositionPatient
        assert positions[source.ReferencedSOPInstanceUID] == list(place)
        referred.add(source.ReferencedSOPInstanceUID)
    assert referred == set(positions)


@pytest.mark.parametrize("bits", [32, 16])
def test_a_constant_map_can_be_written(series, tools, tmp_path: Path, bits: int) -> None:
    score, _ = tools.make_map(series.read())
    constant = sitk.Cast(score * 0 - 3.25, sitk.sitkFloat32)
    write_parametric_map(constant, series.files, tmp_path / "map.dcm", bits)
    values = real_values(pydicom.dcmread(tmp_path / "map.dcm"), tools)
    assert set(values.ravel()) == {-3.25}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(series, tools, tmp_path: Path, value) -> None:
    score, _ = tools.make_map(series.read())
    score[3, 4, 5] = float(value)
    with pytest.raises(ScreenerError, match="NaN or infinite"):
        write_parametric_map(score, series.files, tmp_path / "map.dcm")
    assert not (tmp_path / "map.dcm").exists()


def test_other_numbers_of_bits_are_refused(series, tools, tmp_path: Path) -> None:
    score, _ = tools.make_map(series.read())
    with pytest.raises(ScreenerError, match="ask for 32 or 16"):
        write_parametric_map(score, series.files, tmp_path / "map.dcm", bits=8)


@pytest.mark.parametrize(
    ("words", "series_text", "content", "label", "explanation", "code"),
    [
        (
            {},
            "Anomaly map (nats)",
            "Anomaly score in nats; research only",
            "NATS",
            "Anomaly score in nats",
            "1",
        ),
        (
            {"unit": "none"},
            "Anomaly map",
            "Anomaly score; research only",
            "SCORE",
            "Anomaly score",
            "1",
        ),
        (
            {"unit": "HU"},
            "Anomaly map (HU)",
            "Anomaly score in HU; research only",
            "HU",
            "Anomaly score in HU",
            "[hnsf'U]",
        ),
    ],
)
def test_the_map_says_its_unit(
    series,
    tools,
    tmp_path: Path,
    words: dict[str, str],
    series_text: str,
    content: str,
    label: str,
    explanation: str,
    code: str,
) -> None:
    score, _ = tools.make_map(series.read())
    write_parametric_map(score, series.files, tmp_path / "map.dcm", **words)
    dataset = pydicom.dcmread(tmp_path / "map.dcm")
    assert (dataset.SeriesDescription, dataset.ContentDescription) == (series_text, content)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    (mapping,) = shared.RealWorldValueMappingSequence
    assert (mapping.LUTLabel, mapping.LUTExplanation) == (label, explanation)
    (unit,) = mapping.MeasurementUnitsCodeSequence
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == (code, "UCUM")
