"""Whole cases by the command: tables of labels and scores as people and predictions write them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import skimage.io
import tifffile
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from screener_nnu.commands.evaluate import main

Rows = list[dict[str, object]]
CASES = 40


def write_rows(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def predicted(seed: int, strength: float = 1.0) -> Rows:
    """What a prediction writes of forty cases, the odd ones abnormal."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for number in range(CASES):
        score = rng.normal() + strength * (number % 2)
        percentile = float(np.clip(80 + 10 * score, 0, 100))
        rows.append(
            {
                "case": f"c{number:02d}",
                "case_score": f"{score:.4f}",
                "case_percentile": f"{percentile:.4f}",
                "flag": int(percentile >= 95),
                "peak_score": f"{np.round(score + rng.normal()):.4f}",
                "mean_score": f"{-score:.4f}",
                "smoothed_score": f"{score + rng.normal():.4f}",
                "findings": 3,
                "problem": "",
                "vector_nearest": f"{rng.normal():.4f}",
            }
        )
    return rows


def labels(**columns: list[str]) -> Rows:
    return [
        {"case": f"c{n:02d}", "label": n % 2, **{k: v[n] for k, v in columns.items()}}
        for n in range(CASES)
    ]


def evaluate(root: Path, *words: str, table: Rows | None = None) -> dict:
    path = write_rows(root / "labels.csv", labels() if table is None else table)
    given = list(words) if "-i" in words else ["-i", str(root / "maps"), *words]
    main([*given, "--cases", str(path), "-o", str(root / "out")])
    return json.loads((root / "out" / "cases_summary.json").read_text())


def column(rows: Rows, name: str) -> np.ndarray:
    return np.array([float(str(row[name])) for row in rows])


ILL = np.arange(CASES) % 2 == 1


