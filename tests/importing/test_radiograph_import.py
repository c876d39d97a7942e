"""Radiographs in DICOM are pictures, and never change what becomes of an export with scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from screener_nnu.importing.contents import find_pictures


@pytest.fixture
def write_radiographs(importer: Any, write_dicom: Any) -> Any:
    """Writes so many of a modality into a folder."""

    def write(number: int, folder: str = "x", modality: str = "CR") -> list[Path]:
        def change(one: Any, index: int) -> None:
            one.Modality, one.WindowCenter, one.WindowWidth = modality, 1000, 2000

        values = np.stack([importer.pixels(f"{folder}{i}")[0].astype(int) for i in range(number)])
        uid = f"1.2.826.{len(folder)}"
        return write_dicom(importer.source / folder, 4 * values, uid=uid, change=change)

    return write


def test_a_folder_of_radiographs(importer: Any, write_radiographs: Any) -> None:
    write_radiographs(11)
    said = importer.run()
    assert "11 taken" in said and "11 pictures: its own window gave its 8 bits" in said
    assert len(list((importer.folder / "imagesTr").iterdir())) == 11


def test_a_directory_of_the_archive_is_no_scan(importer: Any, write_radiographs: Any) -> None:
    files = write_radiographs(11)
    directory = pydicom.dcmread(files[0])
    for name in ("Rows", "Modality", "PixelData"):
        delattr(directory, name)
    directory.save_as(importer.source / "DICOMDIR")
    assert "11 taken" in importer.run()
    importer.normals(1)
    assert "11 kept, 1 taken" in importer.run()


def test_radiographs_among_other_pictures(importer: Any, write_radiographs: Any) -> None:
    importer.normals(10)
    write_radiographs(2)
    (importer.source / "notes.txt").write_text("none")
    assert "12 taken" in importer.run()


def test_an_export_with_scans_goes_on_as_ever(
    importer: Any, write_radiographs: Any, write_dicom: Any
) -> None:
    write_radiographs(3)
    noise = np.random.default_rng(1).integers(-1000, 100, (24, 20, 24))
    write_dicom(importer.source / "y", noise, uid="1.2.826.77")
    assert find_pictures(importer.source) is None
    said = importer.run()
    assert "1 skipped, 1 taken" in said and "modality CR, not CT" in said
    files = [path.name for path in (importer.folder / "imagesTr").iterdir()]
    assert len(files) == 1 and files[0].endswith("_0000.nii.gz")


@pytest.mark.parametrize("modality", ["MR", "US", "OT"])
def test_other_modalities_are_no_radiographs(
    importer: Any, write_radiographs: Any, modality: str
) -> None:
    write_radiographs(11, modality=modality)
    assert "no series could be used" in importer.refused()


def test_a_torn_radiograph_is_skipped(importer: Any, write_radiographs: Any) -> None:
    torn = write_radiographs(11)[3]
    torn.write_bytes(torn.read_bytes()[:-50])
    said = importer.run()
    assert "1 skipped, 10 taken" in said and f"skipped x/{torn.name}: " in said
