"""`screener_import` on a generated export: what is taken, what is said, and what is kept secret."""

from __future__ import annotations

import csv
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.commands.import_data import main
from screener_nnu.preprocessing.raw_dataset import find_cases
from screener_nnu.preprocessing.reading import read_image

Writer = Callable[..., list[Path]]
NAME = "Dataset510_MyCT"
# Whatever of this is found in an output tells who was scanned, when, or where files came from.
SECRETS = ("nightingale", "florence", "nf1820", "1820", "thorax", "1.2.826", "ward7")


def scan(seed: int, slices: int = 24) -> np.ndarray:
    y, x = np.indices((20, 24))
    body = (x - 12) ** 2 + (y - 9) ** 2 < 49
    noise = np.random.default_rng(seed).integers(-30, 30, (slices, 20, 24))
    return np.where(body, 40, -980) + noise


@pytest.fixture
def export(tmp_path: Path, write_dicom: Writer) -> Path:
    """Five series of a patient: two good ones, one with a gap, one torn, one of another unit."""
    folder = tmp_path / "ward7" / "Nightingale^Florence"
    write_dicom(folder / "18200512" / "a", scan(1), uid="1.2.826.11")
    write_dicom(folder / "18200512" / "b", scan(2), uid="1.2.826.12", spacing=(5.0, 2.0, 2.5))
    write_dicom(folder / "gap", scan(3), uid="1.2.826.13")[7].unlink()
    torn = write_dicom(folder / "torn", scan(4), uid="1.2.826.14")[5]
    torn.write_bytes(torn.read_bytes()[:-50])
    write_dicom(folder / "positive", scan(5) + 1100, uid="1.2.826.15")
    write_dicom(folder / "scout", scan(6)[:2], uid="1.2.826.16")
    (folder / "18200512" / "report.pdf").write_bytes(b"%PDF" * 100)
    return tmp_path / "ward7"


def run(export: Path, *more: str) -> None:
    main(["-i", str(export), "-d", "510", "--name", "MyCT", "-np", "0", *more])


def rows(dataset: Path) -> dict[str, dict[str, str]]:
    with (dataset / "import.csv").open(newline="", encoding="utf-8") as stream:
        return {row["series"]: row for row in csv.DictReader(stream)}


def reason_of(table: dict[str, dict[str, str]], words: str) -> dict[str, str]:
    (row,) = [row for row in table.values() if re.search(words, row["reason"])]
    return row


def test_an_export_becomes_a_dataset(
    export: Path, empty_world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(export)
    dataset = empty_world.root / "raw" / NAME
    table = rows(dataset)
    taken = {row["case"] for row in table.values() if row["status"] == "taken"}
    assert len(taken) == 2 and len(table) == 6
    for words in ("slices are missing", "slice 6 of 24 cannot be read", "not CT in Hounsfield"):
        assert reason_of(table, words)["status"] == "skipped"
    assert "fewer than 20" in reason_of(table, "2 slices")["reason"]
    assert json.loads((dataset / "import.json").read_text())["series"] == [
        {**row, "slices": int(row["slices"])} for row in table.values()
    ]
    # What nnU-Net and we read.
    assert json.loads((dataset / "dataset.json").read_text()) == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    cases = find_cases(dataset)
    assert cases.keys() == taken
    arrays = {case: read_image(path, case).array for case, path in cases.items()}
    assert all(
        any(np.array_equal(array, scan(seed)) for array in arrays.values()) for seed in (1, 2)
    )
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith(("taken ct_", "skipped ct_"))]) == 6
    assert "4 skipped, 2 taken" in lines


def test_geometry_by_nibabel(export: Path, empty_world: Any, write_dicom: Writer) -> None:
    run(export)
    thick = [
        path
        for path in find_cases(empty_world.root / "raw" / NAME).values()
        if nibabel.load(path).header.get_zooms()[2] == pytest.approx(5)
    ]
    image = nibabel.load(thick[0])
    # Right, anterior, superior: x and y of DICOM point the other way.
    expected = np.diag([-2.5, -2.0, 5.0, 1.0])
    expected[:3, 3] = [21.5, -33.25, -402.5]
    np.testing.assert_allclose(image.affine, expected, atol=1e-4)
    np.testing.assert_array_equal(image.get_fdata(), scan(2).T)


def everything_written(folder: Path) -> str:
    """Names and contents of all files, unpacked, and pieces of the NIfTI headers."""
    texts = []
    for path in sorted(folder.rglob("*")):
        texts.append(str(path.relative_to(folder)))
        if path.name.endswith(".nii.gz"):
            image = sitk.ReadImage(str(path))
            texts += [image.GetMetaData(key) for key in image.GetMetaDataKeys()]
        elif path.is_file():
            texts.append(path.read_text())
    return "\n".join(texts).lower()


