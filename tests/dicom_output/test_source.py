"""What is taken from the source series, and which series are refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom_output import write_dicom_seg, write_parametric_map
from screener_nnu.dicom_output.source import read_source
from screener_nnu.errors import ScreenerError

PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientAge")
STUDY = (
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "FrameOfReferenceUID",
)


def write_both(series, tools, folder: Path) -> list[pydicom.Dataset]:
    image = series.read()
    write_dicom_seg(tools.make_findings(image), series.files, folder / "seg.dcm")
    write_parametric_map(tools.make_map(image)[0], series.files, folder / "map.dcm")
    return [pydicom.dcmread(folder / name) for name in ("seg.dcm", "map.dcm")]


def test_patient_and_study_are_those_of_the_source(series, tools, tmp_path: Path) -> None:
    source = series.datasets()[0]
    for dataset in write_both(series, tools, tmp_path):
        for keyword in (*PATIENT, *STUDY):
            assert dataset[keyword].value == source[keyword].value, keyword
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        assert dataset.Manufacturer == "screener_nnu"


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 192", "Müller^Jürgen"),
        ("ISO_IR 100", "Müller^Jürgen"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ],
)
def test_names_in_other_scripts_survive(tools, tmp_path: Path, character_set, name) -> None:
    series = tools.write_series(
        tmp_path / "series", SpecificCharacterSet=character_set, PatientName=name
    )
    for dataset in write_both(series, tools, tmp_path):
        assert str(dataset.PatientName) == name


def test_attributes_that_older_exports_lack_are_left_empty(tools, tmp_path: Path) -> None:
    missing = ("PatientName", "PatientBirthDate", "StudyID", "AccessionNumber", "StudyTime")
    series = tools.write_series(
        tmp_path / "series",
        **dict.fromkeys(missing),
        SliceThickness=None,
        ReferringPhysicianName=None,
        PatientSex="U",
    )
    for dataset in write_both(series, tools, tmp_path):
        assert not any(dataset[keyword].value for keyword in (*missing, "PatientSex"))
        (measures,) = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        assert measures.SliceThickness == pytest.approx(tools.distance, abs=1e-5)
        assert measures.SpacingBetweenSlices == pytest.approx(tools.distance, abs=1e-5)


def test_the_stated_distance_of_slices_is_not_trusted(tools, tmp_path: Path) -> None:
    series = tools.write_series(tmp_path / "series", SpacingBetweenSlices=-9.0)
    for dataset in write_both(series, tools, tmp_path):
        (measures,) = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        assert measures.SpacingBetweenSlices == pytest.approx(tools.distance, abs=1e-5)


def _stable(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """Without the UIDs of the object itself and without the time it was made."""
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    for keyword in (
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "ContentDate",
        "ContentTime",
        "DimensionOrganizationSequence",
    ):
        delattr(dataset, keyword)
    for item in dataset.DimensionIndexSequence:
        del item.DimensionOrganizationUID
    for item in dataset.ContributingEquipmentSequence:
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    return dataset


def test_only_uids_and_times_are_new(series, tools, tmp_path: Path) -> None:
    first, second = (write_both(series, tools, tmp_path) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.SOPInstanceUID != other.SOPInstanceUID
        assert one.SeriesInstanceUID != other.SeriesInstanceUID
        assert _stable(one) == _stable(other)


def test_both_objects_are_of_different_series(series, tools, tmp_path: Path) -> None:
    seg, parametric_map = write_both(series, tools, tmp_path)
    assert seg.SeriesInstanceUID != parametric_map.SeriesInstanceUID
    assert seg.SeriesNumber != parametric_map.SeriesNumber


def refuse(files, image: sitk.Image, tools, folder: Path, message: str) -> None:
    """Both writers refuse, and no file is left."""
    findings, (score, _) = tools.make_findings(image), tools.make_map(image)
    path = folder / "refused" / "out.dcm"
    with pytest.raises(ScreenerError, match=message):
        write_dicom_seg(findings, files, path)
    with pytest.raises(ScreenerError, match=message):
        write_parametric_map(score, files, path)
    assert not path.parent.exists() or not list(path.parent.iterdir())


def test_a_missing_slice_is_refused(series, tools, tmp_path: Path) -> None:
    message = r"\(17, 21, 9\) voxels .* \(8, 21, 17\)"
    refuse(series.files[1:], series.read(), tools, tmp_path, message)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.SetOrigin(np.add(image.GetOrigin(), [0.0, 0.3, 0.0]).tolist()),
        lambda image: image.SetSpacing((0.72, 0.9, 2.5)),
        lambda image: image.SetDirection(np.eye(3).ravel().tolist()),
    ],
)
def test_a_map_of_another_place_is_refused(series, tools, tmp_path: Path, change) -> None:
    image = series.read()
    change(image)
    refuse(series.files, image, tools, tmp_path, "columns away")


def test_a_tilted_gantry_is_refused(tools, tmp_path: Path) -> None:
    series = tools.write_series(tmp_path / "series", shear=0.8)
    image = tools.write_series(tmp_path / "straight").read()
    refuse(series.files, image, tools, tmp_path, "tilted gantry")


def test_two_series_are_refused(series, tools, tmp_path: Path) -> None:
    other = tools.write_series(tmp_path / "other")
    files = [*series.files, *other.files]
    refuse(files, series.read(), tools, tmp_path, "give the slices of one series alone")


def test_errors_name_slices_by_their_place_and_no_uid(series, tools, tmp_path: Path) -> None:
    for keyword, words in (
        ("SeriesInstanceUID", "SeriesInstanceUID of slice 3 of 9 and of slice 1 of 9 differ: give"),
        ("Rows", r"Rows of slice 3 of 9 and of slice 1 of 9 differ \(5 and 21\)"),
    ):
        datasets = series.datasets()
        setattr(datasets[2], keyword, "1.2.826.77" if keyword.endswith("UID") else 5)
        with pytest.raises(ScreenerError, match=words) as error:
            read_source(datasets)
        for uid in ("1.2.826.77", datasets[0].SeriesInstanceUID, datasets[2].SOPInstanceUID):
            assert uid not in str(error.value)


def test_two_scans_in_one_series_are_refused(series, tools, tmp_path: Path) -> None:
    files = [*series.files, series.files[0]]
    refuse(files, series.read(), tools, tmp_path, "two slices lie at")


@pytest.mark.parametrize(
    "keyword,value,message",
    [
        ("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], "leave localisers out"),
        ("NumberOfFrames", 4, "has 4 frames"),
        ("ImagePositionPatient", None, "has no ImagePositionPatient"),
        ("FrameOfReferenceUID", None, "has no FrameOfReferenceUID"),
        ("Rows", None, "has no Rows"),
    ],
)
def test_a_slice_that_does_not_belong_is_refused(
    series, tools, tmp_path: Path, keyword: str, value: object, message: str
) -> None:
    datasets = series.datasets()
    if value is None:
        delattr(datasets[2], keyword)
    else:
        setattr(datasets[2], keyword, value)
    refuse(datasets, series.read(), tools, tmp_path, message)


def test_a_file_that_is_no_dicom_is_named(series, tools, tmp_path: Path) -> None:
    readme = tmp_path / "README"
    readme.write_text("no slice")
    files = [*series.files, readme]
    refuse(files, series.read(), tools, tmp_path, f"{re.escape(str(readme))} cannot be read")


def test_no_file_is_refused(series, tools, tmp_path: Path) -> None:
    refuse([], series.read(), tools, tmp_path, "0 DICOM files are no series")


def test_a_place_that_cannot_be_written_is_named(series, tools, tmp_path: Path) -> None:
    path = tmp_path / "folder.dcm"
    path.mkdir()
    with pytest.raises(ScreenerError, match="folder.dcm cannot be written"):
        write_dicom_seg(tools.make_findings(series.read()), series.files, path)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_without_highdicom_the_extra_is_named(
    series, tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    message = re.escape("pip install 'screener_nnu[dicom]'")
    refuse(series.files, series.read(), tools, tmp_path, message)


def test_highdicom_is_imported_only_when_it_is_needed() -> None:
    import subprocess

    script = (
        "import sys, screener_nnu.dicom_output, screener_nnu.findings\n"
        "assert not {'highdicom', 'pydicom', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
