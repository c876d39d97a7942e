"""Figures of counted scores against scikit-learn, and their intervals against a plain bootstrap."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from screener_nnu.ablation.counting import CHANGE_CLASSES, Bins, ScanVoxels, count_scan
from screener_nnu.ablation.figures import FURTHER, change_draws, draws_of, table_row
from screener_nnu.ablation.judged import Judged
from screener_nnu.ablation.report import write_ablation
from screener_nnu.ablation.slices_figure import shown_slice
from screener_nnu.synthetic.anomalies import KINDS

LEVELS = 40
SCANS = 6


def judged(seed: int) -> tuple[Judged, dict[str, list[tuple[np.ndarray, np.ndarray]]]]:
    """Whole-numbered scores, so that every bin is one score; and the voxels themselves."""
    rng = np.random.default_rng(seed)
    counts, voxels = {}, {}
    for number, kind in enumerate(KINDS):
        scans = []
        for scan in range(SCANS):
            scores = rng.integers(0, LEVELS, 300)
            labels = rng.random(300) < (0.1 + 0.5 * scores / LEVELS * (number + scan) / 8)
            scans.append((scores, labels))
        voxels[kind] = scans
        counts[kind] = np.stack(
            [
                [np.bincount(s[m], minlength=LEVELS), np.bincount(s[~m], minlength=LEVELS)]
                for s, m in scans
            ]
        )
    return Judged(tuple("abcdef"), counts), voxels


def pooled_auroc(scans: list[tuple[np.ndarray, np.ndarray]], chosen: np.ndarray) -> float:
    scores, labels = (np.concatenate([scans[i][k] for i in chosen]) for k in (0, 1))
    return float(roc_auc_score(labels, scores))


def test_figures_are_pooled_over_voxels_and_averaged_over_kinds() -> None:
    run, voxels = judged(0)
    row = table_row("method", [run], [3.0])
    expected = [pooled_auroc(voxels[kind], np.arange(SCANS)) for kind in KINDS]
    found = [row.auroc[kind].value for kind in KINDS]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert row.auroc["mean"].value == pytest.approx(np.mean(expected))
    assert row.seeds == (row.auroc["mean"].value,) and row.nll == 3.0


def test_intervals_draw_the_same_scans_for_every_kind() -> None:
    run, voxels = judged(1)
    row = table_row("method", [run])
    rng = np.random.default_rng(7)
    means = []
    for _ in range(600):
        chosen = rng.integers(0, SCANS, SCANS)
        means.append(np.mean([pooled_auroc(voxels[kind], chosen) for kind in KINDS]))
    low, high = np.percentile(means, [2.5, 97.5])
    width = high - low
    assert row.auroc["mean"].low == pytest.approx(low, abs=0.15 * width)
    assert row.auroc["mean"].high == pytest.approx(high, abs=0.15 * width)


def test_seeds_are_averaged_and_kept_apart() -> None:
    first, second = judged(2)[0], judged(3)[0]
    one, two, both = (table_row("m", runs) for runs in ([first], [second], [first, second]))
    for name in (*KINDS, "mean"):
        middle = (one.auroc[name].value + two.auroc[name].value) / 2
        assert both.auroc[name].value == pytest.approx(middle)
    assert both.seeds == (*one.seeds, *two.seeds)


def test_report_holds_every_row(tmp_path: Path) -> None:
    rows = [table_row(name, [judged(seed)[0]], [1.0]) for seed, name in enumerate("xy")]
    baseline = table_row("hu_rarity", [judged(9)[0]])
    table = write_ablation(rows, [baseline], tmp_path, {"plans": "P"})
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert "across descriptors it means nothing" in table
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| x", "| y", "| hu_rarity"]
    best = max(rows, key=lambda row: row.auroc["mean"].value)
    marked = [line for line in lines[2:4] if f"**{best.auroc['mean'].value:.3f}"[:2] in line]
    assert marked and (tmp_path / "ablation.md").read_text() == table
    stored = json.loads((tmp_path / "ablation.json").read_text())
    assert stored["rows"][0]["auroc"]["mean"]["value"] == rows[0].auroc["mean"].value
    assert len((tmp_path / "ablation.csv").read_text().splitlines()) == 4
    assert (tmp_path / "ablation.png").read_bytes()[:4] == b"\x89PNG"


def test_counts_survive_their_file(tmp_path: Path) -> None:
    made, _ = judged(4)
    case_scores = {"case_score": np.arange(12.0).reshape(2, 6)}
    run = Judged(made.cases, made.counts, case_scores)
    (tmp_path / "x.npz").write_bytes(run.to_bytes())
    again = Judged.from_file(tmp_path / "x.npz")
    assert again.cases == run.cases and list(again.case_scores) == ["case_score"]
    np.testing.assert_array_equal(again.case_scores["case_score"], case_scores["case_score"])
    for kind in KINDS:
        np.testing.assert_array_equal(again.counts[kind], run.counts[kind])


def test_one_scan_gives_no_interval(tmp_path: Path) -> None:
    run, _ = judged(0)
    alone = Judged(("a",), {kind: counts[:1] for kind, counts in run.counts.items()})
    row = table_row("method", [alone])
    assert (row.auroc["mean"].low, row.auroc["mean"].high) == (None, None)
    table = write_ablation([row], [], tmp_path, {})
    assert f"**{row.auroc['mean'].value:.3f}**".replace("0.", ".") + " |" in table
    written = json.loads((tmp_path / "ablation.json").read_text())
    assert written["rows"][0]["auroc"]["mean"]["low"] is None
    assert ",," in (tmp_path / "ablation.csv").read_text()


def change_of(mask: np.ndarray) -> np.ndarray:
    """How much the voxels of an anomaly have changed: of the first, less than 20 and 160 HU."""
    image = np.zeros(mask.shape, np.float32)
    image[1:4] = np.linspace(0, 159, image[1:4].size).reshape(image[1:4].shape)
    image[6:9] = 500.0
    return image[mask]


def counted_scans(seed: int) -> tuple[Judged, list[tuple[np.ndarray, np.ndarray]]]:
    """Scores (10, 12, 12) of whole numbers with two anomalies in each scan, counted as for real."""
    rng = np.random.default_rng(seed)
    settings = SimpleNamespace(modality="CT", spacing=(5.0, 5.0, 5.0))
    scans = []
    for _ in range(4):
        mask = np.zeros((10, 12, 12), bool)
        mask[1:4, 2:5, 2:4] = mask[6:9, 6:11, 7:10] = True
        # Few voxels are high, and the second anomaly of some scans is higher than all others.
        scores = np.floor(900 * rng.random(mask.shape) ** 30)
        scores += 9 * mask * rng.integers(0, 3, mask.shape)
        scores[6:9, 6:11, 7:10] += rng.integers(500, 1200)
        scans.append((scores.astype(np.float32), mask))
    inside = np.ones((10, 12, 12), bool)
    bins = Bins.of([(scores[inside], mask[inside]) for scores, mask in scans])
    counts = [
        count_scan(
            scores[inside],
            ScanVoxels.of(mask, inside, change_of(mask), settings),  # type: ignore[arg-type]
            bins,
        )
        for scores, mask in scans
    ]
    kinds = {"x": np.stack([one.voxels for one in counts])}
    overlaps = {"x": np.stack([one.overlap for one in counts])}
    changes = {"x": np.stack([one.changes for one in counts])}
    froc = {"x": tuple(c.froc for c in counts)}
    return Judged(tuple("abcd"), kinds, {}, overlaps, froc, changes), scans


def test_auroc_by_change_is_that_of_scikit_learn(tmp_path: Path) -> None:
    """Voxels of a class of change against all that are not anomalous."""
    run, scans = counted_scans(0)
    (tmp_path / "x.npz").write_bytes(run.to_bytes())
    found, shares = change_draws(Judged.from_file(tmp_path / "x.npz"))
    assert set(found) == set(CHANGE_CLASSES) and sum(shares.values()) == pytest.approx(1)
    normal = np.concatenate([scores[~mask] for scores, mask in scans])
    ill = np.concatenate([scores[mask] for scores, mask in scans])
    classes = np.digitize(np.concatenate([change_of(mask) for _, mask in scans]), [20, 80, 160])
    for number, name in enumerate(CHANGE_CLASSES):
        of_class = ill[classes == number]
        labels = np.repeat([1, 0], [of_class.size, normal.size])
        expected = roc_auc_score(labels, np.concatenate([of_class, normal]))
        assert found[name][0] == pytest.approx(expected, abs=1e-12)
        assert shares[name] == pytest.approx(of_class.size / ill.size)
    # Two kinds count by their voxels.
    counts = {"x": run.counts["x"], "y": run.counts["x"]}
    doubled = {"x": run.changes["x"], "y": 3 * run.changes["x"]}
    doubled["y"][:, 0] = 0
    twice, _ = change_draws(Judged(run.cases, counts, changes=doubled))
    assert all(twice[name][0] == pytest.approx(found[name][0]) for name in CHANGE_CLASSES)
    assert change_draws(judged(0)[0]) == ({}, {})


def test_further_figures_are_those_of_scikit_learn_and_of_loops(tmp_path: Path) -> None:
    run, scans = counted_scans(0)
    (tmp_path / "x.npz").write_bytes(run.to_bytes())
    run = Judged.from_file(tmp_path / "x.npz")
    scores, labels = (np.concatenate([scan[k].ravel() for scan in scans]) for k in (0, 1))
    found = {name: float(of["mean"][0]) for name, of in draws_of(run, list(FURTHER)).items()}
    assert set(found) == set(FURTHER)
    expected = average_precision_score(labels, scores)
    assert found["average_precision"] == pytest.approx(expected, abs=1e-12)
    levels = np.unique(scores)
    dice = [
        2 * (labels & (scores >= t)).sum() / (labels.sum() + (scores >= t).sum()) for t in levels
    ]
    assert found["best_dice"] == pytest.approx(max(dice), abs=1e-12)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert found["auroc_fpr30"] == pytest.approx(area_below(fpr, tpr), abs=1e-12)
    # Overlap of each anomaly by itself, of the same thresholds from the highest down.
    overlap = [0.0]
    for threshold in levels[::-1]:
        shares = []
        for of_scan, mask in scans:
            parts, number = ndimage.label(mask, np.ones((3, 3, 3)))
            shares += [(of_scan[parts == k + 1] >= threshold).mean() for k in range(number)]
        overlap.append(float(np.mean(shares)))
    rates = [0.0, *((scores[~labels] >= t).mean() for t in levels[::-1])]
    assert found["aupro_fpr30"] == pytest.approx(
        area_below(np.array(rates), np.array(overlap)), abs=1e-12
    )
    assert 0 < found["sensitivity_fp1"] == found_at_one(scans)


def area_below(fpr: np.ndarray, tpr: np.ndarray, most: float = 0.3) -> float:
    below = fpr < most
    x, y = np.append(fpr[below], most), np.append(tpr[below], np.interp(most, fpr, tpr))
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / most)


def found_at_one(scans: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Highest share of anomalies found with one false positive a scan, by labelling anew."""
    inside = np.ones((10, 12, 12), bool)
    thresholds = Bins.of([(s[inside], m[inside]) for s, m in scans]).thresholds
    best = 0.0
    for threshold in thresholds:
        found = wrong = lesions = 0
        for scores, mask in scans:
            parts, number = ndimage.label(scores >= threshold, np.ones((3, 3, 3)))
            anomalies, count = ndimage.label(mask, np.ones((3, 3, 3)))
            lesions += count
            hit = set()
            for k in range(1, number + 1):
                here = parts == k
                # 0.1 ml are one voxel of 5 mm.
                if (mask & here).sum() >= 0.1 * here.sum():
                    hit |= set(anomalies[here & mask].tolist())
                else:
                    wrong += 1
            found += len(hit)
        if wrong / len(scans) <= 1:
            best = max(best, found / lesions)
    return best


