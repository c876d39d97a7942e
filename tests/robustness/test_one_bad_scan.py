"""One bad thing ends nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk  # noqa: N813

pytestmark = pytest.mark.slow
NO_TEXT = os.fsdecode(b"b\xe4rbel")


def _shell(place: Any, command: str, *words: object) -> None:
    """Runs a command in a process of its own: what it does may end the process."""
    code = f"from screener_nnu.commands.{command} import main; main()"
    given = [os.fspath(str(word)) for word in words]
    done = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, env={**os.environ}, check=False
    )
    text = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
    place.command = f"screener_{command}".replace("import_data", "import")
    place.judge(place.done(done.returncode, text))


@pytest.mark.situation(
    "the name of a scan is not valid UTF-8",
    1,
    r"skipped b\\xe4rbel: the name .*b\\xe4rbel.nii.gz is not valid UTF-8: rename it",
    "1 maps in .*, 1 scans skipped",
)
def test_name_that_is_no_text(place: Any) -> None:
    scan = place.person()
    shutil.copy(scan, place.root / "in" / f"{NO_TEXT}.nii.gz")
    _shell(
        place, "predict", "-d", 901, "-i", place.root / "in", "-o", place.root / "out",
        "-device", "cpu",
    )  # fmt: skip
    assert (place.root / "out/anna.nii.gz").is_file()


@pytest.mark.situation(
    "the name of a raw scan is not valid UTF-8", 0, r"skipped b\\xe4rbel: the name .* rename it"
)
def test_raw_name_that_is_no_text(planned: Any) -> None:
    planned.own_raw()
    images = planned.world.raw / "imagesTr"
    shutil.copy(sorted(images.iterdir())[0], images / f"{NO_TEXT}_0000.nii.gz")
    shutil.rmtree(planned.world.preprocessed)
    _shell(planned, "plan_and_preprocess", "-d", 901, "--preset", "cpu", "-np", 1)
    assert len(list(planned.world.cases.glob("*.json"))) == 6


@pytest.mark.situation(
    "an export with a folder whose name is not valid UTF-8 is imported with its names", 0, "taken"
)
def test_folder_that_is_no_text(planned: Any, write_dicom: Any) -> None:
    source = sorted((planned.world.raw / "imagesTr").iterdir())[0]
    image = sitk.DICOMOrient(sitk.Cast(sitk.ReadImage(str(source)), sitk.sitkInt16), "LPS")
    spacing = image.GetSpacing()[::-1]
    array = sitk.GetArrayFromImage(image)
    planned.own_raw()
    write_dicom(planned.root / "export" / NO_TEXT / "series", array, spacing=spacing)
    write_dicom(planned.root / "export" / "plain", array, uid="1.2.826.7", spacing=spacing)
    _shell(
        planned, "import_data", "-i", planned.root / "export", "-d", 510, "--name", "My",
        "--keep_names", "-np", 0,
    )  # fmt: skip
    dataset = planned.world.root / "raw/Dataset510_My"
    assert (dataset / "dataset.json").is_file()
    assert len(list(dataset.glob("imagesTr/*.nii.gz"))) == 2


@pytest.mark.situation(
    "the disk is full while maps are written",
    1,
    r"anna.nii.gz cannot be written \(no space left, about .* MB are needed\): free some and run",
)
def test_full_disk(place: Any, full_disk: Callable[[str], None]) -> None:
    for name in ("anna", "berta", "clara"):
        place.person(f"in/{name}.nii.gz")
    full_disk("anna.nii.gz")
    place.predict()
    assert not (place.root / "out/clara.nii.gz").exists()


@pytest.mark.situation("the disk is full as the table is written", 1, "cases.csv cannot be written")
def test_full_disk_at_the_end(place: Any, full_disk: Callable[[str], None]) -> None:
    place.person()
    full_disk("cases.csv")
    place.predict()


@pytest.mark.situation(
    "one of three scans cannot be read",
    1,
    "2 maps in .*, 1 scans skipped",
    "error: 1 of 3 scans have no map",
)
def test_one_of_three(place: Any, half: Callable[[Path], None]) -> None:
    for name in ("anna", "berta", "clara"):
        place.person(f"in/{name}.nii.gz")
    half(place.root / "in/berta.nii.gz")
    place.theirs.pop(place.root / "in/berta.nii.gz")
    place.predict()
    assert (place.root / "out/clara.nii.gz").is_file()


@pytest.mark.situation(
    "`/dev/shm` is too small for the processes that read", 1, "--shm-size", "workers=0"
)
def test_small_shared_memory(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from screener_nnu.trainers import loading

    monkeypatch.setattr(loading, "free_shared_memory", lambda: 1000)
    planned.run("train", 901, "3d_fullres", "descriptor", "-device", "cpu", "-o", "workers=2")
