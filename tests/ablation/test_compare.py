"""Detectors of one plan in one table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from screener_nnu.ablation import compare, costs, run, scoring
from screener_nnu.ablation.compare_report import _minutes_lines, _predict_line
from screener_nnu.ablation.figures import auroc_draws, less, table_row
from screener_nnu.ablation.judged import Judged
from screener_nnu.commands.ablate import main as ablate
from screener_nnu.commands.compare import main
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.baselines import BASELINES
from screener_nnu.inference.volume import score_map
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.cases import anomalous_case, plain_case


def judged(shift: float, scans: int = 5) -> Judged:
    """Histograms of scans whose anomalies score higher by a shift."""
    rng = np.random.default_rng(0)
    counts = {}
    for kind in KINDS:
        rows = []
        for _ in range(scans):
            positive, negative = rng.normal(shift, 1, 200), rng.normal(0, 1, 900)
            bins = np.linspace(-4, 5, 60)
            rows.append([np.histogram(values, bins)[0] for values in (positive, negative)])
        counts[kind] = np.array(rows)
    return Judged(tuple("abcde"[:scans]), counts)


def test_differences_are_those_of_the_same_draws() -> None:
    weak, strong = judged(0.5), judged(1.0)
    gain = less([auroc_draws(strong)], [auroc_draws(weak)], 5)
    rows = [table_row(name, [run]).auroc["mean"] for name, run in (("s", strong), ("w", weak))]
    assert gain.value == pytest.approx(rows[0].value - rows[1].value)
    assert gain.low is not None and gain.high is not None and 0 < gain.low < gain.value < gain.high
    # In pairs, the interval is narrower than that of either: a hard scan is hard for both.
    same = less([auroc_draws(weak)], [auroc_draws(weak)], 5)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert less([auroc_draws(judged(1, 1))], [auroc_draws(judged(0, 1))], 1).low is None


def test_case_auroc_is_the_share_of_pairs_in_order() -> None:
    """Over all pairs of a scan with an anomaly and one without, a tie for a half."""
    rng = np.random.default_rng(1)
    plain, ill = rng.integers(0, 6, 5), rng.integers(1, 8, (len(KINDS), 5))
    run = judged(1.0)
    run = Judged(run.cases, run.counts, {"case_score": np.vstack([plain, ill])})
    pairs = (ill[:, :, None] > plain) + 0.5 * (ill[:, :, None] == plain)
    figure = table_row("x", [run]).case_auroc["case_score"]
    assert figure.value == pytest.approx(pairs.mean())
    assert figure.low is not None and figure.high is not None
    assert figure.low < figure.value < figure.high


def test_a_case_score_that_is_not_defined_gives_no_figure() -> None:
    scores = np.random.default_rng(0).normal(size=(1 + len(KINDS), 5))
    run = judged(1.0)
    whole = Judged(run.cases, run.counts, {"vector": scores})
    assert np.isfinite(table_row("x", [whole]).case_auroc["vector"].value)
    scores[2, 3] = np.nan
    figure = table_row("x", [whole]).case_auroc["vector"]
    assert np.isnan(figure.value) and figure.low is None and figure.high is None


def test_the_report_says_who_has_less_or_more_than_the_budget() -> None:
    given = {"student": 9.8, "padim": 3.0, "knn": None, "autoencoder": 12.0}
    lines = _minutes_lines(given, 10.0)
    assert "student 9.80, padim 3.00, knn -, autoencoder 12.00" in lines[0]
    assert lines[1].startswith("Below the budget: padim. ")
    assert lines[2].startswith("Above the budget: autoencoder. ")
    assert len(lines) == 3 and len(_minutes_lines({"padim": 10.0}, 10.0)) == 1
    assert _minutes_lines({"padim": None}, None) == []


def test_the_report_says_how_to_predict_with_each() -> None:
    plan_of = {"student": "P_m5_descriptor", "padim": "P_m5_descriptor", "mood": "P_m5_mood"}
    line = _predict_line("Dataset901_All", plan_of)
    assert "screener_predict -d 901 -p PLAN" in line
    assert line.endswith("P_m5_descriptor: student, padim; P_m5_mood: mood.")


@pytest.mark.long
@pytest.mark.slow
def test_a_detector_that_breaks_does_not_cost_the_table(
    trained: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One cannot be trained, one has scores that are no numbers; the others have their rows."""
    train, score = run.train_stage, scoring.score_scan

    def broken(dataset: str, stage: str, plans: str, device: Any) -> None:
        if stage == "distillation":
            raise ScreenerError("the loss is NaN\nat step 3")
        train(dataset, stage, plans, device)

    def without_numbers(*arguments: Any, **options: Any) -> Any:
        found = score(*arguments, **options)
        return found._replace(scores=np.full_like(found.scores, np.nan))

    monkeypatch.setattr(run, "train_stage", broken)
    early: list[int] = []
    write = compare.write_comparison

    def noted(tables: Any, *more: Any) -> str:
        early.append(len(tables[0].detectors))
        return write(tables, *more)

    monkeypatch.setattr(compare, "write_comparison", noted)
    monkeypatch.setattr(compare, "_EARLY_REPORT", 0.0)
    monkeypatch.setattr(scoring, "score_scan", without_numbers)
    words = ["901", "--detectors", "padim", "student", "autoencoder", "knn", "-device", "cpu"]
    main([*words, "-o", str(tmp_path / "a")])
    with (tmp_path / "a" / "detectors.csv").open(newline="") as stream:
        rows = {row["method"] for row in csv.DictReader(stream)}
    assert rows == {"padim", "knn", *BASELINES}
    # The table grows with every detector that is judged, and is written once more at the end.
    assert early == [1, 1, 1, 2, 2]
    stored = json.loads((tmp_path / "a" / "detectors.json").read_text())
    assert set(stored["failed"]) == {"student", "autoencoder"}
    assert stored["failed"]["student"] == "the loss is NaN"
    reason = stored["failed"]["autoencoder"]
    assert "ScreenerPlans_autoencoder on " in reason and "(none): the map holds NaN" in reason
    assert "Failed: student: the loss is NaN" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["901", "--detectors", "student", "padim", "-device", "cpu"])
    assert "the loss is NaN" in capsys.readouterr().err


