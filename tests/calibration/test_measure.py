"""A calibration of scans whose scores are known, and of scans that are of no use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from screener_nnu.calibration.annotated import AnnotatedThresholds
from screener_nnu.calibration.measure import (
    annotation_edges,
    calibrate_on,
    measure_annotated,
    measure_scans,
)
from screener_nnu.calibration.record import SOURCES, Calibration
from screener_nnu.calibration.report import describe
from screener_nnu.calibration.scans import ScoredScan
from screener_nnu.calibration.store import read_calibration, save_calibration
from screener_nnu.case_score import CASE_PERCENTILE
from screener_nnu.errors import CaseError, ScreenerError

SHAPE = (12, 30, 30)


def scan(seed: int, spots: int = 4) -> ScoredScan:
    """Noise around 10 nats with bright spots of 3 x 3 x 3 voxels in the body."""
    rng = np.random.default_rng(seed)
    score = rng.normal(10, 2, SHAPE).astype(np.float32)
    body = np.zeros(SHAPE, dtype=bool)
    body[:, 4:26, 4:26] = True
    annotated = np.zeros(SHAPE, dtype=bool)
    for _ in range(spots):
        z, y, x = (int(rng.integers(5, n - 6)) for n in SHAPE)
        spot = (slice(z, z + 3), slice(y, y + 3), slice(x, x + 3))
        score[spot] += 15 + 5 * rng.random()
        annotated[spot] = True
    return ScoredScan(score, body, 0.05, annotated)


def source(*seeds: int) -> dict[str, Callable[[], ScoredScan]]:
    return {f"scan_{seed}": (lambda seed=seed: scan(seed)) for seed in seeds}  # type: ignore[misc]


def spoilt(change: Callable[[np.ndarray, np.ndarray], None]) -> Callable[[], ScoredScan]:
    def make() -> ScoredScan:
        made = scan(99)
        change(made.score, made.body)
        return made

    return make


def nothing_in_it(score: np.ndarray, body: np.ndarray) -> None:
    body[:] = False


def one_nan(score: np.ndarray, body: np.ndarray) -> None:
    score[5, 10, 10] = np.nan


def infinite(score: np.ndarray, body: np.ndarray) -> None:
    score[5, 10, 10] = np.inf


def all_the_same(score: np.ndarray, body: np.ndarray) -> None:
    score[:] = 3.0


def unreadable() -> ScoredScan:
    raise CaseError("broken", "the file is damaged")


def too_large() -> ScoredScan:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def odd() -> ScoredScan:
    raise ValueError("out of range")


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate_on(measure_scans(source(*range(9))), "0" * 16, SOURCES[0])


def test_case_scores_are_numpys_percentiles(calibration: Calibration) -> None:
    expected = sorted(np.percentile(s.score[s.body], CASE_PERCENTILE) for s in map(scan, range(9)))
    np.testing.assert_allclose(calibration.case_scores, expected, rtol=1e-6)
    other = scan(50)
    found = calibration.case_score(other.score[other.body])
    value = np.percentile(other.score[other.body], CASE_PERCENTILE)
    assert found.value == pytest.approx(value)
    assert found.percentile == pytest.approx(100 * np.mean(np.array(expected) < value))


def test_case_scores_at_the_ends(calibration: Calibration) -> None:
    quiet = calibration.case_score(np.linspace(-1, 1, 100))
    loud = calibration.case_score(np.linspace(100, 200, 100))
    assert (quiet.percentile, loud.percentile) == (0, 100)
    with pytest.raises(ScreenerError, match="without body voxels"):
        calibration.case_score(np.zeros(0))
    with pytest.raises(ScreenerError, match="NaN or infinite"):
        calibration.case_score(np.array([1.0, np.nan]))


def test_outside_the_body_nothing_counts(calibration: Calibration) -> None:
    def loud_outside(seed: int) -> Callable[[], ScoredScan]:
        made = scan(seed)
        made.score[~made.body] = 1000.0
        return lambda: made

    loud = {f"scan_{seed}": loud_outside(seed) for seed in range(9)}
    again = calibrate_on(measure_scans(loud), "0" * 16, SOURCES[0])
    assert again.to_dict() == calibration.to_dict()


@pytest.mark.parametrize(
    "broken, reason",
    [
        (unreadable, "the file is damaged"),
        (too_large, "memory does not suffice"),
        (odd, "ValueError: out of range"),
        (spoilt(nothing_in_it), "no body"),
        (spoilt(one_nan), "NaN or infinite"),
        (spoilt(infinite), "NaN or infinite"),
        (spoilt(all_the_same), "the same score"),
    ],
)
def test_scans_of_no_use_are_left_out(
    broken: Callable[[], ScoredScan], reason: str, calibration: Calibration
) -> None:
    measured = measure_scans({"broken": broken, **source(*range(9))})
    assert list(measured.left_out) == ["broken"] and reason in measured.left_out["broken"]
    assert calibrate_on(measured, "0" * 16, SOURCES[0]).to_dict() == calibration.to_dict()
    with pytest.raises(ScreenerError, match=f"no scan can be used.*{reason}"):
        measure_scans({"broken": broken})


def test_no_scans_at_all() -> None:
    with pytest.raises(ScreenerError, match="no scan can be used"):
        measure_scans({})


def test_one_scan_is_enough_for_percentiles() -> None:
    made = calibrate_on(measure_scans(source(1)), "0" * 16, SOURCES[0])
    inside = scan(1).score[scan(1).body]
    assert made.parse_threshold("p99") == pytest.approx(np.percentile(inside, 99), abs=0.1)
    assert made.case_score(inside).percentile == 0
    with pytest.raises(ScreenerError, match="1 held-out"):
        made.parse_threshold("fp0.5")


def test_annotated_scans_give_thresholds(calibration: Calibration) -> None:
    found = measure_annotated(source(20, 21, 22), calibration.percentiles)
    assert found.cases == 3 and found.dice > 0.95
    made = calibration.with_annotated(found)
    assert 16 < made.parse_threshold("dice") < 26
    scans = [scan(seed) for seed in (20, 21, 22)]
    recall = np.mean(
        [
            (s.score[s.annotated] > made.parse_threshold("recall0.9")).sum() / s.annotated.sum()
            for s in scans
        ]
    )
    assert 0.9 <= recall < 0.93
    with pytest.raises(ScreenerError, match="kept for a recall of 0.5, 0.6"):
        made.parse_threshold("recall0.33")


def partly_outside(share: float) -> Callable[[], ScoredScan]:
    """A scan with a share of its annotation outside of the body, where the score is the lowest."""
    made = scan(30)
    outside = np.flatnonzero(~made.body)[: int(share / (1 - share) * made.annotated.sum())]
    made.score[~made.body] = -50.0
    made.annotated[:] &= made.body
    made.annotated.reshape(-1)[outside] = True
    return lambda: made


def test_annotation_partly_outside_of_the_body(
    calibration: Calibration, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = measure_annotated({"ill": partly_outside(0.15)}, calibration.percentiles)
    assert list(found.recall_thresholds) == [0.5, 0.6, 0.7, 0.8]
    assert "ill: 1" in caplog.text and "outside of the body" in caplog.text
    made = calibration.with_annotated(found)
    save_calibration(made, tmp_path / "calibration.json")
    again = read_calibration(tmp_path / "calibration.json")
    assert again.parse_threshold("recall0.8") == made.parse_threshold("recall0.8") > 10
    said = "\n".join(describe(again))
    assert "no threshold for recall0.9, recall0.95" in said and "inf" not in said
    with pytest.raises(ScreenerError, match="kept for a recall of 0.5, 0.6, 0.7, 0.8"):
        again.parse_threshold("recall0.9")


def test_no_recall_at_all_is_explained(calibration: Calibration) -> None:
    found = measure_annotated({"ill": partly_outside(0.6)}, calibration.percentiles)
    made = calibration.with_annotated(found)
    assert found.recall_thresholds == {} and made.parse_threshold("dice") > 10
    assert "no threshold for recall0.5" in "\n".join(describe(made))
    with pytest.raises(ScreenerError, match="'recall0.5' is not kept"):
        made.parse_threshold("recall0.5")


def test_what_reading_would_refuse_is_not_written(calibration: Calibration, tmp_path: Any) -> None:
    path = tmp_path / "calibration.json"
    save_calibration(calibration, path)
    before = path.read_bytes()
    spoilt_one = AnnotatedThresholds(1, 3.0, 0.5, None, {0.5: -np.inf})
    with pytest.raises(ScreenerError, match=f"not written, {path} stays"):
        save_calibration(calibration.with_annotated(spoilt_one), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["calibration.json"]


def test_bins_of_annotated_cases_reach_beyond_held_out_scores(calibration: Calibration) -> None:
    edges = annotation_edges(calibration.percentiles)
    assert (np.diff(edges) > 0).all() and edges[0] < -1e30
    assert edges[-1] > 2 * calibration.score_at(100)


@pytest.mark.parametrize(
    "text, expected", [("12.5", 12.5), ("-3", -3.0), ("1e2", 100.0), (".5", 0.5)]
)
def test_nats_are_taken_as_they_are(text: str, expected: float, calibration: Calibration) -> None:
    assert calibration.parse_threshold(text) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is no threshold: give a number of nats"),
        ("nan", "is no threshold"),
        ("inf", "is no threshold"),
        ("p", "is no threshold"),
        ("fp-1", "is no threshold"),
        ("P99", "is no threshold"),
        ("p101", "between 0 and 100"),
        ("fp0.01", "9 held-out scan.*0.12 or more"),
        ("fp500", "ask for fewer"),
        ("dice", "needs annotated cases"),
        ("recall0.8", "needs annotated cases"),
    ],
)
def test_other_texts_are_explained(text: str, message: str, calibration: Calibration) -> None:
    with pytest.raises(ScreenerError, match=message):
        calibration.parse_threshold(text)


def test_percentiles_and_false_positives_by_name(calibration: Calibration) -> None:
    pooled = np.concatenate([s.score[s.body] for s in map(scan, range(9))])
    assert calibration.parse_threshold("p99") == pytest.approx(np.percentile(pooled, 99), abs=0.1)
    by_name = calibration.parse_threshold("fp2", 1.0)
    assert by_name == calibration.false_positives.threshold_for(2.0, 1.0).threshold
    assert float(calibration.percentile(np.array(by_name))) > 98


def test_a_file_keeps_everything(calibration: Calibration, tmp_path: Any) -> None:
    annotated = measure_annotated(source(20, 21), calibration.percentiles)
    whole = calibration.with_annotated(annotated)
    save_calibration(whole, tmp_path / "calibration.json")
    again = read_calibration(tmp_path / "calibration.json")
    assert again.to_dict() == whole.to_dict()
    for text in ("p99.9", "fp1", "fp5", "dice", "recall0.8"):
        assert again.parse_threshold(text) == pytest.approx(whole.parse_threshold(text), rel=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["calibration.json"]


def test_fingerprint_is_that_of_the_contents(calibration: Calibration, tmp_path: Any) -> None:
    text = json.dumps(calibration.to_dict(), sort_keys=True, separators=(",", ":"))
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = tmp_path / "calibration.json"
    whole = calibration.with_annotated(measure_annotated(source(20), calibration.percentiles))
    save_calibration(whole, path)
    assert calibration.fingerprint == expected
    assert read_calibration(path).fingerprint == whole.fingerprint != expected
    shuffled = dict(reversed(json.loads(path.read_text()).items()))
    assert Calibration.from_dict(shuffled).fingerprint == whole.fingerprint
    other = calibrate_on(measure_scans(source(*range(8))), calibration.model, SOURCES[0])
    assert other.model == calibration.model and other.fingerprint != expected


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"source": "/home/somebody/scans"},
        {"case_scores": [3.0, 1.0] + [4.0] * 7},
        {"case_scores": [1.0]},
        {"case_scores": [float("nan")] * 9},
        {"case_percentile": 0.0},
        {"model": 5},
        {"percentiles": None},
        {"false_positives": {"thresholds": [1.0], "volumes_ml": [0.1], "counts": [[[3]]] * 9}},
        {"more": 1},
    ],
)
def test_damaged_files_are_refused(
    change: dict[str, Any], calibration: Calibration, tmp_path: Any
) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({**calibration.to_dict(), **change}))
    with pytest.raises(ScreenerError, match=str(path)):
        read_calibration(path)
    path.write_text("{")
    with pytest.raises(ScreenerError, match="cannot be read"):
        read_calibration(path)
