from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.bins import BINS_FILE, Bins
from screener_nnu.evaluation.evaluate import Evaluation, evaluate_maps
from screener_nnu.evaluation.merging import merge_evaluations
from screener_nnu.evaluation.records import CaseRecord, record_path
from screener_nnu.evaluation.report import write_report

SHAPE = (12, 14, 11)
SPACING = (2.0, 1.5, 1.0)


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    SimpleITK.WriteImage(image, str(path))


def write_case(root: Path, case: str, seed: int, ill: bool = True) -> None:
    rng = np.random.default_rng(seed)
    body = np.zeros(SHAPE, dtype=np.uint8)
    body[1:-1, 1:-1, 1:-1] = 1
    mask = ndimage.binary_dilation(rng.random(SHAPE) < 0.004, iterations=2) & ill
    scores = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.8) + rng.uniform(0.2, 0.8) * mask
    write(root / "maps" / f"{case}.nii.gz", scores.astype(np.float32))
    write(root / "maps" / f"{case}_body.nii.gz", body)
    write(root / "masks" / f"{case}.nii.gz", mask.astype(np.uint8))
    write(root / "images" / f"{case}.nii.gz", rng.normal(40, 50, SHAPE).astype(np.int16))


def evaluate(root: Path, out: Path, **changes: object) -> Evaluation:
    methods = {"screener": root / "maps"}
    given = {"folder": out, "protocol": "paper", "bootstrap": False} | changes
    evaluation = evaluate_maps(methods, root / "masks", **given)
    write_report(evaluation, out)
    return evaluation


