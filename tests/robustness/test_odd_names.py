"""Odd names."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
situation = pytest.mark.situation
NAMES = (
    "anna b",
    "a'n\"na",
    "<b>&amp;",
    "a,b;c",
    "a#b?c%20",
    "a\\b",
    "an\nna",
    "-rf",
    "--help",
    "\U0001fac1_müller",
    "con",
)


@situation(
    "spaces, quotes, commas, newlines, dashes, emoji and HTML in names of scans",
    0,
    "11 maps in .*, 0 scans skipped",
)
def test_names_that_are_legitimate(place: Any) -> None:
    for name in NAMES:
        place.person(f"in/{name}.nii.gz")
    place.predict()
    with (place.root / "out/cases.csv").open(newline="", encoding="utf-8") as stream:
        assert {row[0] for row in list(csv.reader(stream))[1:]} == set(NAMES)
    maps = {path.read_bytes() for path in place.root.glob("out/*_body.nii.gz")}
    assert len(maps) == 1, "the name of a scan changed its body mask"


@situation(
    "maps of scans by such names are evaluated, and their table is read back", 0, "written to"
)
def test_names_in_an_evaluation(place: Any) -> None:
    names = ("a,b;c", "an\nna", "\U0001fac1_müller", "-rf")
    for name in names:
        place.person(f"in/{name}.nii.gz")
    place.before(
        "predict", "-d", 901, "-i", place.root / "in", "-o", place.root / "out", "-device", "cpu",
        "--threshold", 5, "--findings",
    )  # fmt: skip
    place.path("masks/x")
    for name in names:
        shutil.copy(place.root / f"out/{name}_mask.nii.gz", place.root / f"masks/{name}.nii.gz")
    done = place.run(
        "evaluate", "-i", place.root / "out", "-r", place.root / "masks", "-np", 1,
        "--no_bootstrap", "-o", place.root / "figures",
    )  # fmt: skip
    assert "\nleft out" not in done.output
    with (place.root / "figures/cases.csv").open(newline="", encoding="utf-8") as stream:
        assert {row[0] for row in list(csv.reader(stream))[1:]} == set(names)


@situation(
    "pages of scans by such names: the index links to each of them", 0, "4 pages in .*, 0 scans"
)
def test_names_of_pages(place: Any) -> None:
    for name in ("a#b?c%20", "<b>&amp;", "an\nna", "\U0001fac1_müller"):
        place.person(f"in/{name}.nii.gz")
    place.before(
        "predict", "-d", 901, "-i", place.root / "in", "-o", place.root / "out", "-device", "cpu"
    )
    place.run("view", "-i", place.root / "in", "-m", place.root / "out", "-o", place.root / "pages")
    index = (place.root / "pages/index.html").read_text(encoding="utf-8")
    assert "<b>&amp;" not in index.replace("<b>Research", "")
    assert "a%23b%3Fc%2520.html" in index


@situation(
    "two scans whose names differ in letter case, or in how an accent is written",
    1,
    "skipped .*: its name differs from .* in letter case or accents alone, and on many disks one",
    "1 maps in .*, 1 scans skipped",
)
@pytest.mark.parametrize("names", [("Anna", "anna"), ("mu\u0308ller", "m\u00fcller")])
def test_names_that_disks_take_for_one(place: Any, names: tuple[str, str]) -> None:
    for name in names:
        place.person(f"in/{name}.nii.gz")
    place.predict()


@situation(
    "two scans of one name: `anna.nii.gz` beside `anna_0000.nii.gz` or `anna.mha`",
    1,
    "have the same case name anna in .*: rename one of them",
)
@pytest.mark.parametrize("other", ["anna_0000.nii.gz", "anna.mha"])
def test_two_scans_of_a_name(place: Any, other: str) -> None:
    place.person()
    place.person(f"in/{other}")
    place.predict()


@situation(
    "a name of 240 letters, or of 60 emoji; a good scan lies beside it",
    1,
    "skipped .*: its name has 240 bytes, and those of its map and findings would be too long",
    "1 maps in .*, 1 scans skipped",
)
@pytest.mark.parametrize("name", ["a" * 240, "\U0001fac1" * 60])
def test_long_name(place: Any, name: str) -> None:
    place.person()
    place.person(f"in/{name}.nii.gz")
    place.predict("--threshold", 5, "--findings", "--page")


@situation("a name of 215 letters", 0, "1 maps in .*, 0 scans skipped")
def test_longest_name(place: Any) -> None:
    place.person(f"in/{'a' * 215}.nii.gz")
    place.predict("--threshold", 5, "--findings", "--page")
    assert (place.root / f"out/{'a' * 215}_findings.nii.gz").is_file()


@situation(
    "scans by the names of what is written beside maps: `anna_body`, `anna_mask`, `anna_findings`",
    1,
    "skipped anna_body: its map would replace anna_body.nii.gz of the case anna: rename",
    "1 maps in .*, 3 scans skipped",
)
def test_names_of_our_files(place: Any) -> None:
    for end in ("", "_body", "_mask", "_findings"):
        place.person(f"in/anna{end}.nii.gz")
    place.predict()


@situation("scans called `index`, `cases` and `whole_body`", 0, "3 pages in .*, 0 scans skipped")
def test_names_of_tables(place: Any) -> None:
    for name in ("index", "cases", "whole_body"):
        place.person(f"in/{name}.nii.gz")
    place.before(
        "predict", "-d", 901, "-i", place.root / "in", "-o", place.root / "out", "-device", "cpu"
    )
    place.run("view", "-i", place.root / "in", "-m", place.root / "out", "-o", place.root / "pages")


@situation("a scan called `_0000.nii.gz`", 0, "1 maps in .*, 0 scans skipped")
def test_name_of_nothing(place: Any) -> None:
    place.person("in/_0000.nii.gz")
    place.predict()
    assert (place.root / "out/_0000.nii.gz").is_file()


@situation(
    "`._anna.nii.gz`, as a Mac leaves beside each file, and `.anna.nii.gz` of a killed copy",
    0,
    "1 maps in .*, 0 scans skipped",
)
def test_hidden_files(place: Any) -> None:
    place.person()
    place.mine(place.root / "in/._anna.nii.gz", b"Mac OS X")
    place.mine(place.root / "in/.anna.nii.gz", b"half")
    place.predict()


@situation(
    "raw scans by names with spaces, commas, newlines and emoji are planned and prepared",
    0,
    "plan written to",
)
def test_names_of_raw_scans(planned: Any) -> None:
    raw = planned.own_raw() / planned.world.raw.name / "imagesTr"
    source = sorted(raw.iterdir())[0]
    names = ("a,b c", "an\nna", "\U0001fac1_müller", "con", "-rf")
    for name in names:
        shutil.copy(source, raw / f"{name}_0000.nii.gz")
    planned.run(
        "plan_and_preprocess", "-d", 901, "--preset", "cpu", "--num_test", 1, "-np", 1,
        "-p", "Other", "-o", 'data_identifier="Other_screener"',
    )  # fmt: skip
    prepared = os.listdir(planned.world.preprocessed / "Other_screener")
    assert {name for name in names if f"{name}.json" in prepared} == set(names)


@situation("the maps lie in a folder of odd names", 0, "1 maps in .*, 0 scans skipped")
def test_odd_folders(place: Any) -> None:
    folder = "-in 'put' \U0001fac1,\n/b"
    place.person(f"{folder}/anna.nii.gz")
    place.predict(source=folder, out="out; rm -rf $HOME")
    assert Path(place.root / "out; rm -rf $HOME/anna.nii.gz").is_file()
