from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from sklearn.metrics import average_precision_score, roc_auc_score

from screener_nnu.case_score import CASE_PERCENTILE
from screener_nnu.commands._run import run
from screener_nnu.commands.evaluate import main, parse_methods
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.baselines import BASELINES, BaselineInput

SHAPE = (7, 9, 8)
SPACING = (2.5, 0.8, 1.1)
EDGES = np.linspace(-200, 300, 51)
COUNTS = np.arange(50) ** 2


def write(path: Path, array: np.ndarray, origin: tuple[float, float, float] = (5, -6, 7)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(origin)
    SimpleITK.WriteImage(image, str(path))


@dataclass
class Case:
    scores: np.ndarray
    teacher: np.ndarray
    body: np.ndarray
    mask: np.ndarray
    image: np.ndarray

    def counted(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counted = self.body | (self.mask > 0)
        return scores[counted], self.mask[counted] > 0

    def baseline(self, name: str) -> np.ndarray:
        return BASELINES[name](BaselineInput(self.image, self.body, SPACING, EDGES, COUNTS))


def make_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    body = np.zeros(SHAPE, dtype=bool)
    body[1:-1, 1:-2, 1:] = True
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[2:4, 3:5, 2:6] = 1
    mask[5, 6:8, 4:6] = 2
    scores = (rng.normal(size=SHAPE) + 1.3 * (mask > 0)).astype(np.float32)
    scores[~body] = -3
    teacher = np.round(scores + 0.3 * rng.normal(size=SHAPE)).astype(np.float32)
    image = (rng.normal(40, 60, SHAPE) + 30 * (mask > 0)).astype(np.int16)
    return Case(scores, teacher, body, mask, image)


@pytest.fixture
def cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Case]:
    made = {name: make_case(seed) for seed, name in enumerate(["anna", "bert", "healthy"])}
    made["healthy"].mask[:] = 0
    made["whole_body"] = make_case(3)
    for name, case in made.items():
        write_case(tmp_path, name, case)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    folder = tmp_path / "nnUNet_preprocessed" / "Dataset901_Trunk"
    folder.mkdir()
    histogram = {"hu_histogram": {"edges": EDGES.tolist(), "counts": COUNTS.tolist()}}
    (folder / "screener_fingerprint.json").write_text(json.dumps(histogram))
    return made


def write_case(root: Path, name: str, case: Case) -> None:
    write(root / "maps" / f"{name}.nii.gz", case.scores)
    write(root / "maps" / f"{name}_body.nii.gz", case.body.astype(np.uint8))
    write(root / "teacher" / f"{name}.nii.gz", case.teacher)
    write(root / "teacher" / f"{name}_body.nii.gz", case.body.astype(np.uint8))
    write(root / "masks" / f"{name}.nii.gz", case.mask)
    ending = "_0000" if name == "anna" else ""
    write(root / "images" / f"{name}{ending}.nii.gz", case.image)


def add_bad_cases(root: Path) -> None:
    names = ["nan", "no_mask", "no_map", "no_image", "shifted", "smaller"]
    names += ["infinite", "turned", "wider", "truncated", "no_body", "empty_body"]
    for seed, name in enumerate(names, start=10):
        write_case(root, name, make_case(seed))
    broken = make_case(10).scores
    broken[3, 3, 3] = np.nan
    write(root / "maps" / "nan.nii.gz", broken)
    (root / "masks" / "no_mask.nii.gz").unlink()
    (root / "maps" / "no_map.nii.gz").unlink()
    (root / "images" / "no_image.nii.gz").unlink()
    write(root / "masks" / "shifted.nii.gz", make_case(14).mask, origin=(5, -6, 7.2))
    write(root / "images" / "smaller.nii.gz", make_case(15).image[:-1])
    endless = make_case(16).image.astype(np.float32)
    endless[0, 0, 0] = np.inf
    write(root / "images" / "infinite.nii.gz", endless)
    turned = SimpleITK.ReadImage(str(root / "masks" / "turned.nii.gz"))
    turned.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(turned, str(root / "masks" / "turned.nii.gz"))
    wider = SimpleITK.ReadImage(str(root / "maps" / "wider_body.nii.gz"))
    wider.SetSpacing((1.1, 0.8, 2.6))
    SimpleITK.WriteImage(wider, str(root / "maps" / "wider_body.nii.gz"))
    truncated = root / "maps" / "truncated.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:-900])
    (root / "maps" / "no_body_body.nii.gz").unlink()
    write(root / "maps" / "empty_body_body.nii.gz", np.zeros(SHAPE, dtype=np.uint8))


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def base_arguments(root: Path) -> list[str]:
    return ["-i", str(root / "maps"), "-r", str(root / "masks"), "-np", "1"]


def check(row: dict, case_scores: list[tuple[np.ndarray, np.ndarray]]) -> None:
    scores, annotated = (np.concatenate(parts) for parts in zip(*case_scores, strict=True))
    assert int(row["voxels"]) == scores.size and int(row["annotated"]) == annotated.sum()
    assert float(row["auroc"]) == pytest.approx(roc_auc_score(annotated, scores), abs=1e-9)
    precision = average_precision_score(annotated, scores)
    assert float(row["average_precision"]) == pytest.approx(precision, abs=1e-9)
    found = scores > np.float32(row["threshold"])
    dice = 2 * (found & annotated).sum() / (found.sum() + annotated.sum())
    assert float(row["dice"]) == pytest.approx(dice, abs=1e-9)


def test_figures_of_maps_and_baselines_and_bad_cases_by_name(
    tmp_path: Path, cases: dict[str, Case], capsys: pytest.CaptureFixture[str]
) -> None:
    add_bad_cases(tmp_path)
    main([*base_arguments(tmp_path), "--images", str(tmp_path / "images"), "-d", "901"])
    out = tmp_path / "maps" / "evaluation"
    summary = json.loads((out / "summary.json").read_text())

    assert list(summary["methods"]) == ["screener", *BASELINES]
    assert summary["cases"] == ["anna", "bert", "healthy", "whole_body"]
    assert set(summary["notes"]) == {"healthy"}
    reasons = {
        "nan": "NaN",
        "no_mask": "no annotation",
        "no_map": "no anomaly map",
        "no_image": "no CT image",
        "shifted": "differ in origin",
        "smaller": "differ in size",
        "infinite": "infinite values",
        "turned": "differ in direction",
        "wider": "differ in spacing",
        "truncated": "damaged",
        "no_body": "no body mask",
        "empty_body": "body mask is empty",
    }
    assert set(summary["skipped"]) == set(reasons)
    for name, reason in reasons.items():
        assert reason in summary["skipped"][name]

    pooled = {row["method"]: row for row in read_rows(out / "pooled.csv")}
    per_case = {(row["case"], row["method"]): row for row in read_rows(out / "cases.csv")}
    assert len(per_case) == 4 * 8
    for method in summary["methods"]:
        data = [
            case.counted(case.scores if method == "screener" else case.baseline(method))
            for case in cases.values()
        ]
        check(summary["methods"][method], data)
        check(pooled[method], data)
        check(per_case["bert", method], data[1:2])
        assert per_case["healthy", method]["auroc"] == ""
        interval = summary["methods"][method]["intervals_95"]["auroc"]
        assert float(pooled[method]["auroc_low"]) == interval["low"] <= interval["high"]

    printed = capsys.readouterr().out
    assert f"{summary['methods']['screener']['auroc']:.3f} [" in printed
    assert "left out shifted" in printed and "note on healthy" in printed
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_several_maps_stand_in_one_table_without_images(
    tmp_path: Path,
    cases: dict[str, Case],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    caplog.set_level("INFO")
    maps = [f"student={tmp_path / 'maps'}", f"teacher={tmp_path / 'teacher'}"]
    arguments = ["-i", *maps, "-r", str(tmp_path / "masks"), "-o", str(out), "-np", "2"]
    main([*arguments, "--no_bootstrap", "--threshold", "0.75"])
    assert "baselines are left out" in caplog.text
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["methods"]) == ["student", "teacher"]
    assert summary["methods"]["student"]["intervals_95"] == {}
    assert summary["methods"]["student"]["threshold"] == 0.75
    check(summary["methods"]["student"], [c.counted(c.scores) for c in cases.values()])
    check(summary["methods"]["teacher"], [c.counted(c.teacher) for c in cases.values()])


def test_labels_restrict_the_annotation(tmp_path: Path, cases: dict[str, Case]) -> None:
    out = tmp_path / "out"
    main([*base_arguments(tmp_path), "-o", str(out), "--labels", "2", "--no_bootstrap"])
    for case in cases.values():
        case.mask[case.mask == 1] = 0
    summary = json.loads((out / "summary.json").read_text())
    check(summary["methods"]["screener"], [c.counted(c.scores) for c in cases.values()])


def test_two_sites_merge_and_the_paper_protocol_is_named(
    tmp_path: Path, cases: dict[str, Case], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, merged = tmp_path / "whole", tmp_path / "merged"
    options = ["--protocol", "paper", "--min_volume", "4"]
    main([*base_arguments(tmp_path), "-o", str(whole), *options])
    outs = []
    for site, names in (("north", ["anna", "healthy"]), ("south", ["bert", "whole_body"])):
        for name in names:
            write_case(tmp_path / site, name, cases[name])
        outs.append(str(tmp_path / site / "out"))
        bins = ["--bins", str(whole / "bins.npz"), "-o", outs[-1], "--no_bootstrap"]
        main([*base_arguments(tmp_path / site), *bins, *options])
    capsys.readouterr()
    main(["--merge", *outs, "-o", str(merged), "--protocol", "paper"])
    printed = capsys.readouterr().out
    for name in ("pooled.csv", "cases.csv"):
        assert (merged / name).read_text() == (whole / name).read_text()
    summary = json.loads((merged / "summary.json").read_text())
    assert summary["settings"]["merged"] == outs and summary["settings"]["protocol"] == "paper"
    data = [case.counted(case.scores) for case in cases.values()]
    # Fewer than a thousand voxels a scan and class are all drawn.
    scores, annotated = (np.concatenate(parts) for parts in zip(*data, strict=True))
    paper = summary["methods"]["screener"]["auroc_paper_protocol"]
    assert paper == pytest.approx(roc_auc_score(annotated, scores), abs=1e-9)
    assert "AUROC (paper protocol)" in printed and f"{paper:.3f} [" in printed


def test_lesion_and_case_figures(tmp_path: Path, cases: dict[str, Case]) -> None:
    out = tmp_path / "out"
    main([*base_arguments(tmp_path), "-o", str(out), "--no_bootstrap", "--min_volume", "4"])
    summary = json.loads((out / "summary.json").read_text())
    screener = summary["methods"]["screener"]
    assert screener["lesions"] == 2 * 3
    rows = {row["case"]: row for row in read_rows(out / "cases.csv")}
    highest = {n: np.percentile(c.scores[c.body], CASE_PERCENTILE) for n, c in cases.items()}
    for name, expected in highest.items():
        assert float(rows[name]["case_score"]) == pytest.approx(expected, abs=1e-6)
    ill = [bool(case.mask.any()) for case in cases.values()]
    expected = roc_auc_score(ill, list(highest.values()))
    assert screener["case_auroc"] == pytest.approx(expected)
    assert 0 < float(rows["anna"]["aupro_fpr30"]) <= 1 and rows["healthy"]["froc"] == ""
    assert set(summary["undefined"]) == {"dice_k5", "dice_k10"}
    assert "more than 5 annotated cases, there are 3" in summary["undefined"]["dice_k5"]
    assert "protocol" not in " ".join(screener)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "maps"], "-i and -r are required"),
        (["--merge", "one", "-i", "maps"], "leave out -i"),
        (["--merge", "one"], "--merge needs -o"),
        (["-i", "maps", "-r", "masks", "--min_volume", "0"], "above zero"),
    ],
)
def test_arguments_that_do_not_fit_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["-r", "nowhere"], "nowhere does not exist"),
        (["-d", "902"], "no dataset 902"),
        (["-d", "Dataset903_None"], "screener_plan_and_preprocess"),
        (["-i", "a=maps", "b"], "need names"),
        (["-i", "skin_depth=teacher"], "name of a baseline"),
        (["-i", "empty"], "no case can be evaluated"),
        (["-i", "a/b=maps"], "no name for a folder"),
        (["--bins", "nowhere.npz"], "nowhere.npz does not exist"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_1(
    tmp_path: Path,
    cases: dict[str, Case],
    change: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main([*base_arguments(tmp_path), *change])
    assert stopped.value.code == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("error: ") and message in errors[-1]


def test_run_turns_an_interruption_into_130() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run(interrupted)
    assert stopped.value.code == 130


def test_folder_names(tmp_path: Path) -> None:
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert parse_methods([str(odd)]) == {"screener": odd}
    assert parse_methods(["x=one", "y=two"]) == {"x": Path.cwd() / "one", "y": Path.cwd() / "two"}
    with pytest.raises(ScreenerError, match="twice"):
        parse_methods(["x=one", "x=two"])


def test_evaluation_does_not_import_torch() -> None:
    code = (
        "import sys, screener_nnu.evaluation.report\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
