"""Odd DICOM exports."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

pytestmark = pytest.mark.slow
situation = pytest.mark.situation
Series = Callable[..., list[Path]]
Change = Callable[[Any, int], object]
ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def case(value: Any, given: str, code: int, *says: str) -> Any:
    """A parameter that is a situation, and so a row, of its own."""
    return pytest.param(value, marks=situation(given, code, *says), id=given)


@pytest.fixture
def series(place: Any, write_dicom: Any) -> Series:
    """Writes a scan of the data set as a series; gives its files in the order of the slices."""
    place.own_raw()

    def write(name: str = "in", change: Change | None = None, uid: str = "1.2.826.1") -> list[Path]:
        source = sorted((place.world.raw / "imagesTr").iterdir())[0]
        image = sitk.DICOMOrient(sitk.ReadImage(str(source)), "LPS")
        array = np.rint(sitk.GetArrayFromImage(image)).astype(np.int16)
        spacing = image.GetSpacing()[::-1]
        return write_dicom(place.root / name, array, uid=uid, spacing=spacing, change=change)

    return write


def _both(place: Any, code: int, *says: str) -> None:
    """Predicts and imports `in`; an import writes nothing where nothing is predicted."""
    place.predict()
    place.code, place.says = code, says
    place.run("import_data", "-i", place.root / "in", "-d", 510, "--name", "My", "-np", 0)


def _signed(one: Any, _: int) -> None:
    """Stores HU as they are."""
    values = np.frombuffer(one.PixelData, "<u2").astype(np.int32) - 1024
    one.PixelData = values.astype("<i2").tobytes()
    one.PixelRepresentation, one.BitsStored, one.HighBit, one.RescaleIntercept = 1, 16, 15, 0


def _backwards(one: Any, index: int) -> None:
    one.InstanceNumber = 100 - index


def _identify(one: Any, uid: str) -> None:
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid


def _no_slope(one: Any, _: int) -> None:
    del one.RescaleSlope


def _rle(one: Any, _: int) -> None:
    one.compress(RLELossless)


def _deflated(one: Any, _: int) -> None:
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def _set(**values: Any) -> Change:
    def change(one: Any, _: int) -> None:
        for name, value in values.items():
            if value is None:
                delattr(one, name)
            else:
                setattr(one, name, value)

    return change


SAME = "the map is that of the plain one"
MAPS = "2 maps in .*, 0 scans skipped"
HEADERS = situation(f"signed values, no rescale slope, instance numbers backwards: {SAME}", 0, MAPS)
PACKED = situation(f"RLE and deflated series: {SAME}", 0, MAPS)
ONE_UID = f"all slices have one SOP Instance UID, as some tools do: {SAME}"


@pytest.mark.parametrize(
    "change",
    [
        *(pytest.param(change, marks=HEADERS) for change in (_signed, _no_slope, _backwards)),
        case(lambda one, _: _identify(one, "1.2.3"), ONE_UID, 0, MAPS),
        *(pytest.param(change, marks=PACKED) for change in (_rle, _deflated)),
    ],
)
def test_map_is_that_of_the_plain_series(place: Any, series: Series, change: Change) -> None:
    series("in/plain", uid="1.2.826.2")
    for index, path in enumerate(series("in/odd")):
        one: Any = pydicom.dcmread(path)
        change(one, index)
        one.save_as(path)
    place.predict()
    maps = (sitk.ReadImage(str(place.root / f"out/{name}.nii.gz")) for name in ("odd", "plain"))
    odd, plain = (sitk.GetArrayFromImage(image) for image in maps)
    np.testing.assert_array_equal(odd, plain)


@situation(
    "files of a series that are there twice, or again under another UID, and a `DICOMDIR`",
    0,
    "slices are there twice or more; copies dropped",
    "1 maps in",
)
@pytest.mark.parametrize("renamed", [True, False])
def test_copies(place: Any, series: Series, renamed: bool) -> None:
    files = series()
    for path in files[:3]:
        copy = path.with_name(f"{path.name}_copy")
        shutil.copy(path, copy)
        if renamed:
            one: Any = pydicom.dcmread(copy)
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = (
                f"1.2.9{one.InstanceNumber}"
            )
            one.save_as(copy)
    (place.root / "in/DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(64))
    place.predict()


@situation("two series lie in one folder", 0, "2 maps in .*, 0 scans skipped")
def test_mixed_series(place: Any, series: Series) -> None:
    series()
    series(uid="1.2.826.2")
    place.predict()


def _tilted(one: Any, index: int) -> None:
    x, y, z = (float(value) for value in one.ImagePositionPatient)
    one.ImagePositionPatient = [x, y + 3.0 * index, z]


def _sized(one: Any, index: int) -> None:
    if index == 7:
        one.PixelSpacing = [8, 8]


@pytest.mark.parametrize(
    "change",
    [
        case(
            _set(RescaleIntercept=None, RescaleSlope=None),
            "no rescale tags at all", 1, "skipped in: .*looks like HU \\+ 1024: subtract 1024",
        ),
        case(_set(RescaleSlope=0), "a rescale slope of 0", 1, "skipped in: .*nothing but air"),
        case(
            _set(PhotometricInterpretation="MONOCHROME1"),
            "inverted pictures (MONOCHROME1)", 1, "pictures in MONOCHROME1, not CT values",
        ),
        case(
            _set(SOPClassUID=SECONDARY_CAPTURE, ImagePositionPatient=None),
            "pictures of a screen", 1, "a secondary capture \\(a picture of a screen\\)",
        ),
        case(
            _set(ImageType=["DERIVED", "SECONDARY", "MIP"]),
            "projections", 1, "a projection or rendering \\(Image Type MIP\\)",
        ),
        case(_set(Modality="MR"), "MR", 1, "modality MR, not CT"),
        case(_tilted, "a tilted gantry", 1, "skipped in: the gantry was tilted by 13.7 degrees"),
        case(_sized, "one slice with other pixel sizes", 1, "skipped in: slices are missing"),
        case(_set(Rows=65535, Columns=65535), "a matrix of 65,535^2", 1, "voxels is no scan"),
        case(_set(PixelData=None), "no pixel data", 1, "cannot be read .it has no pixel data"),
    ],
)  # fmt: skip
def test_series_that_is_no_scan(place: Any, series: Series, change: Change) -> None:
    series(change=change)
    says = place.says[0].replace("skipped in: ", "")
    _both(place, 1, f"skipped ct_.*{says}")
    assert not list((place.world.root / "raw").glob("*_My/imagesTr/*.nii.gz"))


@situation("a slice is missing", 1, "skipped in: slices are missing, up to 24.7 mm are empty")
def test_missing_slice(place: Any, series: Series) -> None:
    series()[10].unlink()
    place.predict()


@situation(
    "two different pictures lie at one position", 1, "2 different images lie at the position of"
)
def test_two_pictures_at_one_place(place: Any, series: Series) -> None:
    path = series()[3]
    one: Any = pydicom.dcmread(path)
    _identify(one, "1.2.9")
    one.PixelData = bytes(len(one.PixelData))
    one.save_as(path.with_name("other"))
    place.predict()


@situation(
    "one file is torn", 1, "skipped in: slice 10 of 24 cannot be read .*cut short.*: copy it again"
)
def test_torn_file(place: Any, series: Series) -> None:
    path = series()[9]
    path.write_bytes(path.read_bytes()[:-700])
    place.predict()


@situation(
    "a voxel size is written with a comma",
    1,
    "the header of 24 DICOM files is damaged: copy or export again",
    "no image in",
)
def test_damaged_headers(place: Any, series: Series) -> None:
    def comma(one: Any, _: int) -> None:
        del one.PixelSpacing
        one.add_new(0x00280030, "LO", "7,46\\7,46")

    series(change=comma)
    place.predict()


@pytest.mark.parametrize(
    "syntax",
    [
        case("1.2.840.10008.1.2.4.201", "a compression without a decoder", 1, "no decoder is inst"),
        case(
            "1.2.840.10008.1.2.4.90", "compressed pixels that are damaged", 1, "pixels are damaged"
        ),
    ],
)
def test_compressed_pixels(place: Any, series: Series, syntax: str) -> None:
    for path in series():
        one: Any = pydicom.dcmread(path)
        one.file_meta.TransferSyntaxUID = syntax
        one.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
        one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
        one.save_as(path)
    place.predict()


def _enhance(files: list[Path], path: Path, change: Change | None = None) -> None:
    """The slices as frames of one file."""
    slices = [pydicom.dcmread(file) for file in files]
    one: Any = slices[0]
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = ENHANCED
    one.NumberOfFrames = len(slices)

    def group(**values: Any) -> list[Dataset]:
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        return [item]

    shared, frames = Dataset(), []
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=one.ImageOrientationPatient)
    shared.PixelMeasuresSequence = group(PixelSpacing=one.PixelSpacing, SliceThickness=12)
    shared.PixelValueTransformationSequence = group(
        RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"
    )
    for slice_ in slices:
        frames.append(Dataset())
        frames[-1].PlanePositionSequence = group(ImagePositionPatient=slice_.ImagePositionPatient)
    one.SharedFunctionalGroupsSequence, one.PerFrameFunctionalGroupsSequence = [shared], frames
    one.PixelData = b"".join(slice_.PixelData for slice_ in slices)
    del one.ImagePositionPatient, one.ImageOrientationPatient, one.PixelSpacing
    if change is not None:
        change(one, 0)
    for file in files:
        file.unlink()
    one.save_as(path)


@situation(
    "`--dicom`, and the scan is one file of many frames (Enhanced CT)",
    1,
    "no DICOM map: its file has 24 frames \\(Enhanced CT\\), and DICOM objects are made of series",
    "1 maps in",
)
def test_enhanced_ct(place: Any, series: Series) -> None:
    _enhance(series(), place.root / "in/enhanced")
    place.predict("--dicom", "--threshold", 5)


@situation(
    "a file of many frames states a billion of them, or holds half of its pixels",
    1,
    "skipped in: slice 1 of 24 cannot be read .*its pixels are cut short",
)
@pytest.mark.parametrize("half", [True, False])
def test_frames_that_are_not_there(place: Any, series: Series, half: bool) -> None:
    def change(one: Any, _: int) -> None:
        if half:
            one.PixelData = one.PixelData[: len(one.PixelData) // 2]
        else:
            one.NumberOfFrames = 10**9

    _enhance(series(), place.root / "in/enhanced", change)
    place.predict()


@situation(
    "a zip within a zip, a tar or a 7z among good series",
    0,
    "1 packed file not looked into .*unpack what holds scans",
)
@pytest.mark.parametrize("kind", ["zip", "tar", "7z"])
def test_packed_files(place: Any, series: Series, kind: str) -> None:
    series("in/good")
    files = series("other", uid="1.2.826.2")
    if kind == "zip":
        with zipfile.ZipFile(place.root / "inner.zip", "w") as archive:
            for path in files:
                archive.write(path, path.name)
        with zipfile.ZipFile(place.root / "in/outer.zip", "w") as archive:
            archive.write(place.root / "inner.zip", "inner.zip")
    elif kind == "tar":
        with tarfile.open(place.root / "in/x.tar.gz", "w:gz") as packed:
            packed.add(files[0], files[0].name)
    else:
        (place.root / "in/x.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(200))
    _both(place, 0, "1 packed file not looked into", "1 taken")


@situation("a zip whose members lead out of it (`../../x`)", 0, "1 maps in .*, 0 scans skipped")
def test_members_that_lead_out(place: Any, series: Series) -> None:
    files = series("other")
    with zipfile.ZipFile(place.path("in/export.zip"), "w") as archive:
        for path in files:
            archive.write(path, f"../../{path.name}")
    before = set(place.root.parent.rglob("I*"))
    place.predict()
    assert set(place.root.parent.rglob("I*")) == before


@situation("a pipe lies among the slices of a series", 0, "1 maps in .*, 0 scans skipped")
def test_pipe_among_slices(place: Any, series: Series) -> None:
    series()
    os.mkfifo(place.root / "in/pipe")
    place.predict()
