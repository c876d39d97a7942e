"""One prediction with everything that may be asked for, read back by other readers."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from screener_nnu.calibration.store import calibration_file, load_calibration
from screener_nnu.commands.predict import main as predict
from screener_nnu.detectors import DETECTORS, STUDENT, ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.predict import Predictor
from screener_nnu.outputs import extras, makers

EVERYTHING = ("--threshold", "p99.5", "--findings", "--dicom", "--page")


@pytest.fixture
def scans(trained: Any, tmp_path: Path, write_dicom: Callable[..., list[Path]]) -> Path:
    """The same person as a NIfTI file and as a DICOM series deep in the folder.

    A single series has the name of the folder that is given, here `scans`.
    """
    folder = tmp_path / "scans"
    folder.mkdir()
    source = sorted((trained.raw / "imagesTr").iterdir())[0]
    image = sitk.DICOMOrient(sitk.Cast(sitk.ReadImage(str(source)), sitk.sitkInt16), "LPS")
    array = sitk.GetArrayFromImage(image)
    spacing = tuple(image.GetSpacing()[::-1])
    write_dicom(folder / "export" / "series", array, spacing=spacing, origin=image.GetOrigin())
    sitk.WriteImage(image, str(folder / "file_0000.nii.gz"))
    return folder


def run(scans: Path, out: Path, *words: str) -> None:
    predict(["-d", "901", "-i", str(scans), "-o", str(out), "-device", "cpu", *words])


def array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def table(out: Path) -> list[dict[str, str]]:
    with (out / "cases.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def stamps(out: Path) -> dict[str, int]:
    written_anew = ("cases.csv", "index.html")
    return {p.name: p.stat().st_mtime_ns for p in out.glob("[!.]*") if p.name not in written_anew}


@pytest.mark.slow
def test_everything_is_made_and_agrees(trained: Any, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(scans, out, *EVERYTHING)
    calibration = load_calibration(ModelRef("901", "ScreenerPlans"))
    assert calibration is not None  # made at the end of training
    threshold = calibration.parse_threshold("p99.5")
    names = [row["case"] for row in table(out)]
    assert sorted(names) == ["file", "scans"]
    maps = {name: array(out / f"{name}.nii.gz") for name in names}
    np.testing.assert_allclose(maps["file"], maps["scans"], atol=1e-4)
    for row in table(out):
        name = row["case"]
        score, body = maps[name], array(out / f"{name}_body.nii.gz") > 0
        above = (score > threshold) & body
        np.testing.assert_array_equal(array(out / f"{name}_mask.nii.gz"), above)
        _, count = ndimage.label(above, np.ones((3, 3, 3)))
        findings = json.loads((out / f"{name}_findings.json").read_text())
        assert len(findings["findings"]) == count == int(row["findings"]) > 0
        assert set(np.unique(array(out / f"{name}_findings.nii.gz"))) == set(range(count + 1))
        peak = findings["findings"][0]
        assert peak["peak_score"] == pytest.approx(score[body].max(), abs=1e-3)
        assert peak["percentile"] == pytest.approx(
            float(calibration.percentile(np.array([peak["peak_score"]]))[0]), abs=0.01
        )
        expected = calibration.case_score(score[body])
        assert float(row["case_score"]) == pytest.approx(expected.value, abs=1e-3)
        assert float(row["case_percentile"]) == pytest.approx(expected.percentile, abs=1e-3)
        assert row["problem"] == ""
        assert (out / f"{name}.html").is_file() and (out / f"{name}.png").is_file()
    page = (out / "index.html").read_text()
    assert all(f"{name}.html" in page for name in names)
    _check_dicom(out)
    assert not (out / "file_map.dcm").exists()  # there is no series that it could refer to


def _check_dicom(out: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    import pydicom

    stored = pydicom.dcmread(out / "scans_map.dcm")
    source = pydicom.dcmread(sorted((out.parent / "scans").rglob("I*"))[0])
    assert stored.StudyInstanceUID == source.StudyInstanceUID
    assert stored.SeriesInstanceUID != source.SeriesInstanceUID
    frames = np.frombuffer(stored.FloatPixelData, "<f4")
    # Each slice is where it was: tests/dicom_output looks at every voxel.
    values = array(out / "scans.nii.gz")
    np.testing.assert_allclose(frames.reshape(values.shape), values, atol=1e-5)
    segmentation = highdicom.seg.segread(str(out / "scans_findings.dcm"))
    labels = array(out / "scans_findings.nii.gz")
    volume = segmentation.get_volume(combine_segments=True)
    assert {int(v) for v in np.unique(volume.array)} == {int(v) for v in np.unique(labels)}
    assert (volume.array > 0).sum() == (labels > 0).sum()


@pytest.mark.slow
def test_a_later_run_makes_what_is_new_without_the_network(
    trained: Any, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(scans, out)
    assert {row["findings"] for row in table(out)} == {""}
    maps = {f"{n}{end}.nii.gz" for n in ("file", "scans") for end in ("", "_body")}
    assert set(stamps(out)) == maps | {"file.json", "scans.json"}
    before = stamps(out)

    def no_network(*_: Any) -> None:
        raise AssertionError("the map is there already")

    monkeypatch.setattr(Predictor, "predict", no_network)
    run(scans, out, "--threshold", "p99.5", "--findings", "--page")
    after = stamps(out)
    assert {name: after[name] for name in maps} == {name: before[name] for name in maps}
    run(scans, out, "--threshold", "p99.5", "--findings", "--page")
    same = {k: v for k, v in stamps(out).items() if k != "index.html" and "_mask" not in k}
    assert same == {k: after[k] for k in same}
    assert (out / "index.html").read_text().count("<tr>") >= 2  # pages of an earlier run, too
    run(scans, out, "--threshold", "p99.8", "--findings", "--page")
    files = ("file_findings.json", "scans_findings.csv", "file.html")
    assert all(stamps(out)[name] != after[name] for name in files)


@pytest.mark.slow
def test_maps_of_another_model_do_not_count(
    trained: Any, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(scans, out)
    before = stamps(out)
    for words in (("--teacher", "--page"), ("--fast",)):
        with pytest.raises(SystemExit):
            run(scans, out, *words)
        assert {row["problem"][:25] for row in table(out)} == {"the map that is there is "}
        assert stamps(out) == before
    trained.train("distillation", "--restart", "-o", "distillation.clip_sigma=3.0")
    with pytest.raises(SystemExit):
        run(scans, out)
    run(scans, out, "--overwrite")
    assert {row["problem"] for row in table(out)} == {""}
    assert stamps(out)["file.nii.gz"] != before["file.nii.gz"]


@pytest.mark.slow
def test_maps_of_another_scan_or_of_nobody_knows_what_do_not_count(
    trained: Any, scans: Path, tmp_path: Path, write_dicom: Callable[..., list[Path]]
) -> None:
    out = tmp_path / "out"
    run(scans, out)
    before = stamps(out)
    # The next patient, exported to the same folder: of the same size in the same place.
    source = sitk.GetArrayFromImage(sitk.ReadImage(str(scans / "file_0000.nii.gz")))
    file = sitk.ReadImage(str(scans / "file_0000.nii.gz"))
    for path in (scans / "export" / "series").iterdir():
        path.unlink()
    write_dicom(
        scans / "export" / "series",
        np.flip(source, axis=2),
        uid="1.2.826.77",
        spacing=tuple(file.GetSpacing()[::-1]),
        origin=file.GetOrigin(),
    )
    (out / "file.json").unlink()
    with pytest.raises(SystemExit):
        run(scans, out, "--page")
    problems = {row["case"]: row["problem"] for row in table(out)}
    assert "is that of another scan of this name" in problems["scans"]
    assert "nothing says which model made the map" in problems["file"]
    after = stamps(out)
    assert after == {name: before[name] for name in after}


@pytest.mark.slow
def test_nothing_shows_the_findings_of_another_threshold(
    trained: Any, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(scans, out, *EVERYTHING)
    map_file = (out / "scans_map.dcm").stat().st_mtime_ns
    run(scans, out, "--threshold", "p99.8", "--findings")
    gone = ("scans_findings.dcm", "scans.html", "scans.png", "file.html", "file.png")
    assert not any((out / name).exists() for name in gone)
    assert (out / "scans_map.dcm").stat().st_mtime_ns == map_file
    run(scans, out, "--threshold", "p99.8", "--findings", "--dicom", "--page")
    _check_dicom(out)
    assert (out / "scans.html").is_file()

    kept = makers.write_findings

    def refuse(*_: Any) -> None:
        raise MemoryError("too little")

    monkeypatch.setattr(makers, "write_findings", refuse)
    with pytest.raises(SystemExit):
        run(scans, out, *EVERYTHING)
    monkeypatch.setattr(makers, "write_findings", kept)
    run(scans, out, *EVERYTHING)  # tries again, and shows them on page and in the SEG
    assert {row["problem"] for row in table(out)} == {""}
    assert all(int(row["findings"]) > 0 for row in table(out))
    _check_dicom(out)
    record = json.loads((out / "scans.json").read_text())
    assert record["page"]["findings"] == record["findings"]


@pytest.mark.slow
def test_another_calibration_makes_everything_anew(
    trained: Any, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(scans, out, "--threshold", "5", "--findings")
    first = {row["case"]: row["case_percentile"] for row in table(out)}
    path = calibration_file(ModelRef("901", "ScreenerPlans"))
    record = json.loads(path.read_text())
    # Above all scans, or below all of them: whatever the rank was, it is another one.
    beyond = -1e6 if "0.0000" in first.values() else 1e6
    record["case_scores"] = [beyond for _ in record["case_scores"]]
    path.write_text(json.dumps(record))
    run(scans, out, "--threshold", "5", "--findings")
    later = {row["case"]: row["case_percentile"] for row in table(out)}
    assert set(later.values()) == {"100.0000" if beyond < 0 else "0.0000"}
    assert set(first.values()).isdisjoint(later.values())


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_old_beside_a_new_map(
    trained: Any, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(scans, out, *EVERYTHING)
    kept = extras.CaseExtras.write

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(extras.CaseExtras, "write", kill)
    with pytest.raises(SystemExit):
        predict_again(scans, out)
    maps = {p.name.removesuffix(".nii.gz") for p in out.glob("*.nii.gz")} & {"file", "scans"}
    records = {name: json.loads((out / f"{name}.json").read_text()) for name in maps}
    cut_off = next(name for name in maps if "products" not in records[name])
    left = {p.name for p in out.iterdir() if p.name.startswith(cut_off)}
    assert left <= {
        f"{cut_off}{end}" for end in (".nii.gz", "_body.nii.gz", "_mask.nii.gz", ".json")
    }
    monkeypatch.setattr(extras.CaseExtras, "write", kept)
    run(scans, out, *EVERYTHING)
    assert (out / f"{cut_off}_findings.json").is_file() and (out / f"{cut_off}.html").is_file()


def predict_again(scans: Path, out: Path) -> None:
    run(scans, out, "--overwrite", "--threshold", "p99.5")


@pytest.mark.slow
def test_what_is_made_already_stays(trained: Any, scans: Path, tmp_path: Path) -> None:
    """DICOM objects above all: a PACS that took them would get them twice."""
    out = tmp_path / "out"
    run(scans, out, "--threshold", "p99.5", "--findings", "--dicom")
    before = stamps(out)
    run(scans, out, *EVERYTHING)
    after = stamps(out)
    objects = ("scans_findings.dcm", "scans_map.dcm")
    assert [after[name] for name in objects] == [before[name] for name in objects]
    assert (out / "scans.html").is_file()
    rows = table(out)
    run(scans, out)  # asked for nothing, as when scans are added
    assert table(out) == rows and stamps(out) == after


@pytest.mark.slow
def test_the_table_keeps_scans_of_earlier_runs(trained: Any, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(scans / "file_0000.nii.gz", out, "--page")
    run(scans / "export", out, "--page")
    assert len(table(out)) == 2
    assert (out / "index.html").read_text().count("<img") == 2


@pytest.mark.slow
def test_what_fails_costs_neither_the_map_nor_the_others(
    trained: Any,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    kept = makers.write_parametric_map

    def refuse(*_: Any, **__: Any) -> float:
        raise ScreenerError("the series is tilted")

    monkeypatch.setattr(makers, "write_parametric_map", refuse)
    with pytest.raises(SystemExit) as stopped:
        run(scans, out, *EVERYTHING)
    shown = capsys.readouterr()
    assert stopped.value.code == 1 and "1 of 2 scans lack something" in shown.err
    assert "no DICOM objects of file: they have to refer to a DICOM series" in shown.out
    problems = {row["case"]: row["problem"] for row in table(out)}
    assert problems == {"file": "", "scans": "no DICOM map: the series is tilted"}
    assert (out / "scans_findings.dcm").is_file() and (out / "scans.html").is_file()
    monkeypatch.setattr(makers, "write_parametric_map", kept)
    before = stamps(out)
    run(scans, out, *EVERYTHING)  # tries again, that one alone
    assert {row["problem"] for row in table(out)} == {""}
    assert (out / "scans_map.dcm").is_file()
    assert stamps(out)["file.html"] == before["file.html"]


@pytest.mark.slow
def test_all_outputs_have_the_unit_of_the_detector(
    trained: Any,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pydicom = pytest.importorskip("pydicom")
    out = tmp_path / "out"
    run(scans, out, *EVERYTHING)
    usual = capsys.readouterr().out
    assert re.search(r"^threshold: [-0-9.]+ nats$", usual, re.MULTILINE)
    assert len(json.loads((out / "scans.json").read_text())["base"]) == 3
    maps = stamps(out)["file.nii.gz"]
    monkeypatch.setitem(DETECTORS, STUDENT, replace(DETECTORS[STUDENT], unit="none"))
    run(scans, out, *EVERYTHING)  # the maps stay, what names a unit is made anew
    assert re.search(r"^threshold: [-0-9.]+$", capsys.readouterr().out, re.MULTILINE)
    assert stamps(out)["file.nii.gz"] == maps
    assert json.loads((out / "file_findings.json").read_text())["score_unit"] == "none"
    texts = [(out / name).read_text() for name in ("file.html", "scans.html", "index.html")]
    assert not any("nats" in text for text in texts)
    for name in ("scans_map.dcm", "scans_findings.dcm"):
        assert "nats" not in str(pydicom.dcmread(out / name)).lower()
    records = [json.loads((out / f"{name}.json").read_text()) for name in ("file", "scans")]
    assert [record["base"][3:] for record in records] == [["none"], ["none"]]
    assert [record["page"]["unit"] for record in records] == ["none", "none"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--findings",), "give --threshold"),
        (("--threshold", "high"), "is no threshold"),
        (("--threshold", "dice"), "needs annotated cases"),
        (("--teacher", "-chk", "x.pth"), "leave it out"),
    ],
)
def test_requests_that_cannot_be_met(
    trained: Any,
    scans: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(scans, tmp_path / "out", *words)
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_was_removed_is_made_again_and_the_rest_stays(
    trained: Any, scans: Path, tmp_path: Path
) -> None:
    out, words = tmp_path / "out", ("--threshold", "p99.5", "--findings")
    run(scans, out, *words)
    before, gone = stamps(out), out / "file_findings.csv"
    content = gone.read_bytes()
    gone.unlink()
    run(scans, out, *words)
    assert gone.read_bytes() == content
    after = stamps(out)
    # Masks at this threshold are not made anew, nor is anything of the other scan.
    kept = [name for name in before if name.startswith("scans") or name.endswith("_mask.nii.gz")]
    assert len(kept) > 3 and all(after[name] == before[name] for name in kept)
    run(scans, out, "--threshold", "p99", "--findings")
    changed = stamps(out)
    assert all(changed[name] != before[name] for name in kept if name.endswith("_mask.nii.gz"))
