"""Malformed input by the hundred: each is used or named, and its neighbours are as without it."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, TinyWorld, write_dicom_series
from tests.faults import malformed
from tests.faults.attempts import Command, digest

_NUMBER = 100


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """Draws what is wrong."""
    return random.Random(f"{request.node.name} {request.config.getoption('--fault_seed')}")


def tell(
    request: pytest.FixtureRequest, what: str, command: str, tries: int, happened: str
) -> None:
    from tests.faults.conftest import Row, rows_of

    rows_of(request.config).append(Row(what, f"screener_{command}", tries, happened, "nothing"))


def tell_used(
    request: pytest.FixtureRequest, what: str, command: str, tries: int, used: int
) -> None:
    happened = f"{used} can be used still, {tries - used} are named with the reason"
    tell(request, what, command, tries, happened)


def test_scans_of_a_prediction(
    request: pytest.FixtureRequest, trained: Any, tmp_path: Path, draw: random.Random
) -> None:
    sound = sorted((trained.raw / "imagesTr").iterdir())[:2]
    alone, among = tmp_path / "alone", tmp_path / "among"
    for folder in (alone, among):
        folder.mkdir()
        for source in sound:
            shutil.copy(source, folder)
    names = malformed.volumes(among, sound[0], _NUMBER, draw)

    def predict(folder: Path, out: Path) -> Any:
        words = ("predict", "-d", 901, "-i", folder, "-o", out, "-device", "cpu")
        return Command("predict", lambda root: words).run(trained)

    assert predict(alone, tmp_path / "a").code == 0
    ended = predict(among, tmp_path / "b")
    assert "Traceback" not in ended.output and ended.code in (0, 1), ended.output[-5000:]
    for source in sound:
        case = source.name.removesuffix("_0000.nii.gz")
        for name in (f"{case}.nii.gz", f"{case}_body.nii.gz"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with (tmp_path / "b" / "cases.csv").open(newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    mapped = [name for name in names if (tmp_path / "b" / f"{name}.nii.gz").is_file()]
    lost = [n for n in names if n not in mapped and not (n in rows and rows[n]["problem"])]
    assert not lost, (lost, ended.output[-5000:])
    what = "malformed NIfTI, MHA and NRRD files"
    tell_used(request, what, "predict", len(names), len(mapped))


def test_scans_of_a_plan(
    request: pytest.FixtureRequest, made_world: TinyWorld, empty_world: Any, draw: random.Random
) -> None:
    raw = empty_world.root / "raw" / made_world.raw.name
    shutil.copytree(made_world.raw, raw)
    sound = sorted((raw / "imagesTr").iterdir())
    names = malformed.volumes(raw / "imagesTr", sound[0], _NUMBER, draw)
    for path in (raw / "imagesTr").glob("bad_*"):
        if not path.name.endswith(".nii.gz"):  # of one ending, a data set is
            path.rename(path.with_name(f"{path.name.split('.')[0]}.nii.gz"))
    words = ["plan_and_preprocess", "-d", 901, "--preset", "cpu", "-np", 2, "--num_test", 1]
    words += [word for setting in TINY for word in ("-o", setting)]
    ended = Command("plan", lambda root: words).run(empty_world)
    assert "Traceback" not in ended.output and ended.code == 0, ended.output[-5000:]
    for source in sound:
        case = source.name.removesuffix("_0000.nii.gz")
        assert (empty_world.cases / f"{case}.json").is_file()
    used = [name for name in names if (empty_world.cases / f"{name}.json").is_file()]
    plan = json.loads((empty_world.preprocessed / "ScreenerPlans.json").read_text())
    told = {n for n in names if re.search(rf"\b{n}\b", ended.output)}
    assert set(names) <= set(used) | told | set(plan["screener"]["left_out"])
    tell_used(request, "malformed NIfTI files", "plan_and_preprocess", len(names), len(used))


def test_descriptions_of_a_data_set(
    request: pytest.FixtureRequest, made_world: TinyWorld, empty_world: Any, draw: random.Random
) -> None:
    from screener_nnu.errors import ScreenerError
    from screener_nnu.planners.run import plan_dataset

    raw = empty_world.root / "raw" / made_world.raw.name
    shutil.copytree(made_world.raw, raw)
    values = json.loads((raw / "dataset.json").read_text())
    refused = 0
    for content in malformed.json_variants(values, _NUMBER, draw):
        (raw / "dataset.json").write_bytes(content)
        shutil.rmtree(empty_world.root / "preprocessed", ignore_errors=True)
        try:
            plan_dataset(["901"], None, 0, {"preset": "cpu", "plans_name": "ScreenerPlans"})
        except ScreenerError as error:
            refused += 1
            assert "dataset.json" in str(error) or "imagesTr" in str(error), error
    what = "malformed `dataset.json`"
    tell_used(request, what, "plan_and_preprocess", _NUMBER, _NUMBER - refused)


def test_series_of_an_import(
    request: pytest.FixtureRequest, empty_world: Any, tmp_path: Path, draw: random.Random
) -> None:
    export, other = tmp_path / "export", tmp_path / "alone"
    rng = np.random.default_rng(2)
    for number in range(3):
        array = rng.integers(-900, 900, (24, 40, 36))
        write_dicom_series(export / f"sound{number}", array, uid=f"1.2.7.{number}")
    shutil.copytree(export, other)
    number = malformed.series(export, _NUMBER, draw, write_dicom_series)

    def take(folder: Path, dataset: int, name: str) -> Any:
        words = ("import", "-i", folder, "-d", dataset, "--name", name, "-np", 2)
        return Command("import", lambda root: words).run(empty_world)

    assert take(other, 511, "Alone").code == 0
    ended = take(export, 512, "Among")
    assert "Traceback" not in ended.output and ended.code in (0, 1), ended.output[-5000:]
    folders = [empty_world.root / "raw" / name for name in ("Dataset511_Alone", "Dataset512_Among")]
    alone, among = (digest(folder / "imagesTr") for folder in folders)
    assert set(alone.values()) <= set(among.values())
    skipped = len(re.findall(r"^skipped ", ended.output, re.MULTILINE))
    happened = f"{len(among) - len(alone)} series come of it, {skipped} are named with the reason"
    tell(request, "malformed DICOM series", "import", number, happened)


def test_pictures_of_an_import(
    request: pytest.FixtureRequest, empty_world: Any, tmp_path: Path, draw: random.Random
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for index in range(12):
        picture = rng.integers(0, 255, (64, 48), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"sound{index:02d}.png")
    names = malformed.pictures(folder, _NUMBER, draw)
    words = ("import", "-i", folder, "-d", 513, "--name", "Pictures", "-np", 2, "--colour", "grey")
    ended = Command("import", lambda root: words).run(empty_world)
    assert "Traceback" not in ended.output and ended.code in (0, 1), ended.output[-5000:]
    taken = {p.name for p in (empty_world.root / "raw").rglob("*.png")}
    assert sum("sound" in name for name in taken) == 12, ended.output[-3000:]
    used = [name for name in names if any(name in other for other in taken)]
    told = [name for name in names if name in ended.output]
    assert set(names) <= set(used) | set(told), sorted(set(names) - set(used) - set(told))
    what = "malformed PNG, JPEG, BMP and TIFF files"
    tell_used(request, what, "import", len(names), len(used))
