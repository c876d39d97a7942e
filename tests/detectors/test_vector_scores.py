"""Scores of a scan by its mean descriptor, from training to the table of all scans."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from screener_nnu.commands.predict import main as predict
from screener_nnu.densities import enhanced, vector_scores
from screener_nnu.densities.vector_scores import VECTOR_COLUMNS
from screener_nnu.detectors import ModelRef
from screener_nnu.inference.volume import stitched_maps
from screener_nnu.preprocessing.case_files import CaseFolder

CPU = torch.device("cpu")


@pytest.fixture
def msde(trained: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A world with few training scans, where that is enough."""
    for module in (enhanced, vector_scores):
        monkeypatch.setattr(module, "LEAST_ROWS", 2)
    trained.train("msde", "--restart")
    return trained


def predicted(words: list[object], images: Path, output: Path) -> dict[str, str]:
    predict([str(word) for word in [*words, "-i", images, "-o", output, "-device", "cpu"]])
    with (output / "cases.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    return row


@pytest.mark.slow
def test_columns_of_the_table(
    msde: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = ModelRef("901", detector="msde").load(CPU)
    cases = CaseFolder(msde.cases)
    plan = json.loads((msde.preprocessed / "ScreenerPlans.json").read_text())
    case = plan["screener"]["split"]["validation"][0]
    image = torch.from_numpy(cases.read(case, "equalised").astype(np.float32))
    body = torch.from_numpy(cases.read(case, "body")).float()
    grid = cases.shape(case, "hu")
    image, body = (
        F.interpolate(v[None, None], grid, mode=mode)[0, 0]
        for v, mode in ((image, "trilinear"), (body, "nearest-exact"))
    )
    teacher = loaded.module
    y = stitched_maps(teacher.features.descriptor_maps, teacher.cell, image, loaded.plan)[0]
    room = [v for n, c in zip(grid[::-1], teacher.cell[::-1], strict=True) for v in (0, -n % c)]
    inside = F.avg_pool3d(F.pad(body, room)[None, None], teacher.cell)[0, 0] > 0.5
    mean = (y[:, inside].mean(dim=1) - teacher.density.y_mean) / teacher.density.y_std
    expected = teacher.density.density.vectors.score(mean[None])

    images = tmp_path / "in"
    images.mkdir()
    (source,) = (msde.raw / "imagesTr").glob(f"{case}_0000.*")
    shutil.copy(source, images / "anna_0000.nii.gz")
    words = ["-d", 901, "--detector", "msde"]
    row = predicted(words, images, tmp_path / "out")
    found = {name: float(row[f"vector_{name}"]) for name in VECTOR_COLUMNS}
    for name in VECTOR_COLUMNS:
        assert found[name] == pytest.approx(float(expected[name]), rel=1e-3, abs=1e-3), name
    # They are not made anew, nor lost, when something else is made of the map.
    again = predicted([*words, "--threshold", "p99", "--findings"], images, tmp_path / "out")
    assert {k: v for k, v in again.items() if k.startswith("vector_")} == {
        k: v for k, v in row.items() if k.startswith("vector_")
    }
    # One scan is no cohort.
    alone = predicted([*words, "--msde_mode", "cohort"], images, tmp_path / "out")
    assert (alone["vector_cohort"], alone["vector_cohort_size"]) == ("false", "1")
    assert alone["vector_gaussian"] == row["vector_gaussian"]
    assert "One vector is no cohort" in caplog.text
    # Other detectors have no such columns.
    other = predicted(["-d", 901, "--teacher"], images, tmp_path / "teacher")
    assert not any(name.startswith("vector_") for name in other)
    for wrong, said in (("cohort", "this one has none"), ("reference --msde_paper_bug", "add")):
        asked = ["-d", 901, "--teacher", "--msde_mode", *wrong.split()]
        with pytest.raises(SystemExit):
            predicted(asked, images, tmp_path / "teacher")
        assert said in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("setting", ["density.body_only=false", "density.whole_scans=false"])
def test_means_that_are_no_scans_body_are_no_vectors(msde: Any, setting: str) -> None:
    settings = ("density.kind=msde", "condition.kind=none", "density.noise=0", setting)
    whole = () if "whole" in setting else ("density.whole_scans=true",)
    words = [word for each in (*settings, *whole) for word in ("-o", each)]
    msde.train("density", "-p", "Other", *words, "-o", "density.descriptor_plans=ScreenerPlans")
    loaded = ModelRef("901", "Other", "teacher").load(CPU)
    assert not loaded.module.density.has_vector_scores


@pytest.mark.slow
def test_too_few_scans_give_none(trained: Any, tmp_path: Path) -> None:
    trained.train("msde", "--restart")
    loaded = ModelRef("901", detector="msde").load(CPU)
    assert not loaded.module.density.has_vector_scores
    assert loaded.module.vector_scores(torch.zeros(1, 4, 2, 2, 2), torch.ones(2, 2, 2) > 0) == {}
