"""What MetaImage, NRRD and NIfTI headers say too little or too much of; SimpleITK is the oracle."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import CaseError
from screener_nnu.preprocessing.text_headers import why_unusable
from screener_nnu.preprocessing.volumes import Geometry, read_geometry

SIZE = (7, 6, 5)


def image() -> sitk.Image:
    made = sitk.GetImageFromArray(np.arange(210, dtype=np.int16).reshape(SIZE[::-1]))
    made.SetSpacing((1.5, 2.0, 3.0))
    return made


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("packed", [True, False])
def test_what_simpleitk_writes_can_be_used(tmp_path: Path, name: str, packed: bool) -> None:
    sitk.WriteImage(image(), str(tmp_path / name), packed)
    assert why_unusable(tmp_path / name, SIZE) == ""
    assert read_geometry(tmp_path / name, "a") == Geometry.of_image(image())


def test_a_file_of_zeros_packs_a_thousandfold(tmp_path: Path) -> None:
    zeros = sitk.Image(300, 300, 300, sitk.sitkUInt8)
    sitk.WriteImage(zeros, str(tmp_path / "a.mha"), True)
    assert why_unusable(tmp_path / "a.mha", zeros.GetSize()) == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("ElementSpacing = 1 1 1\nElementDataFile = gone.raw\n", "gone.raw, are not beside it"),
        ("ElementDataFile = here.raw\n", "does not say how large a voxel is"),
        ("ElementSpacing = 1 1 1\nElementDataFile = here.raw\n", "far more than the file can hold"),
        ("ElementSpacing = 1 1 1\nElementDataFile = LIST\na.raw\n", ""),
        ("ElementSpacing = 1 1 1\nElementDataFile = slice%03d.raw 1 5 1\n", ""),
    ],
)
def test_headers_with_a_file_of_voxels(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "here.raw").write_bytes(bytes(10))
    (tmp_path / "a.mhd").write_text(content)
    found = why_unusable(tmp_path / "a.mhd", (3000, 3000, 3000))
    assert found.endswith(reason) and bool(found) == bool(reason)


@pytest.mark.parametrize(("unit", "mm"), [(1, 1000.0), (2, 1.0), (3, 0.001)])
def test_units_of_length(tmp_path: Path, unit: int, mm: float) -> None:
    affine = np.diag([1.5 / mm, 2.0 / mm, 3.0 / mm, 1.0])
    affine[:3, 3] = np.array([10.0, -20.0, 30.0]) / mm
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        made = kind(np.zeros(SIZE, np.int16), affine)
        made.header.set_xyzt_units(unit)
        made.header.set_qform(affine, 1)
        nibabel.save(made, tmp_path / f"{kind.__name__}.nii")
    wanted = Geometry.of_image(sitk.ReadImage(str(tmp_path / "Nifti1Image.nii")))
    assert wanted.spacing == pytest.approx((1.5, 2.0, 3.0))
    for name in ("Nifti1Image", "Nifti2Image"):
        assert not read_geometry(tmp_path / f"{name}.nii", name).difference(wanted)


@pytest.mark.parametrize("start", [0, 347, -1, float("nan")])
def test_voxels_never_begin_within_the_header(tmp_path: Path, start: float) -> None:
    path = tmp_path / "a.nii"
    sitk.WriteImage(image(), str(path))
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(start).tobytes()
    path.write_bytes(content)
    with pytest.raises(CaseError, match="its header is damaged .*vox_offset"):
        read_geometry(path, "a")
