"""Scores of whole scans by a detector that has them, from training to the evaluation of cases."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.commands.evaluate import main as evaluate
from screener_nnu.commands.predict import main as predict
from screener_nnu.detectors import ModelRef
from screener_nnu.inference.volume import score_map
from screener_nnu.outputs.table import write_table
from screener_nnu.preprocessing.case_files import CaseFolder

CPU = torch.device("cpu")
COLUMNS = ("image_global", "image_local", "image_score")


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_columns_of_the_table_rank_cases(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.train("igd")
    images = tmp_path / "in"
    images.mkdir()
    sources = sorted((trained.raw / "imagesTr").iterdir())[:4]
    for source in sources:
        shutil.copy(source, images / source.name)
    words = ["-d", "901", "--detector", "igd", "-device", "cpu"]
    predict([*words, "-i", str(images), "-o", str(tmp_path / "maps")])
    rows = rows_of(tmp_path / "maps")
    module, plan, _ = ModelRef("901", detector="igd").load(CPU)
    cases = CaseFolder(trained.cases)
    for case, row in rows.items():
        image = torch.from_numpy(cases.read(case, "equalised").astype(np.float32))[None, None]
        body = torch.from_numpy(cases.read(case, "body") > 0)[None, None]
        assert image.shape[2:] == cases.shape(case, "hu")
        expected = module.image_scores(image, body)
        for column in COLUMNS:
            name = column.removeprefix("image_")
            assert float(row[column]) == pytest.approx(expected[name], rel=1e-2), column
    score = score_map(module, cases.read(case, "hu"), cases.read(case, "equalised"), plan, CPU)
    assert score.shape == cases.shape(case, "hu") and np.isfinite(score).all()

    # The two cases with the highest scores are said to be abnormal.
    order = sorted(rows, key=lambda case: float(rows[case]["image_local"]))
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case", "label"])
        writer.writerows([case, int(place >= 2)] for place, case in enumerate(order))
    out = tmp_path / "out"
    evaluate(["-i", str(tmp_path / "maps"), "--cases", str(labels), "-o", str(out)])
    report = capsys.readouterr().out
    assert all(column in report for column in COLUMNS)
    (line,) = [line for line in report.splitlines() if " image_local " in line]
    assert " 1.000 " in line


def test_records_of_earlier_versions_have_none(tmp_path: Path) -> None:
    record = {"case": "a", "case_score": 1.0, "vector_scores": {"knn": 2.0}}
    (tmp_path / "a.json").write_text(json.dumps(record))
    write_table(tmp_path, ["a"], {})
    assert not set(COLUMNS) & set(rows_of(tmp_path)["a"])
    (tmp_path / "b.json").write_text(json.dumps({**record, "image_scores": {"score": 0.25}}))
    write_table(tmp_path, ["a", "b"], {})
    rows = rows_of(tmp_path)
    assert (rows["a"]["image_score"], rows["b"]["image_score"]) == ("", "0.2500")
    assert rows["b"]["vector_knn"] == "2.0000"
