"""Prediction by workers, and by machines that have a part each, gives what one process gives."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.commands import predict as command
from screener_nnu.outputs.extras import read_record
from screener_nnu.workers.crew import Crew, working_with


@pytest.fixture
def scans(trained: Any, tmp_path: Path) -> Path:
    """Three scans, one of which cannot be read."""
    folder = tmp_path / "scans"
    folder.mkdir()
    sources = sorted((trained.raw / "imagesTr").iterdir())[:3]
    for source in sources[:2]:
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / sources[2].name).write_bytes(sources[2].read_bytes()[:2000])
    return folder


def predict(scans: Path, out: Path, *words: str) -> str:
    """Predicts with pages and findings; returns the error, of the broken scan at least."""
    asked = ("--threshold", "p99.5", "--findings", "--page", "-device", "cpu")
    words = ("-d", "901", "-i", str(scans), "-o", str(out), *asked, *words)
    with pytest.raises(SystemExit) as stopped:
        command.main(words)
    assert stopped.value.code == 1
    return str(stopped.value.__cause__)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "cases.csv").open(newline="") as stream:
        return sorted(csv.DictReader(stream), key=lambda row: row["case"])


def assert_same_output(out: Path, expected: Path) -> None:
    assert table(out) == table(expected)
    for row in table(expected):
        case = row["case"]
        own, other = (read_record(folder, case) for folder in (out, expected))
        assert own == other
        for path in expected.glob(f"{case}*.nii.gz"):
            one, two = (sitk.ReadImage(str(f / path.name)) for f in (out, expected))
            np.testing.assert_array_equal(*map(sitk.GetArrayFromImage, (one, two)))
    names = [{p.name for p in f.iterdir() if p.name[0] != "."} for f in (out, expected)]
    assert names[0] == names[1]


@pytest.fixture
def expected(scans: Path, tmp_path: Path) -> Path:
    out = tmp_path / "expected"
    assert "1 of 3 scans have no map" in predict(scans, out)
    assert len(list(out.glob("phantom_*.html"))) == 2
    return out


def test_workers_make_what_this_process_makes(
    scans: Path,
    expected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    crew = Crew.of(ThreadPoolExecutor(1))
    monkeypatch.setattr(command, "cluster_of", lambda _: working_with(crew))
    out = tmp_path / "out"
    assert "1 of 3 scans have no map" in predict(scans, out)
    assert_same_output(out, expected)
    # What is there is left alone, and what is missing of it is made.
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("phantom_000?.nii.gz")}
    before = [row["findings"] for row in table(out)]
    predict(scans, out, "--min_ml", "2", "--dicom")
    assert "no DICOM objects of phantom_0000, phantom_0001" in capsys.readouterr().out
    assert [row["findings"] for row in table(out)][:2] != before[:2] and len(stamps) == 2
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_parts_join_in_one_table(scans: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    parts = ("--parts", "3")
    assert "1 of 1 scans have no map" in predict(scans, out, "--part", "2", *parts)
    rows = table(out)
    assert [row["problem"] for row in rows[:2]] == ["not predicted yet"] * 2
    broken = rows[2]["problem"]
    assert broken and broken != "not predicted yet"
    for part in ("0", "1"):
        words = ("-d", "901", "-i", str(scans), "-o", str(out), "--threshold", "p99.5")
        asked = ("--findings", "--page", "-device", "cpu", "--part", part)
        command.main([*words, *asked, *parts])
    assert_same_output(out, expected)  # the reason of the other machine among them
    with pytest.raises(SystemExit):
        predict_cohort = ("--msde_mode", "cohort", "--part", "0", *parts)
        command.main(["-d", "901", "-i", str(scans), "-o", str(out), *predict_cohort])


@pytest.mark.slow
@pytest.mark.long
def test_plan_and_prediction_on_a_cluster_of_this_machine(
    trained: Any, scans: Path, expected: Path, tmp_path: Path
) -> None:
    pytest.importorskip("distributed")
    from screener_nnu.commands.plan_and_preprocess import main as plan

    world = trained.copy(tmp_path / "world")
    cases = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.environment.items():
            patch.setenv(name, value)
        for name, words in {"Near": [], "Far": ["--cluster"]}.items():
            (world.preprocessed / "screener_fingerprint_cases.jsonl").unlink()
            made = ["--preset", "cpu", "--num_test", "1", "--spacing", "12", "9", "9", "-p", name]
            plan(["-d", "901", "-np", "2", *made, *words])
            folder = world.preprocessed / f"{name}_screener"
            cases[name] = {path.name: path.read_bytes() for path in folder.glob("*.b2nd")}
    assert len(cases["Near"]) > 6 and cases["Far"] == cases["Near"]
    out = tmp_path / "out"
    assert "1 of 3 scans have no map" in predict(scans, out, "--cluster", "-np", "2")
    assert_same_output(out, expected)
