"""DICOM Segmentations, read by the standard's equations and by highdicom."""

from __future__ import annotations

import random
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.uid import SegmentationStorage

from screener_nnu import __version__
from screener_nnu.dicom_output import write_dicom_seg

ORIENTATIONS = ("LPS", "RAS", "LAI", "SPL", "ARI")


def labels_of_pixels(dataset, image: sitk.Image, tools) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels of an image as the frames of an object tell them, and its voxels per frame."""
    labels = np.zeros(image.GetSize()[::-1], dtype=int)
    indices = []
    frames, numbers = tools.frames(dataset), tools.segments(dataset)
    for frame, number, places in zip(frames, numbers, tools.places(dataset), strict=True):
        points = places.reshape(-1, 3).tolist()
        index = np.array([image.TransformPhysicalPointToIndex(point) for point in points])
        indices.append(index)
        x, y, z = index[frame.ravel() > 0].T
        assert not labels[z, y, x].any(), "segments overlap"
        labels[z, y, x] = number
    return labels, indices


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_voxel_of_every_segment_lies_where_the_image_has_it(
    series, tools, tmp_path: Path, orientation: str
) -> None:
    image = sitk.DICOMOrient(series.read(), orientation)
    findings = tools.make_findings(image)
    assert len(findings.rows) > 3
    write_dicom_seg(findings, series.files, tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    found, _ = labels_of_pixels(dataset, findings.image, tools)
    np.testing.assert_array_equal(found, sitk.GetArrayViewFromImage(findings.image))


def test_the_order_of_the_files_does_not_matter(series, tools, tmp_path: Path) -> None:
    findings = tools.make_findings(series.read())
    stored = []
    for seed in range(3):
        files = random.Random(seed).sample(series.files, len(series.files))
        write_dicom_seg(findings, files, tmp_path / "seg.dcm")
        stored.append(pydicom.dcmread(tmp_path / "seg.dcm").PixelData)
    assert stored[0] == stored[1] == stored[2]


def test_datasets_do_as_well_as_paths_and_stay_as_they_are(series, tools, tmp_path: Path) -> None:
    findings = tools.make_findings(series.read())
    datasets, untouched = series.datasets(), series.datasets()
    for dataset in (*datasets, *untouched):
        del dataset.AccessionNumber
    write_dicom_seg(findings, datasets, tmp_path / "seg.dcm")
    assert datasets == untouched
    write_dicom_seg(findings, series.files, tmp_path / "other.dcm")
    pixels = [pydicom.dcmread(tmp_path / name).PixelData for name in ("seg.dcm", "other.dcm")]
    assert pixels[0] == pixels[1]


def test_highdicom_sees_the_geometry_of_the_series(series, tools, tmp_path: Path) -> None:
    findings = tools.make_findings(series.read())
    write_dicom_seg(findings, series.files, tmp_path / "seg.dcm")
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    volume = seg.get_volume(combine_segments=True)
    labels = sitk.GetArrayFromImage(findings.image)
    # highdicom's axes are slices, rows, columns; slices without a finding at the ends are no part.
    to_slice = np.linalg.inv(series.affine) @ volume.affine
    used = np.flatnonzero(labels.any(axis=(1, 2)))
    step = int(np.sign(to_slice[2, 0]))
    start = used[0] if step == 1 else used[-1]
    expected = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [step, 0, 0, start], [0, 0, 0, 1]])
    np.testing.assert_allclose(to_slice, expected, atol=1e-5)
    np.testing.assert_array_equal(volume.array, labels[used[0] : used[-1] + 1][::step])


def test_each_frame_refers_to_the_slice_it_lies_on(series, tools, tmp_path: Path) -> None:
    write_dicom_seg(tools.make_findings(series.read()), series.files, tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    positions = {d.SOPInstanceUID: list(d.ImagePositionPatient) for d in series.datasets()}
    for item in dataset.PerFrameFunctionalGroupsSequence:
        (source,) = item.DerivationImageSequence[0].SourceImageSequence
        place = item.PlanePositionSequence[0].ImagePositionPatient
        assert positions[source.ReferencedSOPInstanceUID] == list(place)
    (referenced,) = dataset.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == series.datasets()[0].SeriesInstanceUID
    instances = {i.ReferencedSOPInstanceUID for i in referenced.ReferencedInstanceSequence}
    assert instances == set(positions)


def test_segments_say_what_they_are_and_who_made_them(series, tools, tmp_path: Path) -> None:
    findings = tools.make_findings(series.read(), percentile=lambda score: 98.76543)
    write_dicom_seg(findings, series.files, tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert dataset.SOPClassUID == SegmentationStorage
    colours = {tuple(s.RecommendedDisplayCIELabValue) for s in dataset.SegmentSequence}
    assert len(colours) == len(findings.rows)
    assert (dataset.Modality, dataset.SegmentationType) == ("SEG", "BINARY")
    assert [s.SegmentNumber for s in dataset.SegmentSequence] == [r.number for r in findings.rows]
    for segment, row in zip(dataset.SegmentSequence, findings.rows, strict=True):
        peak = f"peak {row.peak_score:.2f} nats, percentile 98.77"
        assert segment.SegmentLabel == f"Finding {row.number} ({peak})"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        codes = []
        for keyword in ("SegmentedPropertyCategory", "SegmentedPropertyType"):
            code = segment[f"{keyword}CodeSequence"].value[0]
            codes.append((code.CodingSchemeDesignator, code.CodeValue))
        assert codes == [("SCT", "49755003"), ("SCT", "52988006")]
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "screener_nnu"
        assert algorithm.AlgorithmVersion == __version__
        assert algorithm.AlgorithmParameters == "threshold_nats=13,minimum_ml=0.01"


def test_nothing_found_is_a_segment_without_voxels(series, tools, tmp_path: Path) -> None:
    findings = tools.make_findings(series.read(), threshold=1000.0)
    write_dicom_seg(findings, series.files, tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    (segment,) = dataset.SegmentSequence
    assert segment.SegmentLabel == "No finding above 1000 nats"
    assert dataset.NumberOfFrames == tools.shape[0]
    assert not tools.frames(dataset).any()
    _, indices = labels_of_pixels(dataset, findings.image, tools)
    assert sorted(index[0, 2] for index in indices) == list(range(tools.shape[0]))


def test_too_many_findings_become_one_segment(series, tools, tmp_path: Path) -> None:
    findings = tools.make_findings(series.read())
    number = len(findings.rows)
    for most, segments in ((number, number), (number - 1, 1)):
        write_dicom_seg(findings, series.files, tmp_path / "seg.dcm", most_segments=most)
        dataset = pydicom.dcmread(tmp_path / "seg.dcm")
        assert len(dataset.SegmentSequence) == segments
    assert dataset.SegmentSequence[0].SegmentLabel == f"{number} findings above 13 nats"
    found, _ = labels_of_pixels(dataset, findings.image, tools)
    np.testing.assert_array_equal(found > 0, sitk.GetArrayViewFromImage(findings.image) > 0)


def test_findings_that_are_not_listed_are_told(series, tools, tmp_path: Path) -> None:
    everything = len(tools.make_findings(series.read()).rows)
    findings = tools.make_findings(series.read(), limit=2)
    write_dicom_seg(findings, series.files, tmp_path / "seg.dcm")
    description = pydicom.dcmread(tmp_path / "seg.dcm").ContentDescription
    expected = f"2 findings above 13 nats, {everything - 2} more not listed; research only"
    assert description == expected
    assert len(description) <= 64


def test_slices_at_uneven_distances_keep_their_own_places(tools, tmp_path: Path) -> None:
    heights = tools.distance * np.arange(tools.shape[0]) + np.array([0, 1, -1, 1, 0, -1, 1, -1, 0])
    series = tools.write_series(tmp_path / "uneven", heights=heights)
    findings = tools.make_findings(series.read())
    write_dicom_seg(findings, series.files, tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    labels = sitk.GetArrayViewFromImage(findings.image)
    positions = [list(d.ImagePositionPatient) for d in series.datasets()]
    normal = tools.oblique[:, 2]
    positions = sorted(positions, key=lambda place: float(np.dot(place, normal)))
    for frame, number, item in zip(
        tools.frames(dataset),
        tools.segments(dataset),
        dataset.PerFrameFunctionalGroupsSequence,
        strict=True,
    ):
        index = positions.index(list(item.PlanePositionSequence[0].ImagePositionPatient))
        np.testing.assert_array_equal(frame > 0, labels[index] == number)


@pytest.mark.parametrize(("unit", "shown"), [("none", ""), ("HU", " HU")])
def test_scores_without_or_of_another_unit(
    series, tools, tmp_path: Path, unit: str, shown: str
) -> None:
    findings = tools.make_findings(series.read(), unit=unit)
    number, path = len(findings.rows), tmp_path / "seg.dcm"
    write_dicom_seg(findings, series.files, path)
    dataset = pydicom.dcmread(path)
    assert dataset.ContentDescription == f"{number} findings above 13{shown}; research only"
    for segment, row in zip(dataset.SegmentSequence, findings.rows, strict=True):
        assert segment.SegmentLabel == f"Finding {row.number} (peak {row.peak_score:.2f}{shown})"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmParameters == f"threshold=13{shown},minimum_ml=0.01"
    write_dicom_seg(findings, series.files, path, most_segments=1)
    label = pydicom.dcmread(path).SegmentSequence[0].SegmentLabel
    assert label == f"{number} findings above 13{shown}"
    write_dicom_seg(
        tools.make_findings(series.read(), threshold=1000.0, unit=unit), series.files, path
    )
    label = pydicom.dcmread(path).SegmentSequence[0].SegmentLabel
    assert label == f"No finding above 1000{shown}"
