"""The one reader of volumes, against nibabel and SimpleITK as independent readers."""

from __future__ import annotations

import gzip
import logging
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import skimage.io
import tifffile

from screener_nnu.errors import CaseError, printable
from screener_nnu.preprocessing.nifti import shear_degrees
from screener_nnu.preprocessing.volumes import (
    Geometry,
    read_array,
    read_geometry,
    read_labels,
    read_volume,
)

Writer = Callable[..., Path]
SHAPE = (5, 6, 7)
KINDS = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]


def values(kind: type) -> np.ndarray:
    """Whole numbers (z, y, x) that every type holds, none of them twice."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 127).astype(kind)


def oblique() -> np.ndarray:
    """An affine (4, 4) in RAS: flipped, turned, with three voxel sizes."""
    a = np.deg2rad(20)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-2.0, 2.5, 3.0])
    affine[:3, 3] = (17.0, -33.0, 402.0)
    return affine


def save(
    path: Path, array: np.ndarray, kind: type = nibabel.Nifti1Image, big: bool = False
) -> Path:
    """Writes an array (z, y, x) by nibabel, with both placements."""
    image = kind(array.T, oblique())
    if big:
        image = kind(array.T, oblique(), image.header.as_byteswapped(">"))
    image.set_sform(oblique(), 1)
    image.set_qform(oblique(), 1)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_values_and_places_are_those_of_other_readers(
    tmp_path: Path, kind: type, ending: str
) -> None:
    path = save(tmp_path / f"a{ending}", values(kind))
    image = read_volume(path, "a")
    theirs = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), values(kind))
    assert image.GetPixelID() == theirs.GetPixelID()
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(image, name)() == getattr(theirs, name)()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ oblique()
    np.testing.assert_allclose(read_geometry(path, "a").affine, lps, atol=1e-4)


@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("big", [False, True])
def test_versions_and_byte_orders(tmp_path: Path, version: type, big: bool) -> None:
    path = save(tmp_path / "a.nii.gz", values(np.int16), version, big)
    image = read_volume(path, "a")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), values(np.int16))


@pytest.mark.parametrize(("slope", "intercept"), [(2.5, -1024.0), (1.0, -7.0), (0.5, 0.0)])
def test_scaled_values(tmp_path: Path, slope: float, intercept: float) -> None:
    path = save(tmp_path / "a.nii", values(np.int16))
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, slope, intercept)
    path.write_bytes(content)
    found = sitk.GetArrayFromImage(read_volume(path, "a"))
    np.testing.assert_allclose(found, values(np.float64) * slope + intercept)
    np.testing.assert_allclose(found, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_slopes_that_mean_no_scaling(tmp_path: Path, slope: float) -> None:
    path = save(tmp_path / "a.nii", values(np.int16))
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 112, slope)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_array(path, "a"), values(np.int16))


def test_every_byte_of_a_gzip_file_counts(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(-9, 9, SHAPE, np.int16))
    whole, expected = path.read_bytes(), read_array(path, "a")
    wrong = 0
    for place in range(10, len(whole)):
        content = bytearray(whole)
        content[place] ^= 0x40
        path.write_bytes(content)
        try:  # the last bits of the stream mean nothing
            np.testing.assert_array_equal(read_array(path, "a"), expected)
            continue
        except CaseError as error:
            assert "cannot be read" in error.reason
        try:
            wrong += int(sitk.ReadImage(str(path)).GetSize() == (7, 6, 5))
        except RuntimeError:
            continue
    assert wrong  # what SimpleITK alone reads without a word


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", values(np.int16))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    np.testing.assert_array_equal(read_array(path, "a"), values(np.int16))


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values(np.int16))
    content = bytearray(path.read_bytes())
    struct.pack_into("<4h", content, 40, 3, 32767, 32767, 32767)
    path.write_bytes(content)
    with pytest.raises(CaseError, match="the file is cut short"):
        read_volume(path, "a")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "it is no NIfTI file, whatever its name says"),
        (b"\x1f\x8b\x08", "cut short"),
        (gzip.compress(b"hello", mtime=0), "it is no NIfTI file"),
    ],
)
def test_what_is_no_nifti(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(CaseError, match=reason):
        read_volume(path, "a")


def test_names_that_say_something_else(tmp_path: Path) -> None:
    content = save(tmp_path / "a.nii", values(np.int16)).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(content)
    (tmp_path / "c.nii").write_bytes(gzip.compress(content))
    (tmp_path / "D.NII.GZ").write_bytes(gzip.compress(content))
    with pytest.raises(CaseError, match="not compressed with gzip: rename it"):
        read_volume(tmp_path / "b.nii.gz", "b")
    with pytest.raises(CaseError, match="does not end in .gz: rename it"):
        read_volume(tmp_path / "c.nii", "c")
    assert read_volume(tmp_path / "D.NII.GZ", "d").GetSize() == (7, 6, 5)


@pytest.mark.parametrize("ending", ["nii.gz", "mha", "nrrd"])
def test_nan_of_any_format(tmp_path: Path, ending: str) -> None:
    array = values(np.float32)
    array[2, 3, 4] = np.nan
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    with pytest.raises(CaseError, match="it holds NaN or infinite values"):
        read_volume(path, "a")


def test_contradicting_headers_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / "a.nii", values(np.int16))
    content = bytearray(path.read_bytes())
    row = struct.unpack_from("<4f", content, 312)
    struct.pack_into("<4f", content, 312, *row[:3], row[3] + 45)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        image = read_volume(path, "twice")
        read_volume(path, "twice")
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("twice: ") and "by up to 45.0 mm" in line
    # The choice that is named is SimpleITK's, which every other step works with.
    assert image.GetOrigin() == sitk.ReadImage(str(path)).GetOrigin()


def test_agreeing_headers_are_not_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_volume(save(tmp_path / "a.nii.gz", values(np.int16)), "quiet")
    assert not caplog.records


@pytest.mark.parametrize("degrees", [0.0, 0.05, 0.2, 17.0])
def test_shear_is_the_angle_from_a_right_one(degrees: float) -> None:
    axes = np.eye(3) * (2.0, 2.5, 3.0)
    axes[:, 2] = 3 * np.array([0, np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))])
    assert shear_degrees(axes) == pytest.approx(degrees, abs=1e-6)


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    for value, kind in ((1e-6, np.float32), (0.9999, np.float64)):
        save(path, np.full(SHAPE, value, kind))
        with pytest.raises(CaseError, match=f"such as {value:g}, but a mask holds whole numbers"):
            read_labels(path, "a")
    save(path, values(np.float32))
    np.testing.assert_array_equal(read_labels(path, "a"), values(np.float32))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda image: image.SetOrigin((18.0, 33.0, 402.0)), "origin"),
        (lambda image: image.SetSpacing((2.0, 2.5, 3.1)), "spacing"),
        (lambda image: image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1)), "direction"),
    ],
)
def test_a_mask_that_lies_elsewhere(
    tmp_path: Path, change: Callable[[sitk.Image], None], word: str
) -> None:
    path = save(tmp_path / "a.nii.gz", values(np.int16))
    image = sitk.ReadImage(str(path))
    like = Geometry.of_image(image)
    assert read_labels(path, "a", like).shape == SHAPE
    change(image)
    sitk.WriteImage(image, str(path))
    with pytest.raises(CaseError, match=f"differ in {word}: "):
        read_labels(path, "a", like)
    sitk.WriteImage(image[:, :, 1:], str(path))
    with pytest.raises(CaseError, match=r"differ in size: \(7, 6, 4\) and \(7, 6, 5\)"):
        read_labels(path, "a", like)


def test_names_that_are_no_text_become_printable() -> None:
    assert printable("b\udce4r") == r"b\xe4r" and printable("bär 😀") == "bär 😀"


PICTURES = [(".png", np.uint8), (".png", np.uint16), (".tif", np.float32), (".TIFF", np.uint8)]


def save_picture(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".png":
        skimage.io.imsave(path, array, check_contrast=False)
    else:
        tifffile.imwrite(path, array, compression="zlib")
    return path


@pytest.mark.parametrize(("ending", "kind"), PICTURES)
def test_a_picture_is_a_volume_of_one_slice(tmp_path: Path, ending: str, kind: type) -> None:
    pixels = (np.arange(35).reshape(5, 7) * (200 if kind == np.uint16 else 1)).astype(kind)
    path = save_picture(tmp_path / f"a{ending}", pixels)
    image = read_volume(path, "a")
    assert image.GetSize() == (7, 5, 1) and image.GetSpacing() == (1.0, 1.0, 999.0)
    geometry = read_geometry(path, "a")
    assert geometry == Geometry.of_image(image) == Geometry.of_picture(7, 5)
    read = read_array(path, "a", geometry)
    assert read.dtype == kind
    np.testing.assert_array_equal(read, pixels[None])


def test_masks_of_pictures_lie_where_the_map_does(tmp_path: Path) -> None:
    score = save_picture(tmp_path / "a.tif", np.zeros((5, 7), np.float32))
    mask = save_picture(tmp_path / "a.png", np.eye(5, 7, dtype=np.uint8))
    np.testing.assert_array_equal(
        read_labels(mask, "a", read_geometry(score, "a"))[0], np.eye(5, 7)
    )
    save_picture(mask, np.eye(7, 5, dtype=np.uint8))
    with pytest.raises(CaseError, match=r"differ in size: \(5, 7, 1\) and \(7, 5, 1\)"):
        read_labels(mask, "a", read_geometry(score, "a"))
    save_picture(score, np.full((5, 7), 0.5, np.float32))
    with pytest.raises(CaseError, match="such as 0.5"):
        read_labels(score, "a")
    save_picture(score, np.full((5, 7), np.nan, np.float32))
    with pytest.raises(CaseError, match="NaN"):
        read_volume(score, "a")
    save_picture(mask, np.zeros((5, 7, 3), np.uint8))
    with pytest.raises(CaseError, match="has 3 channels"):
        read_volume(mask, "a")


@pytest.mark.parametrize("packed", [None, "zlib"])
def test_damaged_pictures(tmp_path: Path, packed: str | None) -> None:
    noise = np.random.default_rng(0).normal(size=(90, 70)).astype(np.float32)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise, compression=packed)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CaseError, match="a.tif cannot be read"):
        read_volume(path, "a")
    if packed:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0xFF
        path.write_bytes(flipped)
        with pytest.raises(CaseError, match="a.tif cannot be read"):
            read_volume(path, "a")
    picture = save_picture(tmp_path / "a.png", (noise * 20 + 128).astype(np.uint8))
    picture.write_bytes(picture.read_bytes()[:-900])
    with pytest.raises(CaseError, match="a.png cannot be read"):
        read_volume(picture, "a")
    picture.write_bytes(b"")
    with pytest.raises(CaseError, match="the file is empty"):
        read_geometry(picture, "a")
    with pytest.raises(CaseError, match="there is no such file"):
        read_volume(tmp_path / "b.png", "b")
