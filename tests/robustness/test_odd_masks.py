"""Odd masks and data set files."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

pytestmark = pytest.mark.slow
situation = pytest.mark.situation
Spoil = Callable[[Any, Path], object]


def case(value: Any, given: str, code: int, *says: str) -> Any:
    """A parameter that is a situation, and so a row, of its own."""
    return pytest.param(value, marks=situation(given, code, *says), id=given)


def _change(path: Path, change: Callable[[NDArray], NDArray]) -> None:
    image = sitk.ReadImage(str(path))
    made = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    made.CopyInformation(image)
    sitk.WriteImage(made, str(path))


def _annotated(place: Any) -> Path:
    """Two maps with annotations; the annotation of the first."""
    for name in ("anna", "berta"):
        place.person(f"in/{name}.nii.gz")
    place.before(
        "predict", "-d", 901, "-i", place.root / "in", "-o", place.root / "out", "-device", "cpu",
        "--threshold", 5,
    )  # fmt: skip
    for name in ("anna", "berta"):
        path = place.path(f"masks/{name}.nii.gz")
        shutil.copy(place.root / f"out/{name}_mask.nii.gz", path)
    return place.root / "masks/anna.nii.gz"


def _evaluate(place: Any, out: str = "figures") -> dict[str, Any]:
    place.run(
        "evaluate", "-i", place.root / "out", "-r", place.root / "masks", "-np", 1,
        "--no_bootstrap", "-o", place.root / out,
    )  # fmt: skip
    return json.loads((place.root / out / "summary.json").read_text(encoding="utf-8"))


@situation(
    "masks of 0 and 1 as float, of 0 and 255, or 4D of one: the figures are the same",
    0,
    "written to",
)
@pytest.mark.parametrize("kind", ["float", "255", "4D"])
def test_masks_that_are_legitimate(place: Any, kind: str) -> None:
    mask = _annotated(place)
    plain = _evaluate(place, "plain")
    if kind == "4D":
        sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(str(mask))]), str(mask))
    else:
        _change(mask, lambda a: a.astype(np.float32) if kind == "float" else a * np.uint8(255))
    odd = _evaluate(place)
    assert odd["methods"] == plain["methods"]


def _faint(place: Any, mask: Path) -> None:
    _change(mask, lambda array: array.astype(np.float32) / 2)


def _empty(place: Any, mask: Path) -> None:
    _change(mask, np.zeros_like)


def _of_another(place: Any, mask: Path) -> None:
    other = sorted((place.world.raw / "imagesTr").iterdir())[3]
    sitk.WriteImage(sitk.ReadImage(str(other)) > 0, str(mask))


def _turned(place: Any, mask: Path) -> None:
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(mask)), [True, False, False]), str(mask))


def _renamed(place: Any, mask: Path) -> None:
    mask.rename(mask.with_name("anna.nrrd"))


@pytest.mark.parametrize(
    "spoil",
    [
        case(_faint, "a mask of 0 and 0.5", 0, "left out anna: .*values such as 0.5, but a mask"),
        case(_empty, "a mask without an annotated voxel", 0, "note on anna: no voxel is annotated"),
        case(_of_another, "the mask of another scan", 0, "left out anna: .*differ in size"),
        case(_turned, "a mask turned in space", 0, "left out anna: .*differ in origin"),
        case(_renamed, "a mask by another ending", 0, "left out anna: no annotation: "),
    ],
)
def test_masks_that_are_odd(place: Any, spoil: Spoil) -> None:
    spoil(place, _annotated(place))
    _evaluate(place)


@situation("all masks are empty", 1, "no case has an annotated voxel: give masks with values above")
def test_empty_masks(place: Any) -> None:
    place.person()
    image = sitk.ReadImage(str(place.root / "in/anna.nii.gz"))
    sitk.WriteImage(image > 32000, str(place.path("masks/anna.nii.gz")))
    place.run(
        "calibrate", "-d", 901, "--images", place.root / "in", "--masks", place.root / "masks",
        "-device", "cpu",
    )  # fmt: skip


@situation(
    "among the maps lie a body mask without a map, and what killed runs left",
    0,
    "2 pages in .*, 1 scans skipped",
    "no page of stray: stray.nii.gz is missing: predict the scan again",
)
def test_stray_files(place: Any) -> None:
    _annotated(place)
    shutil.copy(place.root / "out/anna_body.nii.gz", place.root / "out/stray_body.nii.gz")
    (place.root / "out/.anna.nii.gz.7.tmp").write_bytes(b"half")
    (place.root / "out/._anna_body.nii.gz").write_bytes(b"Mac OS X")
    place.run("view", "-i", place.root / "in", "-m", place.root / "out", "-o", place.root / "pages")


@situation("`-m` is a mask, which holds whole numbers", 0, "page.html: .* MB, peak 1.0 nats")
def test_page_of_a_mask(place: Any) -> None:
    _annotated(place)
    place.run(
        "view", "-i", place.root / "in/anna.nii.gz", "-m", place.root / "out/anna_body.nii.gz",
        "-o", place.root / "page.html",
    )  # fmt: skip


@situation(
    "a killed run left half a file yesterday; the next one removes it", 0, "1 maps in .*, 0 scans"
)
def test_leftovers(place: Any) -> None:
    place.person()
    left = place.path("out/.anna.nii.gz.77.tmp")
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 86400,) * 2)
    theirs = place.mine(place.root / "out/.notes.tmp", b"notes")
    os.utime(theirs, (1, 1))
    place.predict()
    assert not left.exists()


@situation("the clock was set back: all files come from the future", 0, "1 maps in .*, 0 scans")
def test_files_of_the_future(place: Any) -> None:
    place.person()
    place.before(
        "predict", "-d", 901, "-i", place.root / "in", "-o", place.root / "out", "-device", "cpu"
    )
    for path in (*place.root.glob("in/*"), *place.root.glob("out/*")):
        os.utime(path, (4e9, 4e9))
    place.predict("--threshold", 5)
    assert (place.root / "out/anna_mask.nii.gz").is_file()


def _write(content: Callable[[dict[str, Any]], bytes]) -> Spoil:
    def spoil(_: Any, path: Path) -> None:
        path.write_bytes(content(json.loads(path.read_text(encoding="utf-8"))))

    return spoil


def _with(**more: Any) -> Spoil:
    return _write(lambda values: json.dumps({**values, **more}).encode())


def _text(values: dict[str, Any]) -> str:
    return json.dumps({**values, "author": "Müller"}, ensure_ascii=False)


@pytest.mark.parametrize(
    "spoil",
    [
        case(_write(lambda _: b"[1, 2]"), "`dataset.json` is a list", 1, "it holds no names with"),
        case(_write(lambda _: b""), "`dataset.json` is empty", 1, "dataset.json is no JSON \\(Exp"),
        case(
            _write(lambda values: b"\xef\xbb\xbf" + _text(values).encode()),
            "`dataset.json` with a byte order mark", 1, "begins with a byte order mark",
        ),
        case(
            _write(lambda values: _text(values).encode("utf-16")),
            "`dataset.json` in UTF-16", 1, "dataset.json is no text in UTF-8: save it as that",
        ),
        case(
            _write(lambda values: _text(values).encode("latin-1")),
            "`dataset.json` in Latin-1", 1, "dataset.json is no text in UTF-8: save it as that",
        ),
        case(_with(channel_names=1), "`channel_names` is a number", 1, "has to be like"),
        case(_with(file_ending="nii.gz"), "`file_ending` without its dot", 1, "like '.nii.gz'"),
        case(_with(file_ending=".nrrd"), "another `file_ending`", 1, "or correct file_ending in"),
        case(_with(dataset=["a"]), "`dataset` is a list", 1, "dataset holds no cases by name"),
        case(_with(dataset={"a": {}}), "a case without images", 1, "dataset names no images of a"),
        case(
            _with(dataset={"../a": {"images": ["imagesTr/phantom_0000_0000.nii.gz"]}}),
            "a case called `../a`", 1, "names a case ../a, which cannot be the name of a file",
        ),
    ],
)  # fmt: skip
def test_dataset_json(planned: Any, spoil: Spoil) -> None:
    path = planned.own_raw() / planned.world.raw.name / "dataset.json"
    spoil(planned, path)
    planned.mine(path)
    planned.run("plan_and_preprocess", "-d", 901, "--preset", "cpu", "-np", 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(
            "spacing", [0, 9, 9],
            marks=situation(
                "a plan edited by hand: a spacing of 0", 1, "preprocessing.spacing must be above 0"
            ),
        ),
        pytest.param(
            "spacing", ["a", 9, 9],
            marks=situation(
                "a plan edited by hand: a spacing of letters", 1, "spacing must be float, but is"
            ),
        ),
        pytest.param(
            "spacing", None,
            marks=situation("a plan without a spacing", 1, "lacks the settings spacing"),
        ),
    ],
)  # fmt: skip
def test_plan_by_hand(planned: Any, key: str, value: Any) -> None:
    path = planned.world.preprocessed / "ScreenerPlans.json"
    plan = json.loads(path.read_text(encoding="utf-8"))
    if value is None:
        del plan["screener"]["preprocessing"][key]
    else:
        plan["screener"]["preprocessing"][key] = value
    path.write_text(json.dumps(plan), encoding="utf-8")
    planned.run("train", 901, "3d_fullres", "descriptor", "-device", "cpu")
