"""`screener_view` as a user runs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.commands.view import main


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    generator = np.random.default_rng(0)
    hu = generator.normal(0, 50, (12, 20, 24)).astype(np.float32)
    hu[:, :, :4] = -1000
    images = {"scan": hu, "map": hu / 10, "map_body": (hu > -900).astype(np.uint8)}
    for name, array in images.items():
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nii.gz"))
    return {name: str(tmp_path / f"{name}.nii.gz") for name in images}


def test_one_scan(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out" / "page.html"
    options = ["--title", "A <scan>", "--model", "M1", "--threshold", "7.5"]
    main(["-i", files["scan"], "-m", files["map"], "-o", str(page), *options])
    text = page.read_text()
    assert "<title>A &lt;scan&gt;</title>" in text and '"threshold": 7.5' in text
    assert page.with_suffix(".png").is_file()
    assert f"{page}: " in capsys.readouterr().out


def test_labels_given_by_hand(files: dict[str, str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["-b", files["map_body"], "-f", files["map_body"]]
    main(["-i", files["scan"], "-m", files["map"], "-o", str(page), *arguments])
    assert '"findings": [{"number": 1' in page.read_text()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"-o": "page.pdf"}, "a page ends in .html"),
        ({"-m": "nowhere.nii.gz"}, "does not exist"),
        ({"-b": "nowhere.nii.gz"}, "does not exist"),
        ({"-i": "nowhere.nii.gz"}, "does not exist"),
        ({"-i": "."}, "holds 3 scans"),
    ],
)
def test_what_cannot_be_done_is_said(
    files: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"-i": files["scan"], "-m": files["map"], "-o": "page.html", **changed}
    with pytest.raises(SystemExit) as end:
        main([word for pair in given.items() for word in pair])
    assert end.value.code == 1 and message in capsys.readouterr().err
    assert not Path("page.html").exists()


def test_a_folder_takes_no_file_of_one_map(tmp_path: Path) -> None:
    folder = str(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["-i", folder, "-m", folder, "-o", folder, "--title", "x"])
    assert end.value.code == 2


def test_the_unit_is_given_or_that_of_the_findings(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    words = ["-i", files["scan"], "-m", files["map"], "-o", str(page)]

    def shown(*more: str) -> tuple[str, str]:
        main([*words, *more])
        last = capsys.readouterr().out.strip().rsplit("peak ", 1)[1]
        return last.partition(" ")[2], page.read_text().partition('"unit": ')[2].split(",")[0]

    assert shown() == ("nats", '"nats"')
    assert shown("--unit", "none") == ("", '""')
    (tmp_path / "map_findings.json").write_text('{"score_unit": "HU", "findings": []}')
    assert shown() == ("HU", '"HU"')
    assert shown("--unit", "none") == ("", '""')


def test_pages_of_a_folder_have_the_unit_that_is_given(
    files: dict[str, str], tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in ("map", "map_body"):
        shutil.copy(files[name], maps / f"{name.replace('map', 'scan')}.nii.gz")
    pages = tmp_path / "pages"
    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(files["scan"], scans)
    main(["-i", str(scans), "-m", str(maps), "-o", str(pages), "--unit", "HU"])
    assert '"unit": "HU"' in (pages / "scan.html").read_text()
    assert "peak score (HU)" in (pages / "index.html").read_text()