@pytest.mark.parametrize("kept", [False, True])
def test_nobody_is_named_unless_asked_for(
    export: Path,
    empty_world: Any,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    kept: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    (export / "Nightingale.zip").write_bytes(b"PK\x03\x04" + b"x" * 100)
    run(export, *(["--keep_names"] if kept else []))
    printed = capsys.readouterr()
    said = "\n".join(
        [printed.out, printed.err, *caplog.messages, *(str(w.message) for w in recwarn)]
    )
    written = everything_written(empty_world.root / "raw" / NAME)
    if kept:
        assert "taken NF1820_18200512_4_ct_" in said and "nf1820_18200512_4_ct_" in written
        assert "Nightingale^Florence/18200512/a" in said and "Thorax soft" in said
        return
    # The folder that the user gave is his own; no line repeats it.
    for secret in SECRETS:
        assert secret not in said.lower(), secret
        assert secret not in written, secret
    assert "a zip is not read: it is damaged" in said


def test_going_on_where_a_run_stopped(
    export: Path, empty_world: Any, capsys: pytest.CaptureFixture[str], write_dicom: Writer
) -> None:
    run(export)
    dataset = empty_world.root / "raw" / NAME
    first, second = sorted((dataset / "imagesTr").iterdir())
    times = second.stat().st_mtime_ns
    first.unlink()
    run(export)
    assert second.stat().st_mtime_ns == times and first.is_file()
    assert "1 kept, 4 skipped, 1 taken" in capsys.readouterr().out

    # Other names do not make the same scans cases a second time.
    run(export, "--keep_names")
    assert "2 kept, 4 skipped" in capsys.readouterr().out

    # Another export into the same dataset; the rows of the first stay.
    more = write_dicom(export.parent / "more", scan(9), uid="1.2.826.30")
    run(export.parent / "more")
    table = rows(dataset)
    assert len(table) == 7 and {row["status"] for row in table.values()} == {"taken", "skipped"}
    assert json.loads((dataset / "dataset.json").read_text())["numTraining"] == 3
    kept = [row for row in table.values() if row["slices"] == "24" and row["status"] == "taken"]
    more[-1].unlink()
    for _ in range(2):
        run(export.parent / "more")
        # The file is as it was, and so is what is said of it.
        assert "was imported with 24 slices and has 23 now" in capsys.readouterr().out
        table = rows(dataset)
        assert [row for row in table.values() if row["slices"] == "24" and row["case"]] == [
            {**row, "reason": table[row["series"]]["reason"]} for row in kept
        ]
    more[9].unlink()
    run(export.parent / "more")
    assert "would not be now: slices are missing" in capsys.readouterr().out
    assert sum(row["status"] == "taken" for row in rows(dataset).values()) == 3


def test_half_written_files_are_no_cases(export: Path, empty_world: Any) -> None:
    dataset = empty_world.root / "raw" / NAME
    left = dataset / "imagesTr" / ".ct_0_0000.nii.gz.4711.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run(export, "--dry_run")
    assert left.is_file()
    run(export)
    assert not left.exists()
    left.write_bytes(b"half")
    assert len(find_cases(dataset)) == 2
    assert json.loads((dataset / "dataset.json").read_text())["numTraining"] == 2


def test_long_names_and_one_broken_series(
    tmp_path: Path, empty_world: Any, write_dicom: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(one: Any, index: int) -> None:
        one.PatientID = "x" * 300

    def flatten(one: Any, index: int) -> None:
        one.PixelSpacing = [0, 0]

    write_dicom(tmp_path / "in" / "a", scan(1), uid="1.2.826.51", change=rename)
    write_dicom(tmp_path / "in" / "b", scan(2), uid="1.2.826.52", change=flatten)
    run(tmp_path / "in", "--keep_names", "-np", "2")
    out = capsys.readouterr().out
    assert "pixels of 0 x 0 mm are none" in out and "1 skipped, 1 taken" in out
    (case,) = find_cases(empty_world.root / "raw" / NAME)
    assert len(case) <= 150


def test_dry_run_writes_nothing(
    export: Path, empty_world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(export, "--dry_run")
    assert list((empty_world.root / "raw").iterdir()) == []
    out = capsys.readouterr().out
    # Pixels are not looked at: a torn slice and a wrong unit are found when they are read.
    assert "2 skipped, 4 would be taken" in out and "slices are missing" in out


def test_options(export: Path, empty_world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(export, "--dry_run", "--max_thickness", "4")
    assert "5 mm, more than --max_thickness 4" in capsys.readouterr().out
    run(export, "--dry_run", "--include", "SOFT$", "--exclude", "lung")
    assert "4 would be taken" in capsys.readouterr().out
    run(export, "--dry_run", "--min_slices", "2")
    assert "5 would be taken" in capsys.readouterr().out
    for option, value in (("--include", "lung"), ("--exclude", "soft"), ("--min_slices", "25")):
        with pytest.raises(SystemExit):
            run(export, "--dry_run", option, value)
        printed = capsys.readouterr()
        assert option in printed.out or "fewer than 25" in printed.out
        assert "no series could be used" in printed.err


def test_zip_and_processes(
    export: Path, empty_world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "export.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in export.rglob("*"):
            archive.write(file, file.relative_to(export))
    run(packed, "-np", "2")
    table = rows(empty_world.root / "raw" / NAME)
    run(export)
    assert rows(empty_world.root / "raw" / NAME) == table
    assert sum(row["status"] == "taken" for row in table.values()) == 2


def test_two_phases_are_two_cases(tmp_path: Path, empty_world: Any, write_dicom: Writer) -> None:
    for phase in (1, 2):

        def change(one: Any, index: int, phase: int = phase) -> None:
            one.SOPInstanceUID, one.AcquisitionNumber = f"1.2.826.5.{phase}.{index}", phase

        write_dicom(tmp_path / "phases", scan(phase), uid="1.2.826.5", change=change)
    run(tmp_path / "phases")
    cases = find_cases(empty_world.root / "raw" / NAME)
    assert [case[-2:] for case in cases] == ["_1", "_2"]
    for seed, (case, path) in enumerate(cases.items(), 1):
        np.testing.assert_array_equal(read_image(path, case).array, scan(seed))


def test_a_volume_is_not_taken_twice_under_two_names(
    tmp_path: Path, empty_world: Any, write_dicom: Writer
) -> None:
    """A later export of the series has a second phase, which gives the first another name."""

    def add(phase: int) -> None:
        def change(one: Any, index: int) -> None:
            one.SOPInstanceUID, one.AcquisitionNumber = f"1.2.826.5.{phase}.{index}", phase

        write_dicom(tmp_path / "phases", scan(phase), uid="1.2.826.5", change=change)

    add(1)
    run(tmp_path / "phases")
    raw = empty_world.root / "raw" / NAME
    (case,) = find_cases(raw)
    add(2)
    with pytest.raises(SystemExit):  # nothing else is there to take
        run(tmp_path / "phases")
    assert list(find_cases(raw)) == [case]
    table = rows(raw)
    assert table[case]["status"] == "taken"
    for part in (1, 2):
        row = table[f"{case}_{part}"]
        assert row["status"] == "skipped" and f"{case} of this series was taken" in row["reason"]
    (raw / "imagesTr" / f"{case}_0000.nii.gz").unlink()
    run(tmp_path / "phases")
    assert list(find_cases(raw)) == [f"{case}_1", f"{case}_2"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-d", "1000"), "from 1 to 999"),
        (("--name", "../x"), "use letters"),
        (("--include", "("), "no regular expression"),
        (("-i", "/nowhere"), "does not exist"),
    ],
)
def test_refused(
    export: Path, empty_world: Any, capsys: pytest.CaptureFixture[str], arguments: Any, words: str
) -> None:
    with pytest.raises(SystemExit):
        run(export, *arguments)
    assert words in capsys.readouterr().err


def test_number_that_is_taken(
    export: Path, empty_world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_world.root / "preprocessed" / "Dataset510_Other").mkdir()
    with pytest.raises(SystemExit):
        run(export)
    assert "taken by Dataset510_Other" in capsys.readouterr().err
    (empty_world.root / "preprocessed" / "Dataset510_Other").rmdir()
    (empty_world.root / "raw" / NAME / "labelsTr").mkdir(parents=True)
    with pytest.raises(SystemExit):
        run(export)
    assert "has labels" in capsys.readouterr().err


def test_no_dicom_at_all(
    tmp_path: Path, empty_world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("none")
    with pytest.raises(SystemExit):
        run(tmp_path / "notes")
    assert "no DICOM image in" in capsys.readouterr().err
    assert not (empty_world.root / "raw" / NAME).exists()


def test_parts_make_what_one_run_makes(
    export: Path, empty_world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = empty_world.root / "raw" / NAME
    run(export)
    whole, images = rows(dataset), image_bytes(dataset)
    shutil.rmtree(dataset)
    for part in ("3", "1", "2", "0"):
        capsys.readouterr()
        run(export, "--part", part, "--parts", "4")
        said = capsys.readouterr().out
        assert said.count("\ntaken") + said.startswith("taken") <= 2
    assert rows(dataset) == whole and image_bytes(dataset) == images
    description = json.loads((dataset / "dataset.json").read_text())
    assert description["numTraining"] == len(images)
    with pytest.raises(SystemExit):
        run(export, "--part", "4", "--parts", "4")
    assert "no part 4 of 4" in capsys.readouterr().err


def image_bytes(dataset: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (dataset / "imagesTr").iterdir()}


def test_an_image_that_was_changed_since_is_named_and_stays(
    export: Path, empty_world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(export)
    image = sorted((empty_world.root / "raw" / NAME / "imagesTr").iterdir())[0]
    image.write_bytes(image.read_bytes()[:900])
    run(export)
    assert f"{image.name} is not ours, or has changed since it was imported" in (
        capsys.readouterr().out
    )
    assert image.stat().st_size == 900
    image.unlink()
    run(export)
    assert image.stat().st_size > 900
    assert "has changed" not in capsys.readouterr().out