def make_sites(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Seven cases together, and the same on two sites."""
    both, one, other = tmp_path / "both", tmp_path / "one", tmp_path / "other"
    for number, case in enumerate("abcdefg"):
        for root in (both, one if number < 4 else other):
            write_case(root, case, number, ill=case not in "bf")
    return both, one, other


def read_figures(out: Path) -> tuple[dict, str, str]:
    summary = json.loads((out / "summary.json").read_text())
    summary.pop("settings")
    return summary, (out / "cases.csv").read_text(), (out / "pooled.csv").read_text()


def test_merging_two_sites_equals_evaluating_all_at_once(tmp_path: Path) -> None:
    both, one, other = make_sites(tmp_path)
    outs = tmp_path / "out_both", tmp_path / "out_one", tmp_path / "out_other"
    evaluate(both, outs[0], images=both / "images", bootstrap=True)
    for root, out in zip((one, other), outs[1:], strict=True):
        evaluate(root, out, bins=outs[0] / BINS_FILE, images=root / "images")
    merged = tmp_path / "merged"
    write_report(merge_evaluations(outs[1:], merged, protocol="paper"), merged)
    assert read_figures(merged) == read_figures(outs[0])
    assert read_figures(merged) != read_figures(outs[1])
    again = tmp_path / "again"
    write_report(merge_evaluations([merged], again, bootstrap=False), again)
    assert read_figures(again)[0]["cases"] == list("abcdefg")
    intervals = json.loads((merged / "summary.json").read_text())["methods"]["screener"]
    figures = ["auroc", "aupro_fpr30", "froc", "case_auroc", "dice_k1"]
    for name in [*figures, "auroc_paper_protocol"]:
        interval = intervals["intervals_95"][name]
        assert interval["low"] <= intervals[name] <= interval["high"], name
        assert interval["low"] < interval["high"] or intervals[name] == 1, name


def states(out: Path) -> dict[str, int]:
    paths = sorted((out / "histograms").rglob("*.npz"))
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in paths}


def test_a_stopped_evaluation_goes_on_and_counts_nothing_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    for number, case in enumerate("abc"):
        write_case(root, case, number)
    save, saved = CaseRecord.save, []

    def save_and_stop(record: CaseRecord, path: Path, signature: str) -> None:
        save(record, path, signature)
        saved.append(path)
        if len(saved) == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CaseRecord, "save", save_and_stop)
        evaluate(root, out, images=root / "images")
    before = states(out)
    assert len(before) == 8 and not (out / "summary.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr("screener_nnu.evaluation.bins._sample_case", None)
        evaluate(root, out, images=root / "images")
    after = states(out)
    assert len(after) == 3 * 6 and before.items() <= after.items()
    uninterrupted = tmp_path / "uninterrupted"
    evaluate(root, uninterrupted, images=root / "images")
    assert read_figures(out) == read_figures(uninterrupted)

    caplog.set_level("INFO")
    evaluate(root, out, images=root / "images", protocol="full", bootstrap=True)
    assert states(out) == after and "3 of 3 cases were counted before" in caplog.text


def test_what_changed_is_counted_again(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    for number, case in enumerate("abc"):
        write_case(root, case, number)
    first = evaluate(root, out)
    bins = tmp_path / BINS_FILE
    shutil.copy(out / BINS_FILE, bins)
    before = states(out)
    write_case(root, "b", 9)
    second = evaluate(root, out, bins=bins)
    changed = {name for name, time in states(out).items() if before[name] != time}
    assert changed == {name for name in before if name.endswith("b.npz")}
    key = "auroc"
    assert second.methods["screener"].cases["b"][key] != first.methods["screener"].cases["b"][key]
    for figure in (key, "aupro_fpr30", "froc", "case_score", "auroc_paper_protocol"):
        before_and_after = [r.methods["screener"].cases["a"][figure] for r in (first, second)]
        assert before_and_after[0] == before_and_after[1], figure
    before = states(out)
    evaluate(root, out, bins=bins, min_volume_mm3=5.0)
    assert all(states(out)[name] != time for name, time in before.items())


def test_a_damaged_record_is_counted_again(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    for number, case in enumerate("ab"):
        write_case(root, case, number)
    evaluate(root, out)
    expected = read_figures(out)
    path = record_path(out, "screener", "a")
    path.write_bytes(path.read_bytes()[:300])
    evaluate(root, out)
    assert read_figures(out) == expected
    path.write_bytes(b"")
    with pytest.raises(ScreenerError, match="a.npz is missing or of other bins"):
        merge_evaluations([out], tmp_path / "merged")


def test_what_cannot_be_merged_is_said(tmp_path: Path) -> None:
    _, one, other = make_sites(tmp_path)
    out, twin = tmp_path / "out", tmp_path / "twin"
    evaluate(one, out)
    with pytest.raises(ScreenerError, match="a stands in .*out and in .*out"):
        merge_evaluations([out, out], tmp_path / "merged")
    evaluate(other, twin)
    with pytest.raises(ScreenerError, match=f"other bins of screener .* --bins .*{BINS_FILE}"):
        merge_evaluations([out, twin], tmp_path / "merged")
    evaluate(other, twin, bins=out, min_volume_mm3=3.0)
    with pytest.raises(ScreenerError, match="differ in min_volume_mm3: 100.0 and 3.0"):
        merge_evaluations([out, twin], tmp_path / "merged")
    evaluate(other, twin, images=other / "images")
    with pytest.raises(ScreenerError, match="evaluate the same methods in both"):
        merge_evaluations([out, twin], tmp_path / "merged")
    (out / "summary.json").unlink()
    with pytest.raises(ScreenerError, match="to its end"):
        merge_evaluations([out], tmp_path / "merged")
    with pytest.raises(ScreenerError, match="nowhere.* does not exist"):
        merge_evaluations([tmp_path / "nowhere"], tmp_path / "merged")


def test_unfit_bins_are_refused_or_noted(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    write_case(root, "a", 0)
    evaluate(root, out)
    with pytest.raises(ScreenerError, match="no bins of hu_deviation"):
        evaluate(root, tmp_path / "more", images=root / "images", bins=out)
    bad = tmp_path / "bad.npz"
    bad.write_bytes((out / BINS_FILE).read_bytes()[:200])
    with pytest.raises(ScreenerError, match="damaged"):
        evaluate(root, tmp_path / "more", bins=bad)
    path = root / "maps" / "a.nii.gz"
    write(path, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))) + np.float32(1))
    notes = evaluate(root, tmp_path / "more", bins=out).notes
    assert "outside of the bins" in notes["a"]
    assert Bins.load(tmp_path / "more").methods["screener"].digest == (
        Bins.load(out).methods["screener"].digest
    )


def test_a_bad_case_is_left_out_also_with_given_bins(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    for number, case in enumerate("ab"):
        write_case(root, case, number)
    evaluate(root, out)
    write(root / "masks" / "b.nii.gz", np.zeros((3, 3, 3), dtype=np.uint8))
    result = evaluate(root, tmp_path / "again", bins=out)
    assert list(result.methods["screener"].cases) == ["a"]
    assert "differ in size" in result.skipped["b"]


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden"])
def test_method_names_must_be_folder_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScreenerError, match="no name for a folder"):
        evaluate_maps({name: tmp_path}, tmp_path)
    with pytest.raises(ScreenerError, match="no protocol"):
        evaluate_maps({"a": tmp_path}, tmp_path, protocol="papers")
