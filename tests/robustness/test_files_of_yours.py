"""Files of yours."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import pytest

pytestmark = pytest.mark.slow
MASK = b"a mask, drawn by hand"


@pytest.mark.situation(
    "`-i` is a folder of links, `-o` the folder that they lead to",
    1,
    "holds scans, which maps would",
)
@pytest.mark.parametrize("words", [(), ("--overwrite",)])
def test_output_where_links_lead(place: Any, words: tuple[str, ...]) -> None:
    scan = place.person("scans/anna.nii.gz")
    os.symlink(scan, place.mine(place.path("in/anna_0000.nii.gz")))
    place.theirs.pop(place.root / "in/anna_0000.nii.gz")
    place.predict(*words, out="scans")


@pytest.mark.situation(
    "`-o` is the folder of the scans", 1, "holds scans, which maps would replace"
)
def test_output_among_scans(place: Any) -> None:
    place.person()
    place.predict("--overwrite", out="in")


@pytest.mark.situation(
    "`-o` holds a file of yours that has the name of one of ours: `anna.json`, `anna_mask.nii.gz`, "
    "`anna.png`, `anna.html`, `anna_body.nii.gz`, `anna_findings.csv`, `anna_map.dcm`",
    1,
    "skipped anna: .* not ours, or changed since we wrote it, and would be replaced: move it away",
    "1 of 2 scans have no map",
)
@pytest.mark.parametrize(
    "name",
    [
        "anna.nii.gz",
        "anna.json",
        "anna_mask.nii.gz",
        "anna.png",
        "anna.html",
        "anna_body.nii.gz",
        "anna_findings.csv",
        "anna_map.dcm",
    ],
)
@pytest.mark.parametrize("words", [(), ("--overwrite",)])
def test_own_file_of_a_case(place: Any, name: str, words: tuple[str, ...]) -> None:
    place.person()
    place.person("in/berta.nii.gz")
    place.mine(place.root / "out" / name, MASK)
    place.predict("--threshold", 5, *words)
    assert (place.root / "out/berta.nii.gz").is_file()


@pytest.mark.situation(
    "`-o` holds a `cases.csv` or `index.html` of yours", 1, "not ours, or changed since we wrote it"
)
@pytest.mark.parametrize("name", ["cases.csv", "index.html"])
def test_own_table(place: Any, name: str) -> None:
    place.person()
    place.mine(place.root / "out" / name, MASK)
    place.predict("--page")
    assert not (place.root / "out/anna.nii.gz").exists()


@pytest.mark.situation(
    "you corrected a mask that we wrote, and run again with `--overwrite`",
    1,
    "skipped anna: .*anna_mask.nii.gz is not ours, or changed since we wrote it",
)
def test_corrected_mask(place: Any) -> None:
    place.person()
    place.code, place.says = 0, ()
    place.predict("--threshold", 5)
    place.mine(place.root / "out/anna_mask.nii.gz", MASK)
    place.code, place.says = 1, ("skipped anna: .*anna_mask.nii.gz is not ours",)
    place.predict("--threshold", 5, "--overwrite")


@pytest.mark.situation(
    "`-o` was copied from another machine, and the run goes on there", 0, "1 maps in .*, 0 scans"
)
def test_copied_folder(place: Any) -> None:
    place.person()
    place.predict("--threshold", 5)
    shutil.copytree(place.root / "out", place.root / "copy")  # with new times
    for path in (place.root / "copy").rglob("*"):
        os.utime(path, (1, 1))
    place.predict("--threshold", 6, "--overwrite", out="copy")


@pytest.mark.situation(
    "maps of a version that kept no record of its files", 0, "1 maps in .*, 0 scans skipped"
)
def test_folder_of_an_earlier_version(place: Any) -> None:
    place.person()
    place.predict()
    shutil.rmtree(place.root / "out/.screener_files")
    from screener_nnu import ownership

    ownership._owned.clear()
    place.predict("--overwrite")


@pytest.mark.situation(
    "a link of yours lies where a map would be written", 1, "anna.nii.gz is not ours"
)
def test_link_in_the_output(place: Any) -> None:
    place.person()
    kept = place.mine(place.path("elsewhere/kept.nii.gz"), MASK)
    os.symlink(kept, place.path("out/anna.nii.gz"))
    place.predict("--overwrite")


@pytest.mark.situation("`-o` of an evaluation holds a `summary.json` of yours", 1, "is not ours")
def test_own_summary(place: Any) -> None:
    _maps(place)
    place.mine(place.path("out/evaluation/summary.json"), b"{}")
    place.run("evaluate", "-i", place.root / "out", "-r", place.root / "masks")


@pytest.mark.situation("a page is to be written over a page of yours", 1, "page.html is not ours")
def test_own_page(place: Any) -> None:
    _maps(place)
    place.mine(place.path("page.html"), b"<html>mine</html>")
    place.run(
        "view", "-i", place.root / "in/anna.nii.gz", "-m", place.root / "out/anna.nii.gz",
        "-o", place.root / "page.html",
    )  # fmt: skip


@pytest.mark.situation(
    "a model file is to be written over a file of yours", 1, "model.zip is not ours"
)
def test_own_model_file(place: Any) -> None:
    place.mine(place.path("model.zip"), b"PK mine")
    place.run("export_model", 901, "-o", place.root / "model.zip")


@pytest.mark.situation(
    "a test set is to be written where a picture of yours lies", 1, "0000_0000.nii.gz is not ours"
)
def test_own_picture_in_a_test_set(place: Any) -> None:
    place.mine(place.path("set/constant/images/phantom_0000_0000.nii.gz"), MASK)
    scan = sorted((place.world.raw / "imagesTr").iterdir())[0]
    place.run(
        "synthesize_anomalies",
        "-i",
        scan,
        "-o",
        place.root / "set",
        "--kinds",
        "constant",
        "-np",
        0,
    )


@pytest.mark.situation(
    "an import finds a `dataset.json` that you have edited", 0, "dataset.json is not ours.*stays as"
)
def test_own_dataset_json(place: Any, write_dicom: Any) -> None:
    place.own_raw()
    _export(place, write_dicom, "one", 1)
    place.says = ()
    place.run("import_data", "-i", place.root / "export", "-d", 510, "--name", "My", "-np", 0)
    path = place.world.root / "raw/Dataset510_My/dataset.json"
    text = json.dumps({**json.loads(path.read_text()), "licence": "ours alone"})
    place.mine(path, text.encode())
    _export(place, write_dicom, "two", 2)
    place.says = ("dataset.json is not ours, or changed since we wrote it: it stays as it is",)
    place.run("import_data", "-i", place.root / "export", "-d", 510, "--name", "My", "-np", 0)


def _maps(place: Any) -> None:
    """A map and a mask of one scan."""
    code, says = place.code, place.says
    place.person()
    place.code, place.says = 0, ()
    place.predict("--threshold", 5)
    place.path("masks/anna.nii.gz")
    shutil.copy(place.root / "out/anna_mask.nii.gz", place.root / "masks/anna.nii.gz")
    place.code, place.says = code, says


def _export(place: Any, write_dicom: Any, name: str, seed: int) -> None:
    import numpy as np
    import SimpleITK as sitk  # noqa: N813

    source = sorted((place.world.raw / "imagesTr").iterdir())[seed]
    image = sitk.DICOMOrient(sitk.ReadImage(str(source)), "LPS")
    array = np.rint(sitk.GetArrayFromImage(image)).astype(np.int16)
    write_dicom(
        place.root / "export" / name, array, uid=f"1.2.826.{seed}", spacing=image.GetSpacing()[::-1]
    )