def test_every_score_has_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = predicted(0)
    write_rows(tmp_path / "maps" / "cases.csv", rows)
    summary = evaluate(tmp_path)
    assert summary["cases"] == [row["case"] for row in rows] and not summary["left_out"]
    of_method = summary["methods"]["screener"]
    columns = ["case_score", "peak_score", "mean_score", "smoothed_score", "vector_nearest"]
    assert list(of_method) == columns
    for name, figures in of_method.items():
        scores = column(rows, name)
        assert figures["cases"] == CASES and figures["abnormal"] == CASES // 2
        assert figures["auroc"] == pytest.approx(roc_auc_score(ILL, scores), abs=1e-12)
        precision = average_precision_score(ILL, scores)
        assert figures["average_precision"] == pytest.approx(precision, abs=1e-12)
        assert ("sensitivity" in figures) == (name == "case_score")
        ends = figures["intervals_95"]["auroc"]
        assert ends["low"] < figures["auroc"] < ends["high"]
    flagged = column(rows, "flag")
    assert of_method["case_score"]["sensitivity"] == recall_score(ILL, flagged)
    assert of_method["case_score"]["specificity"] == recall_score(~ILL, 1 - flagged)
    assert of_method["case_score"]["accuracy"] == np.mean(flagged == ILL)
    printed = capsys.readouterr().out
    assert "95th percentile of held-out" in printed and "LEAKY" not in printed
    assert f"{of_method['case_score']['auroc']:.3f} [" in printed
    assert (tmp_path / "out" / "cases_roc.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "summary.json").exists()


def test_tables_without_the_column_flag_are_flagged_by_the_percentile(tmp_path: Path) -> None:
    rows = predicted(0)
    write_rows(tmp_path / "maps" / "cases.csv", rows)
    flagged = evaluate(tmp_path)["methods"]["screener"]["case_score"]
    for row in rows:
        del row["flag"]
    write_rows(tmp_path / "maps" / "cases.csv", rows)
    assert evaluate(tmp_path)["methods"]["screener"]["case_score"] == flagged
    for row in rows:
        del row["case_percentile"]
    write_rows(tmp_path / "maps" / "cases.csv", rows)
    summary = evaluate(tmp_path)
    assert summary["methods"]["screener"]["case_score"]["sensitivity"] is None
    assert "no case_percentile" in summary["notes"][0]


def test_cases_that_are_left_out_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = predicted(0)
    rows[4] |= {"case_score": "", "flag": "", "peak_score": "", "problem": "the body is empty"}
    rows[5]["vector_nearest"] = ""
    rows[6]["flag"] = rows[6]["case_percentile"] = ""
    write_rows(tmp_path / "maps" / "cases.csv", rows[:-1])
    split = ["train"] * 2 + ["test"] * (CASES - 2)
    table = labels(split=split)
    table[2]["label"] = ""
    table = [row for row in table if row["case"] != "c10"]
    summary = evaluate(tmp_path, table=table)
    assert summary["left_out"] == {
        "c00": "of the training split",
        "c01": "of the training split",
        "c02": "without a label",
        "c04": "no case score by 'screener': the body is empty",
        "c39": "no prediction by 'screener'",
    }
    assert summary["unlabelled"] == ["c10"]
    judged = [n for n in range(CASES) if f"c{n:02d}" in summary["cases"]]
    assert len(judged) == CASES - 6
    of_method = summary["methods"]["screener"]
    scores = column([rows[n] for n in judged], "case_score")
    assert of_method["case_score"]["auroc"] == pytest.approx(roc_auc_score(ILL[judged], scores))
    rest = [n for n in judged if n != 5]
    scores = column([rows[n] for n in rest], "vector_nearest")
    assert of_method["vector_nearest"]["cases"] == len(rest)
    assert of_method["vector_nearest"]["auroc"] == pytest.approx(roc_auc_score(ILL[rest], scores))
    rest = [n for n in judged if n != 6]
    flagged = column([rows[n] for n in rest], "flag")
    right = np.mean(flagged == ILL[rest])
    assert of_method["case_score"]["accuracy"] == pytest.approx(right)
    notes = " ".join(summary["notes"])
    assert "without a value are 1: c05" in notes and "not known of 1: c06" in notes
    printed = capsys.readouterr().out
    assert "left out, of the training split: 2: c00, c01" in printed
    assert "left out, not in the table of labels: 1: c10" in printed


def test_several_methods_on_the_same_cases_and_their_paired_difference(tmp_path: Path) -> None:
    one, other = predicted(0, 2.0), predicted(1, 0.2)
    other[7]["case_score"] = ""
    write_rows(tmp_path / "one" / "cases.csv", one)
    write_rows(tmp_path / "other" / "cases.csv", other)
    words = [f"strong={tmp_path / 'one'}", f"weak={tmp_path / 'other'}"]
    summary = evaluate(tmp_path, "-i", *words)
    assert list(summary["methods"]) == ["strong", "weak"]
    assert summary["left_out"] == {"c07": "no case score by 'weak': no score in the table"}
    rest = np.arange(CASES) != 7
    scores = [
        column([r for r in rows if r["case"] != "c07"], "case_score") for rows in (one, other)
    ]
    aurocs = [roc_auc_score(ILL[rest], values) for values in scores]
    difference = summary["auroc_differences"][0]
    assert (difference["first"], difference["other"]) == ("strong", "weak")
    assert difference["score"] == "case_score"
    assert difference["difference"] == pytest.approx(aurocs[0] - aurocs[1])
    assert 0 < difference["interval_95"]["low"] < difference["difference"]
    assert [d["score"] for d in summary["auroc_differences"]] == [
        "case_score",
        "peak_score",
        "mean_score",
        "smoothed_score",
        "vector_nearest",
    ]
    # A method and itself differ by nothing in every sample, which they would not if unpaired.
    summary = evaluate(tmp_path, "-i", f"a={tmp_path / 'one'}", f"b={tmp_path / 'one'}")
    for difference in summary["auroc_differences"]:
        assert difference["difference"] == 0
        assert difference["interval_95"] == {"low": 0, "high": 0}


def test_groups_of_cases_are_resampled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "maps" / "cases.csv", predicted(0))
    alone = evaluate(tmp_path)
    groups = [f"patient {n // 4}" for n in range(36)] + [""] * 4
    grouped = evaluate(tmp_path, table=labels(group=groups))
    assert alone["groups"] is None and grouped["groups"] == 9 + 4
    assert "over 13 groups" in capsys.readouterr().out
    one, other = (s["methods"]["screener"]["case_score"] for s in (alone, grouped))
    assert one["auroc"] == other["auroc"] and one["intervals_95"] != other["intervals_95"]
    single = evaluate(tmp_path, table=labels(group=["p"] * CASES))
    ends = single["methods"]["screener"]["case_score"]["intervals_95"]["auroc"]
    assert ends == {"low": None, "high": None}