def case_auroc_of(trained: Any, name: str) -> float:
    """The figure from maps of painted and plain scans, and scikit-learn."""
    model, plan, _ = ModelRef("901", detector=name).load(torch.device("cpu"))
    settings = plan.settings
    names, cases = settings.split.test, CaseFolder(trained.cases)
    scores: dict[str, list[float]] = {}
    for kind in ("none", *KINDS):
        for case in names:
            if kind == "none":
                made = plain_case(cases, case)
            else:
                made = anomalous_case(cases, case, names, kind, settings.preprocessing, 1)
            found = score_map(model, made.hu, made.equalised, plan, torch.device("cpu"))
            value = np.percentile(found[made.body | made.mask], 99.95)
            scores.setdefault(kind, []).append(float(value))
    labels = [0] * len(names) + [1] * len(names)
    return float(np.mean([roc_auc_score(labels, scores["none"] + scores[k]) for k in KINDS]))


@pytest.mark.slow
def test_one_table_of_any_detectors(
    trained: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["901", "--detectors", "teacher", "student", "padim", "knn", "-device", "cpu"]
    main([*words, "-o", str(tmp_path / "a")])
    shown = capsys.readouterr().out
    lines = [line.split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    assert [line[0].strip("| ") for line in lines[1:5]] == words[2:6]
    with (tmp_path / "a" / "detectors.csv").open(newline="") as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {*words[2:6], *BASELINES}
    for name in words[2:6]:
        kinds = [float(rows[name][f"auroc_{kind}"]) for kind in KINDS]
        assert float(rows[name]["auroc_mean"]) == pytest.approx(np.mean(kinds), abs=1e-6)
        gain = float(rows[name]["auroc_mean"]) - float(rows["teacher"]["auroc_mean"])
        assert float(rows[name]["difference"]) == pytest.approx(gain, abs=1e-6)
        assert float(rows[name]["seconds"]) > 0 and float(rows[name]["training_seconds"]) > 0
        assert 0 <= float(rows[name]["case_auroc"]) <= 1
    # The networks of the teacher, which padim shares, and a density of each.
    parameters = {name: int(rows[name]["parameters"]) for name in words[2:6]}
    assert parameters["student"] < parameters["knn"] < parameters["teacher"]
    assert rows["knn"]["unit"] == "none" and rows["padim"]["unit"] == "nats"
    assert case_auroc_of(trained, "padim") == pytest.approx(float(rows["padim"]["case_auroc"]))
    stored = json.loads((tmp_path / "a" / "detectors.json").read_text())
    assert stored["settings"]["scans"] and (tmp_path / "a" / "detectors.png").stat().st_size > 1000
    assert stored["rows"][0]["steps"]["density of ScreenerPlans"] == 4
    assert "| share of the voxels |" in (tmp_path / "a" / "detectors.md").read_text()
    assert all(0 <= one["value"] <= 1 for one in stored["rows"][0]["changes"].values())
    assert stored["rows"][3]["steps"]["density of ScreenerPlans_knn"] == 0
    # The same call by its older name gives the same table and pictures, and scores nothing again.
    report = [tmp_path / "a" / f"detectors{end}" for end in (".csv", ".md", ".png", "_slices.png")]
    found = [path.read_bytes() for path in report]
    with monkeypatch.context() as patch:
        for module, name in ((scoring, "_judge"), (costs, "_seconds")):
            patch.setattr(module, name, lambda *_: pytest.fail("it was scored before"))
        ablate([*words, "-o", str(tmp_path / "a")])
    assert found == [path.read_bytes() for path in report]
    # What was judged is not judged again, and more detectors join the same table.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a" / "counts").iterdir()}
    ablate([*words[:4], "pca", *words[-2:], "-o", str(tmp_path / "a")])
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "a" / "counts").iterdir()}
    assert after.items() >= before.items() and len(after) == len(before) + 2


def test_a_detector_that_does_not_exist_names_those_that_do(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["901", "--detectors", "oracle", "-device", "cpu"])
    assert "no detector 'oracle'; known: student, teacher, padim" in capsys.readouterr().err
