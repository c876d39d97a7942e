"""Checked scans: their components are those of a count of its own, and nothing large is kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from screener_nnu.calibration import check, components
from screener_nnu.calibration.check import check_scans
from screener_nnu.calibration.measure import calibrate_on, measure_scans
from screener_nnu.calibration.record import SOURCES, Calibration
from screener_nnu.calibration.report import ASKED, compare
from screener_nnu.calibration.scans import ScoredScan
from screener_nnu.errors import CaseError, ScreenerError

SHAPE = (10, 24, 24)
SCANS = 6


def scan(seed: int) -> ScoredScan:
    """Smooth noise around 10 nats in a body that leaves a margin."""
    rng = np.random.default_rng(seed)
    score = (10 + 8 * ndimage.gaussian_filter(rng.normal(0, 1, SHAPE), 0.7)).astype(np.float32)
    body = np.zeros(SHAPE, dtype=bool)
    body[:, 3:21, 3:21] = True
    return ScoredScan(score, body, 0.05)


def source(*seeds: int) -> dict[str, Callable[[], ScoredScan]]:
    return {f"scan_{seed}": (lambda seed=seed: scan(seed)) for seed in seeds}  # type: ignore[misc]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate_on(measure_scans(source(*range(SCANS))), "0" * 16, SOURCES[0])


def counted(made: ScoredScan, threshold: float, volume_ml: float) -> int:
    """Components by another implementation."""
    labels, _ = ndimage.label((made.score > threshold) & made.body, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    return int((sizes * made.voxel_ml >= volume_ml - 1e-9).sum())


def test_counts_are_those_of_another_implementation(calibration: Calibration) -> None:
    checked = check_scans(source(20, 21, 22), calibration.false_positives)
    assert checked.scans == 3
    for asked in (0.5, 1.0, 2.0):
        found = calibration.false_positives.threshold_for(asked)
        expected = [counted(scan(s), found.threshold, found.volume_ml) for s in (20, 21, 22)]
        assert checked.above(found.threshold, found.volume_ml).tolist() == expected


def test_on_its_own_scans_the_obtained_figure_is_that_of_the_calibration(
    calibration: Calibration,
) -> None:
    checked = check_scans(source(*range(SCANS)), calibration.false_positives)
    found = calibration.false_positives.threshold_for(2.0)
    assert checked.above(found.threshold, found.volume_ml).mean() == found.held_out
    assert sorted(checked.case_scores) == list(calibration.case_scores)
    rows = list(compare(calibration, checked))
    assert rows[0].startswith(f"{SCANS} other scans") and len(rows) == 4 + len(ASKED)


def test_nothing_large_is_kept(calibration: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[weakref.ref[components.Tail]] = []

    def watched(*arguments: Any) -> components.Tail:
        tail = components.tail_of(*arguments)
        kept.append(weakref.ref(tail))
        return tail

    monkeypatch.setattr(check, "tail_of", watched)
    checked = check_scans(source(20, 21, 22), calibration.false_positives)
    gc.collect()
    assert [reference() for reference in kept] == [None] * 3
    false_positives = calibration.false_positives
    size = 4 * len(false_positives.volumes_ml) * false_positives.thresholds.size
    assert [counts.nbytes for counts in checked.counts] == [size] * 3


def test_scans_of_no_use_are_left_out(
    calibration: Calibration, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> ScoredScan:
        raise CaseError("broken", "the file is damaged")

    checked = check_scans({"broken": broken, **source(20)}, calibration.false_positives)
    assert checked.scans == len(checked.case_scores) == 1 and "the file is damaged" in caplog.text
    with pytest.raises(ScreenerError, match="no scan can be used"):
        check_scans({"broken": broken}, calibration.false_positives)


def test_a_scan_far_above_the_others_is_not_counted_low(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more voxels lie above than a tail may hold there is no count, not a wrong one."""
    monkeypatch.setattr(components, "_TAIL_VOXELS", 50)
    checked = check_scans(source(20), calibration.false_positives)
    lowest, highest = calibration.false_positives.thresholds[[0, -1]]
    assert checked.above(float(highest), 0.1).tolist() == [counted(scan(20), float(highest), 0.1)]
    with pytest.raises(ScreenerError, match="were not counted"):
        checked.above(float(lowest), 0.1)