def chosen_on(root: Path, numbers: range) -> str:
    return str(write_rows(root / "few.csv", [labels()[n] for n in numbers]))


def test_a_threshold_is_chosen_on_some_cases_and_measured_on_all_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = predicted(0)
    write_rows(tmp_path / "maps" / "cases.csv", rows)
    summary = evaluate(tmp_path, "--threshold_from", chosen_on(tmp_path, range(12)))
    few, rest = np.arange(CASES) < 12, np.arange(CASES) >= 12
    scores = column(rows, "case_score")
    indices = {
        t: recall_score(ILL[few], scores[few] >= t) + recall_score(~ILL[few], scores[few] < t)
        for t in scores[few]
    }
    threshold = max(t for t in indices if indices[t] == max(indices.values()))
    figures = summary["methods"]["screener"]["case_score"]
    assert figures["cases"] == 28
    assert figures["auroc"] == pytest.approx(roc_auc_score(ILL[rest], scores[rest]))
    sensitivity = recall_score(ILL[rest], scores[rest] >= threshold)
    assert figures["sensitivity"] == pytest.approx(sensitivity)
    assert figures["accuracy"] == pytest.approx(np.mean((scores >= threshold) == ILL, where=rest))
    assert not summary["leaky_threshold"]
    assert summary["left_out"]["c03"] == "the threshold was chosen on it"
    assert len(summary["left_out"]) == 12
    assert f"case_score {threshold:.6g}" in summary["flagged_from"]["screener"]
    assert "LEAKY" not in capsys.readouterr().out


def test_a_threshold_of_cases_beside_the_table_costs_none_of_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "maps" / "cases.csv", predicted(0))
    few = chosen_on(tmp_path, range(12))
    groups = [f"p{n // 8}" for n in range(CASES)]
    summary = evaluate(tmp_path, "--threshold_from", few, table=labels(group=groups)[12:])
    assert len(summary["cases"]) == 28 and not summary["left_out"] and not summary["unlabelled"]
    write_rows(tmp_path / "few.csv", labels(group=groups)[:12])
    summary = evaluate(tmp_path, "--threshold_from", few, table=labels(group=groups)[12:])
    # The second group of eight stands on both sides.
    assert "of a group that the threshold was chosen on, too: 4: c12" in summary["notes"][0]


def test_a_threshold_of_all_test_cases_is_called_leaky(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "maps" / "cases.csv", predicted(0))
    summary = evaluate(tmp_path, "--threshold_from", chosen_on(tmp_path, range(CASES)))
    assert summary["leaky_threshold"] and len(summary["cases"]) == CASES
    assert "WHICH IS LEAKY" in capsys.readouterr().out


def test_one_kind_of_cases_is_a_sentence_and_no_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "maps" / "cases.csv", predicted(0))
    summary = evaluate(tmp_path, table=labels()[::2])
    figures = summary["methods"]["screener"]["case_score"]
    assert figures["auroc"] is None and figures["average_precision"] is None
    assert figures["sensitivity"] is None and figures["specificity"] > 0
    assert "need both kinds of cases, but all are normal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"case": "c00", "verdict": 1}], "no column label"),
        ([{"case": "c00", "label": "ill"}], "the label of c00 is ill"),
        ([{"case": "c00", "label": 1}, {"case": "c00", "label": 1}], "c00 stands twice"),
        ([{"case": "c00", "label": ""}], "no case to evaluate has a label"),
        ([{"case": "other", "label": 1}], "no prediction by 'screener'"),
    ],
)
def test_tables_that_cannot_be_used(
    tmp_path: Path, table: Rows, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "maps" / "cases.csv", predicted(0))
    with pytest.raises(SystemExit):
        evaluate(tmp_path, table=table)
    assert message in capsys.readouterr().err