def test_slice_shows_how_few_voxels_score_higher(tmp_path: Path) -> None:
    """Of the scan's voxels that count, on the slice with most anomalous ones; kept with counts."""
    rng = np.random.default_rng(2)
    mask, counted = np.zeros((2, 4, 5, 6), bool)
    mask[1, :2], mask[2, 1:] = rng.random((2, 6)) < 0.4, True
    counted[:] = rng.random(counted.shape) < 0.7
    counted |= mask
    scores = rng.integers(0, 20, counted.sum()).astype(np.float32)
    scan = ScanVoxels(counted, mask[counted], None, 1, np.zeros(0))  # type: ignore[arg-type]
    shown = shown_slice(scores, scan)
    whole = np.full(counted.shape, np.nan)
    whole[counted] = scores
    expected = np.full((5, 6), np.nan)
    for place in np.argwhere(counted[2]):
        expected[tuple(place)] = -np.log10((scores >= whole[2][tuple(place)]).mean())
    np.testing.assert_allclose(shown, expected, rtol=1e-5, atol=1e-7)
    path = tmp_path / "judged.npz"
    path.write_bytes(Judged(("a",), {}, slices={"pasted": shown}).to_bytes())
    np.testing.assert_array_equal(Judged.from_file(path).slices["pasted"], shown)
