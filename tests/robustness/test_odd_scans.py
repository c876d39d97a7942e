"""Odd scans."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

pytestmark = pytest.mark.slow
situation = pytest.mark.situation
Header = Any


def case(value: Any, given: str, code: int, *says: str) -> Any:
    """A parameter that is a situation, and so a row, of its own."""
    return pytest.param(value, marks=situation(given, code, *says), id=given)


def each(writers: dict[str, Callable[[Any], object]], given: str, code: int, *says: str) -> list:
    """Parameters that are one situation, and so one row, together."""
    marks = situation(given, code, *says)
    return [pytest.param(write, marks=marks, id=name) for name, write in writers.items()]


def _source(place: Any) -> Path:
    return sorted((place.world.raw / "imagesTr").iterdir())[0]


def _voxels(place: Any) -> NDArray:
    """HU (x, y, z) of a scan."""
    image: Any = nibabel.load(_source(place))
    return np.asanyarray(image.dataobj)


def _nifti(
    place: Any,
    values: NDArray | None = None,
    version: type = nibabel.Nifti1Header,
    order: Literal["<", ">"] = "<",
    change: Callable[[Header], object] | None = None,
) -> Path:
    """Writes `in/anna.nii.gz` byte by byte, as no library would.

    Args:
        place: where.
        values: (x, y, z and more); those of a scan by default.
        version: of the header.
        order: of the bytes.
        change: of the header, at last.
    """
    like: Any = nibabel.load(_source(place))
    values = _voxels(place) if values is None else values
    header = version(endianness=order)
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_zooms((*like.header.get_zooms()[:3], *[1] * (values.ndim - 3)))
    header.set_sform(like.affine, 1)
    header.set_qform(like.affine, 1)
    header.set_xyzt_units(2)
    one = version is nibabel.Nifti1Header
    header["magic"], header["vox_offset"] = (b"n+1", 352) if one else (b"n+2\0\r\n\x1a\n", 544)
    if change is not None:
        change(header)
    block = header.binaryblock + b"\0" * 4
    if values.dtype.names is None:
        values = values.astype(values.dtype.newbyteorder(order))
    content = gzip.compress(block + values.tobytes(order="F"), 1)
    return place.mine(place.root / "in/anna.nii.gz", content)


def _set(name: str, value: Any) -> Callable[[Header], object]:
    return lambda header: header.__setitem__(name, value)


def _metres(header: Header) -> None:
    header.set_xyzt_units(1)
    header["pixdim"][1:4] /= 1000
    for name in ("srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y", "qoffset_z"):
        header[name] = header[name] / 1000


def _typed(kind: str) -> Callable[[Any], object]:
    return lambda place: _nifti(place, _voxels(place).astype(kind))


LEGITIMATE: dict[str, Callable[[Any], object]] = {
    "NIfTI-2": lambda place: _nifti(place, version=nibabel.Nifti2Header),
    "big-endian": lambda place: _nifti(place, order=">"),
    "big-endian NIfTI-2": lambda place: _nifti(place, version=nibabel.Nifti2Header, order=">"),
    "float64": _typed("f8"),
    "int32": _typed("i4"),
    "int64": _typed("i8"),
    "4D of one": lambda place: _nifti(place, _voxels(place)[..., None]),
    "5D of one": lambda place: _nifti(place, _voxels(place)[..., None, None]),
    "slope NaN": lambda place: _nifti(place, change=_set("scl_slope", np.nan)),
    "slope 0": lambda place: _nifti(place, change=_set("scl_slope", 0)),
    "metres": lambda place: _nifti(place, change=_metres),
}


def _rescaled(slope: float, intercept: float, kind: type) -> Callable[[Any], object]:
    def rescale(header: Header) -> None:
        header["scl_slope"], header["scl_inter"] = slope, intercept

    def write(place: Any) -> object:
        stored = (_voxels(place).astype(np.float64) - intercept) / slope
        return _nifti(place, stored.astype(kind), change=rescale)

    return write


def _members(place: Any) -> object:
    plain = gzip.decompress(_source(place).read_bytes())
    parts = (plain[first : first + 20000] for first in range(0, len(plain), 20000))
    content = b"".join(gzip.compress(part, 1) for part in parts)
    return place.mine(place.root / "in/anna.nii.gz", content)


def _copy(name: str, behind: bytes = b"") -> Callable[[Any], object]:
    return lambda place: place.mine(place.root / name, _source(place).read_bytes() + behind)


@pytest.mark.parametrize(
    "write",
    [
        *each(
            LEGITIMATE,
            "NIfTI-2, big-endian, float64, int32, int64, 4D of one volume, a slope of NaN or 0, "
            "sizes in metres: the map is that of the plain file",
            0,
            "2 maps in .*, 0 scans skipped",
        ),
        *each(
            {"uint16": _rescaled(1, -1024, np.uint16), "halves": _rescaled(2, 0, np.float32)},
            "values are stored as unsigned HU + 1024 with an intercept of -1024, or as halves with "
            "a slope of 2: the map is that of the plain file",
            0,
            "2 maps in .*, 0 scans skipped",
        ),
        *each(
            {"members": _members, "zeros": _copy("in/anna.nii.gz", bytes(700))},
            "a gzip file of several members, or with zeros behind it: the map is that of the plain "
            "file",
            0,
            "2 maps in .*, 0 scans skipped",
        ),
    ],
)
def test_map_is_that_of_the_plain_file(place: Any, write: Callable[[Any], object]) -> None:
    write(place)
    place.person("in/plain.nii.gz")
    place.predict("--threshold", 5)
    for name in ("", "_body", "_mask"):
        odd, plain = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(place.root / f"out/{one}{name}.nii.gz")))
            for one in ("anna", "plain")
        )
        np.testing.assert_array_equal(odd, plain)


def _complex(place: Any) -> object:
    return _nifti(place, _voxels(place).astype(np.complex64))


def _colours(place: Any) -> object:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return _nifti(place, np.zeros(_voxels(place).shape, kind))


def _spot(value: float, kind: str = "f4") -> Callable[[Any], object]:
    def write(place: Any) -> object:
        values = _voxels(place).astype(kind)
        values[10, 10, 10] = value
        return _nifti(place, values)

    return write


def _no_intercept(header: Header) -> None:
    header["scl_slope"], header["scl_inter"] = 1, np.nan


def _text(name: str, pattern: bytes, by: bytes) -> Callable[[Any], object]:
    """A scan whose text header is changed."""

    def write(place: Any) -> object:
        path = place.person(name)
        content, count = re.subn(pattern, by, path.read_bytes(), flags=re.MULTILINE)
        assert count
        return place.mine(path, content)

    return write


LARGE = [3, 32767, 32767, 32767, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "write",
    [
        case(
            lambda place: _nifti(place, np.stack([_voxels(place)] * 2, -1)),
            "4D of two volumes", 1, "the image is 4D: give one 3D CT",
        ),
        case(_complex, "complex numbers", 1, "with 2 components: give one 3D CT"),
        case(_colours, "colours", 1, "components: give one 3D CT"),
        case(
            lambda place: _nifti(place, _voxels(place).astype("i2").view("u2")),
            "negative HU stored as unsigned numbers", 1, "no value is negative",
        ),
        case(
            lambda place: _nifti(place, _voxels(place)[:, :, 10:11]),
            "a scan of one slice", 1, "only .* voxels .*: give the whole 3D scan in one file",
        ),
        case(
            lambda place: _nifti(place, change=_no_intercept),
            "a slope of 1 with an intercept of NaN", 1, "rescales values by no number: correct",
        ),
        case(
            lambda place: _nifti(place, change=_set("vox_offset", 0)),
            "voxels that begin within the header", 1, "its header is damaged .*vox_offset 0 lies",
        ),
        case(
            lambda place: _nifti(place, change=_set("vox_offset", np.nan)),
            "voxels that begin at NaN", 1, "its header is damaged .*vox_offset nan",
        ),
        case(
            lambda place: _nifti(place, change=_set("dim", LARGE)),
            "a small file whose header states 32767^3 voxels", 1, "the file is cut short",
        ),
        case(
            lambda place: _nifti(place, change=_set("dim", [3, -39, 34, 24, 1, 1, 1, 1])),
            "a negative number of voxels", 1, "its header is damaged",
        ),
        case(_spot(1e30), "one voxel of 1e30", 1, "it holds values such as 1e\\+30, far beyond"),
        case(_spot(1e300, "f8"), "one voxel of 1e300", 1, "it holds values such as 1e\\+300, far"),
        case(_spot(-1e30), "one voxel of -1e30", 1, "it holds values such as -1e\\+30, far beyond"),
        case(
            _text("in/anna.mha", rb"^ElementSpacing = \S+", rb"ElementSpacing = -9"),
            "an `.mha` with a negative voxel size", 1, "its voxel sizes are \\(-9",
        ),
        case(
            _text("in/anna.mha", rb"^ElementSpacing = .*\n", b""),
            "an `.mha` without voxel sizes", 1, "its header does not say how large a voxel is",
        ),
        case(
            _text("in/anna.nrrd", rb"^space.*\n", b""),
            "a `.nrrd` without voxel sizes", 1, "its header does not say how large a voxel is",
        ),
        case(
            _text("in/anna.mha", rb"^DimSize = .*", b"DimSize = 32767 32767 32767"),
            "a small `.mha` that states 32767^3 voxels", 1, "far more than the file can hold",
        ),
        case(
            _text("in/anna.nrrd", rb"^sizes: .*", b"sizes: 32767 32767 32767"),
            "a small `.nrrd` that states 32767^3 voxels", 1, "far more than the file can hold",
        ),
    ],
)  # fmt: skip
def test_what_no_scan_is(place: Any, write: Callable[[Any], object]) -> None:
    write(place)
    place.says = (f"skipped anna: .*{place.says[0]}",)
    place.predict()
    assert not list(place.root.glob("out/anna*"))


@situation(
    "metal of 30,000 HU, padding of -32768, an origin 20 m away", 0, "1 maps in .*, 0 scans skipped"
)
@pytest.mark.parametrize("kind", ["metal", "padding", "origin"])
def test_extremes(place: Any, kind: str) -> None:
    def change(array: NDArray) -> NDArray:
        if kind == "metal":
            array[8:11, 8:11, 8:11] = 30000
        elif kind == "padding":
            array[:, :, :3] = -32768
        return array

    path = place.person(change=change)
    if kind == "origin":
        image = sitk.ReadImage(str(path))
        image.SetOrigin((20000.0, -20000.0, 20000.0))
        sitk.WriteImage(image, str(path))
        place.mine(path)
    place.predict()
    score = sitk.GetArrayFromImage(sitk.ReadImage(str(place.root / "out/anna.nii.gz")))
    assert np.isfinite(score).all()


def _changed(
    change: Callable[[sitk.Image], sitk.Image], name: str = "in/anna.nii.gz"
) -> Callable[[Any], object]:
    def write(place: Any) -> object:
        path = place.path(name)
        sitk.WriteImage(change(sitk.ReadImage(str(_source(place)))), str(path))
        return place.mine(path)

    return write


def _voxel(image: sitk.Image, *sizes: float) -> sitk.Image:
    image.SetSpacing(sizes)
    return image


def _scaled(factor: float) -> Callable[[Any], object]:
    return _changed(lambda image: _voxel(image, *(size * factor for size in image.GetSpacing())))


def _beside(make: Callable[[Path], object]) -> Callable[[Any], object]:
    """A good scan, and what is made by the name of one."""

    def write(place: Any) -> object:
        place.person()
        return make(place.root / "in/x.nii.gz")

    return write


def _pipes(path: Path) -> None:
    os.mkfifo(path)
    os.mkfifo(path.with_name("pipe"))


@pytest.mark.parametrize(
    "write",
    [
        case(
            _copy("in/ANNA.NII.GZ"),
            "a name in capitals, `ANNA.NII.GZ`", 0, "1 maps in .*, 0 scans skipped",
        ),
        case(
            _copy("in/anna.nii.gz", b"--boundary--"),
            "garbage follows a gzip file", 1,
            "skipped anna: .*the file is damaged .*Not a gzipped",
        ),
        *each(
            {f"voxels times {factor}": _scaled(factor) for factor in (0.01, 0.001, 100.0)},
            "voxels of 0.1 mm or 9 um (metres taken for mm), or of 900 mm: 4 mm or 35 m in all", 1,
            "skipped anna: it is .* mm large \\(x, y, z\\), as no scan of a person is: correct its "
            "voxel",
        ),
        *each(
            {
                "two slices": _changed(lambda image: image[:, :, 10:12]),
                "12 mm": _changed(lambda image: _voxel(image, 0.3, 0.3, 0.3)),
            },
            "a scan of two slices, or of 12 mm", 0, "1 maps in .*, 0 scans skipped",
        ),
        *each(
            {
                "axes": _changed(lambda image: sitk.JoinSeries([image] * 2), "in/anna.nrrd"),
                "values": _changed(lambda image: sitk.Compose(image, image), "in/anna.nrrd"),
            },
            "a `.nrrd` of four axes, or of two values a voxel", 1, "skipped anna: the image is",
        ),
        *each(
            {"pipe": _beside(_pipes), "device": _beside(lambda path: path.symlink_to("/dev/zero"))},
            "a pipe, a socket or a device has the name of a scan; a good scan lies beside it", 1,
            "skipped x: .*x.nii.gz is a pipe, a socket or a device: give a file, or remove it",
            "1 maps in .*, 1 scans skipped",
        ),
        *each(
            {"folder": _beside(Path.mkdir), "link": _beside(lambda path: path.symlink_to("gone"))},
            "a folder or a broken link has the name of a scan; a good scan lies beside it", 1,
            "skipped x: .*(is a folder that holds 0 DICOM series|there is no such file)",
            "1 maps in .*, 1 scans skipped",
        ),
    ],
)  # fmt: skip
def test_what_is_said(place: Any, write: Callable[[Any], object]) -> None:
    write(place)
    place.predict()


@situation(
    "beside good raw scans lie a pipe, a folder and a broken link by the names of scans",
    0,
    "skipped pipe: .*is a pipe, a socket or a device",
)
def test_raw_scans_that_are_none(planned: Any) -> None:
    raw = planned.own_raw() / planned.world.raw.name / "imagesTr"
    os.mkfifo(raw / "pipe_0000.nii.gz")
    (raw / "folder_0000.nii.gz").mkdir()
    (raw / "link_0000.nii.gz").symlink_to("gone")
    planned.run("plan_and_preprocess", "-d", 901, "--preset", "cpu", "--num_test", 1, "-np", 1)