def test_what_stands_in_the_way_of_a_chosen_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "maps" / "cases.csv", predicted(0))
    few = tmp_path / "few.csv"
    for rows, message in (
        ([{"case": "c00", "label": 0}, {"case": "c02", "label": 0}], "has 2 and 0 of these"),
        ([{"case": "c00", "label": 1}, {"case": "c02", "label": 0}], "label of 1: c00"),
    ):
        write_rows(few, rows)
        with pytest.raises(SystemExit):
            evaluate(tmp_path, "--threshold_from", str(few))
        assert message in capsys.readouterr().err
    (tmp_path / "maps" / "cases.csv").unlink()
    with pytest.raises(SystemExit):
        evaluate(tmp_path)
    assert "cases.csv does not exist" in capsys.readouterr().err


def test_files_of_a_person_are_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "maps" / "cases.csv", predicted(0))
    mine = tmp_path / "out" / "cases_summary.json"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(SystemExit):
        evaluate(tmp_path)
    assert mine.read_text() == "mine" and "cases_summary.json" in capsys.readouterr().err
    mine.unlink()
    first = evaluate(tmp_path)
    assert evaluate(tmp_path) == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-i", "maps", "-r", "masks", "--threshold_from", "few.csv"], "give --cases as well"),
        (["--merge", "one", "-o", "out", "--cases", "labels.csv"], "leave out --cases"),
    ],
)
def test_arguments_that_do_not_fit(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_pictures_and_their_pixels_in_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows = predicted(0)[:6]
    write_rows(tmp_path / "maps" / "cases.csv", rows)
    for folder in ("masks", "images"):
        (tmp_path / folder).mkdir()
    pictures = {}
    for number, row in enumerate(rows):
        case = str(row["case"])
        mask = np.zeros((20, 26), np.uint8)
        mask[4:9, 3:12] = number % 2
        pictures[case] = rng.integers(0, 256, (20, 26, 3)).astype(np.uint8) // (1 + number % 3)
        tifffile.imwrite(tmp_path / "maps" / f"{case}.tif", rng.random((20, 26), np.float32))
        for path, array in (
            (tmp_path / "maps" / f"{case}_body.png", np.ones_like(mask)),
            (tmp_path / "masks" / f"{case}.png", mask),
            (tmp_path / "images" / f"{case}_0000.png", pictures[case]),
        ):
            skimage.io.imsave(path, array, check_contrast=False)
    (tmp_path / "images" / "c05_0000.png").unlink()
    words = ["--images", str(tmp_path / "images"), "-r", str(tmp_path / "masks"), "-np", "1"]
    summary = evaluate(tmp_path, *words, table=labels()[:6])
    files = [tmp_path / "images" / f"c{n:02d}_0000.png" for n in range(5)]
    grey = [pictures[f"c{n:02d}"].astype(float).mean(-1) for n in range(5)]
    expected = {
        "image_mean": [picture.mean() for picture in grey],
        "image_deviation": [picture.std() for picture in grey],
        "file_size": [path.stat().st_size for path in files],
    }
    assert set(summary["methods"]["no learning"]) == set(expected)
    for name, values in expected.items():
        figures = summary["methods"]["no learning"][name]
        assert figures["cases"] == 5
        assert figures["auroc"] == pytest.approx(roc_auc_score(ILL[:5], values))
    assert "no learning, image_mean: without a value are 1: c05" in summary["notes"]
    printed = capsys.readouterr().out
    assert "below 0.5 the lower ones are abnormal" in printed and "best IoU" in printed
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["skipped"].keys() == {"c05"}


def test_scans_without_learning_are_measured_in_the_body(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = predicted(0)[:6]
    write_rows(tmp_path / "maps" / "cases.csv", rows)
    (tmp_path / "images").mkdir()
    values = []
    for row in rows:
        image = rng.normal(0, 100, (4, 5, 6)).astype(np.int16)
        body = rng.random(image.shape) < 0.5
        for path, array in (
            (tmp_path / "images" / f"{row['case']}.nii.gz", image),
            (tmp_path / "maps" / f"{row['case']}_body.nii.gz", body.astype(np.uint8)),
        ):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        values.append((image[body].mean(), image[body].std()))
    summary = evaluate(
        tmp_path, "--images", str(tmp_path / "images"), "--no_bootstrap", table=labels()[:6]
    )
    figures = summary["methods"]["no learning"]
    for name, of_scans in zip(("image_mean", "image_deviation"), np.transpose(values), strict=True):
        assert figures[name]["auroc"] == pytest.approx(roc_auc_score(ILL[:6], of_scans))
        assert figures[name]["intervals_95"] == {}
