"""Geometry and values of a read series against SimpleITK, nibabel and the headers themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, RLELossless

from screener_nnu.dicom.finding import find_series
from screener_nnu.dicom.records import Series
from screener_nnu.dicom.volume import DicomVolume, check_series, read_series
from screener_nnu.errors import CaseError
from screener_nnu.inference.images import find_images
from screener_nnu.preprocessing.reading import read_image

Writer = Callable[..., list[Path]]


def only(folder: Path) -> Series:
    found = find_series(folder)
    assert len(found.series) == 1 and not found.left_out, found
    return found.series[0]


def read(folder: Path) -> DicomVolume:
    return read_series(only(folder), "a")


def by_simpleitk(folder: Path) -> tuple[sitk.Image, list[str]]:
    reader = sitk.ImageSeriesReader()
    files = list(reader.GetGDCMSeriesFileNames(str(folder)))
    reader.SetFileNames(files)
    return reader.Execute(), files


# Feet first, head first, sagittal and coronal stacks: columns are the directions of x, y and z.
AXES = {
    "axial": np.eye(3),
    "prone": np.diag([-1.0, -1.0, 1.0]),
    "sagittal": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}


@pytest.mark.parametrize("kind", AXES)
@pytest.mark.parametrize("turned", [False, True])
def test_geometry_equals_that_of_simpleitk(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, oblique: Any, kind: str, turned: bool
) -> None:
    axes = oblique @ AXES[kind] if turned else AXES[kind]
    assert np.linalg.det(axes) == pytest.approx(1)
    files = write_dicom(tmp_path, scan, direction=axes)
    volume = read(tmp_path)
    expected, order = by_simpleitk(tmp_path)
    assert [str(file.path) for file in volume.source.files] == order == [str(f) for f in files]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume.image), scan)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(volume.image), sitk.GetArrayFromImage(expected)
    )
    for one in ("GetSpacing", "GetOrigin", "GetDirection"):
        mine, its = getattr(volume.image, one)(), getattr(expected, one)()
        np.testing.assert_allclose(mine, its, atol=1e-5)
    assert volume.image.GetPixelID() == sitk.sitkInt16


def test_every_voxel_lies_where_its_header_says(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, oblique: np.ndarray
) -> None:
    files = write_dicom(tmp_path / "a", scan, direction=oblique)
    image = read(tmp_path / "a").image
    nifti = tmp_path / "a.nii.gz"
    sitk.WriteImage(image, str(nifti))
    by_nibabel = nibabel.load(nifti)
    for k in (0, 5):
        header = pydicom.dcmread(files[k])
        row, column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        position = np.array(header.ImagePositionPatient, float)
        for j, i in ((0, 0), (3, 17)):
            # DICOM PS3.3, C.7.6.2.1.1: columns go along the row direction, by column spacing.
            place = (
                position + row * header.PixelSpacing[1] * i + column * header.PixelSpacing[0] * j
            )
            np.testing.assert_allclose(
                image.TransformIndexToPhysicalPoint((i, j, k)), place, atol=1e-4
            )
            right_anterior = by_nibabel.affine @ [i, j, k, 1]
            np.testing.assert_allclose(right_anterior[:3] * [-1, -1, 1], place, atol=1e-3)
            assert by_nibabel.get_fdata()[i, j, k] == scan[k, j, i]


def test_files_in_reverse_order_make_the_same_volume(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    def reverse(one: Any, index: int) -> None:
        one.InstanceNumber = 100 - index

    write_dicom(tmp_path / "a", scan)
    # The same slices, written from head to feet.
    write_dicom(
        tmp_path / "b", scan[::-1], spacing=(-3.0, 2.0, 2.5), origin=(-21.5, 33.25, -381.5),
        change=reverse,
    )  # fmt: skip
    first, second = read(tmp_path / "a").image, read(tmp_path / "b").image
    np.testing.assert_array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second))
    assert first.GetOrigin() == second.GetOrigin() and first.GetSpacing() == second.GetSpacing()


def change_at(index: int, **values: Any) -> Callable[[Any, int], None]:
    """Sets values of one slice."""

    def change(one: Any, at: int) -> None:
        if at == index:
            for name, value in values.items():
                setattr(one, name, value)

    return change


def test_missing_slice_is_named(tmp_path: Path, write_dicom: Writer, scan: np.ndarray) -> None:
    files = write_dicom(tmp_path, scan)
    files[3].unlink()
    words = (
        r"missing, up to 6.0 mm .* 3 mm apart: 6.0 mm between slices 3 and 4 \(at -396.5 and -390.5"
    )
    with pytest.raises(CaseError, match=words):
        check_series(only(tmp_path), "a")


def test_cut_off_end_is_no_gap(tmp_path: Path, write_dicom: Writer, scan: np.ndarray) -> None:
    files = write_dicom(tmp_path, scan)
    files[0].unlink()
    files[7].unlink()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(tmp_path).image), scan[1:7])


@pytest.mark.parametrize(("away", "fine"), [(0.25, True), (0.35, False), (1.2, False)])
def test_uneven_spacing(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, away: float, fine: bool
) -> None:
    write_dicom(
        tmp_path, scan, change=change_at(4, ImagePositionPatient=[-21.5, 33.25, -390.5 + away])
    )
    if fine:
        assert read(tmp_path).image.GetSpacing()[2] == pytest.approx(3)
    else:
        with pytest.raises(CaseError, match=r"unevenly spaced.*10% of the mean distance 3 mm"):
            check_series(only(tmp_path), "a")


def test_two_spacings_are_uneven_although_no_step_is_wide(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    def stretch(one: Any, index: int) -> None:
        one.ImagePositionPatient = [0, 0, 3.0 * index + 0.5 * max(0, index - 4)]

    write_dicom(tmp_path, scan, change=stretch)
    with pytest.raises(CaseError, match=r"unevenly spaced: 3 to 3.5 mm apart"):
        check_series(only(tmp_path), "a")


@pytest.mark.parametrize("degrees", [3.0, 15.0])
def test_tilted_gantry(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, degrees: float
) -> None:
    def tilt(one: Any, index: int) -> None:
        a = np.deg2rad(degrees)
        one.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(a)), float(np.sin(a))]
        one.ImagePositionPatient = [0, 0, 3.0 * index]

    write_dicom(tmp_path, np.concatenate([scan] * 3), change=tilt)
    with pytest.raises(CaseError, match=rf"tilted by {degrees:.1f} degrees"):
        check_series(only(tmp_path), "a")


def test_shifted_slice(tmp_path: Path, write_dicom: Writer, scan: np.ndarray) -> None:
    write_dicom(tmp_path, scan, change=change_at(4, ImagePositionPatient=[-31.5, 33.25, -390.5]))
    with pytest.raises(CaseError, match=r"shifted against each other by up to 10.0 mm"):
        check_series(only(tmp_path), "a")


def test_copies_are_dropped_with_a_warning(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    files = write_dicom(tmp_path, scan)
    (tmp_path / "copy").write_bytes(files[2].read_bytes())
    again = pydicom.dcmread(files[5])
    again.SOPInstanceUID, again.ContentTime = "1.2.826.1.77", "235959"
    again.save_as(tmp_path / "again")
    volume = read(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume.image), scan)
    assert len(volume.source.files) == 8
    assert "a: 2 slices are there twice or more; copies dropped" in caplog.messages


def test_different_images_at_one_position_are_refused(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    files = write_dicom(tmp_path, scan)
    again = pydicom.dcmread(files[5])
    again.SOPInstanceUID = "1.2.826.1.77"
    again.PixelData = (scan[4] + 1024).astype("<u2").tobytes()
    again.save_as(tmp_path / "again")
    with pytest.raises(
        CaseError, match=r"2 different images lie at the position of slice 6 \(1 of"
    ):
        read(tmp_path)


def test_rescaling_of_each_slice(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    write_dicom(tmp_path / "a", scan, change=change_at(2, RescaleSlope=0.5, RescaleIntercept=-900))
    array = sitk.GetArrayFromImage(read(tmp_path / "a").image)
    np.testing.assert_array_equal(np.delete(array, 2, 0), np.delete(scan, 2, 0))
    np.testing.assert_allclose(array[2], (scan[2] + 1024) * 0.5 - 900)
    # SimpleITK cuts the halves off.
    expected = sitk.GetArrayFromImage(by_simpleitk(tmp_path / "a")[0])
    np.testing.assert_allclose(array, expected, atol=0.5)
    assert "a: slices have 2 rescalings; each its own" in caplog.messages

    write_dicom(
        tmp_path / "b", scan, change=lambda one, at: at == 2 and delattr(one, "RescaleSlope")
    )
    with pytest.raises(CaseError, match=r"1 of 8 slices state no rescale"):
        check_series(only(tmp_path / "b"), "a")


def test_damaged_pixels_name_the_slice_and_no_file(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    files = write_dicom(tmp_path, scan)
    files[3].write_bytes(files[3].read_bytes()[:-100])
    with pytest.raises(CaseError, match=r"slice 4 of 8 cannot be read") as error:
        read(tmp_path)
    assert files[3].name not in str(error.value) and str(tmp_path) not in str(error.value)


def test_headers_of_the_source(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    write_dicom(tmp_path, scan)
    source = read(tmp_path).source
    headers = list(source.headers())
    assert [h.SOPInstanceUID for h in headers] == [f"1.2.826.1.{i}" for i in range(1, 9)]
    assert all("PixelData" not in header for header in headers)
    assert source.series_uid == "1.2.826.1" and source.info.study_uid == "1.2.826.9"


def test_file_without_preamble(tmp_path: Path, write_dicom: Writer, scan: np.ndarray) -> None:
    def implicit(one: Any, index: int) -> None:
        one.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian

    for file in write_dicom(tmp_path, scan, change=implicit):
        one = pydicom.dcmread(file)
        del one.file_meta
        one.preamble = None
        pydicom.dcmwrite(file, one, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert file.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(tmp_path).image), scan)


@pytest.mark.parametrize("compressor", ["RLE", "JPEG2000", "JPEG"])
def test_compressed_pixels(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, compressor: str
) -> None:
    """`JPEG` is JPEG lossless, which pydicom cannot decode by itself and GDCM can."""
    for file in write_dicom(tmp_path, scan):
        one = pydicom.dcmread(file)
        if compressor == "RLE":
            one.compress(RLELossless, generate_instance_uid=False)
            one.save_as(file)
            continue
        image = sitk.ReadImage(str(file))
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.KeepOriginalImageUIDOn()
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.SetFileName(str(file))
        writer.Execute(image)
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(tmp_path).image), scan)


def test_missing_decoder_says_what_to_install(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    # Nothing here decodes high-throughput JPEG 2000.
    syntax = pydicom.uid.HTJ2KLossless
    if pydicom.pixels.get_decoder(syntax).is_available:
        pytest.skip("a decoder is installed")

    def compress(one: Any, index: int) -> None:
        one.file_meta.TransferSyntaxUID = syntax
        one.PixelData = pydicom.encaps.encapsulate([b"\x00" * 64])

    write_dicom(tmp_path, scan, change=compress)
    with pytest.raises(
        CaseError, match=r"High-Throughput JPEG 2000.*pip install 'pylibjpeg\[all\]'"
    ):
        read(tmp_path)


def item(**values: Any) -> Sequence:
    one = Dataset()
    for name, value in values.items():
        setattr(one, name, value)
    return Sequence([one])


def write_enhanced(file: Path, template: Path, scan: np.ndarray, axes: np.ndarray) -> None:
    """One multi-frame file (Enhanced CT), frames from head to feet."""
    one = pydicom.dcmread(template)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(one, name)
    for name in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        delattr(one, name)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    one.NumberOfFrames = len(scan)
    one.PixelData = (scan[::-1] + 1024).astype("<u2").tobytes()
    shared = Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=[2.0, 2.5], SliceThickness=3.0)
    shared.PlaneOrientationSequence = item(
        ImageOrientationPatient=[f"{v:.10f}" for v in axes[:, :2].T.ravel()]
    )
    shared.PixelValueTransformationSequence = item(
        RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"
    )
    one.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for index in reversed(range(len(scan))):
        frame = Dataset()
        place = np.array([-21.5, 33.25, -402.5]) + 3.0 * index * axes[:, 2]
        frame.PlanePositionSequence = item(ImagePositionPatient=[f"{v:.8g}" for v in place])
        frames.append(frame)
    one.PerFrameFunctionalGroupsSequence = Sequence(frames)
    one.save_as(file)


def test_enhanced_ct_equals_the_files_of_single_slices(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, oblique: np.ndarray
) -> None:
    files = write_dicom(tmp_path / "single", scan, direction=oblique)
    (tmp_path / "multi").mkdir()
    write_enhanced(tmp_path / "multi" / "all", files[0], scan, oblique)
    single, volume = read(tmp_path / "single"), read(tmp_path / "multi")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume.image), scan)
    for one in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(volume.image, one)(), getattr(single.image, one)())
    assert [s.frame for s in volume.source.slices] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert len(list(volume.source.headers())) == 1
    assert find_series(tmp_path / "multi" / "all").series[0].slices == volume.source.slices[::-1]


def test_a_single_file_is_read_as_dicom(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, oblique: np.ndarray
) -> None:
    """Frames in their places, whatever their order: SimpleITK stacks them as they come."""
    files = write_dicom(tmp_path / "single", scan, direction=oblique)
    file = tmp_path / "scan.dcm"
    write_enhanced(file, files[0], scan, oblique)
    found = find_images(file)
    assert list(found) == ["scan"] and isinstance(found["scan"], Series)
    for source in (found["scan"], file):
        raw = read_image(source, "scan")
        assert raw.source is not None and raw.spacing == pytest.approx((3.0, 2.0, 2.5))
        np.testing.assert_array_equal(np.unique(raw.array), np.unique(scan))
        assert raw.geometry.size == scan.shape[::-1]


def test_odd_values_of_headers_are_not_logged(
    tmp_path: Path,
    write_dicom: Writer,
    scan: np.ndarray,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.DEBUG)

    def odd(one: Any, index: int) -> None:
        text = "NIGHTINGALE" * 10
        one.add(pydicom.DataElement("SeriesDescription", "LO", text, validation_mode=0))

    files = write_dicom(tmp_path, scan, change=odd)
    caplog.clear()
    recwarn.clear()
    list(read(tmp_path).source.headers())
    texts = [*caplog.messages, *(str(warning.message) for warning in recwarn)]
    assert texts == []
    assert pydicom.dcmread(files[0]).SeriesDescription
    assert len(recwarn) + len(caplog.messages) > 0
