"""Measures a calibration on scored scans, one after the other."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from screener_nnu.calibration.annotated import AnnotatedThresholds, choose_thresholds
from screener_nnu.calibration.components import Tail, count_components, shared_thresholds, tail_of
from screener_nnu.calibration.false_positives import VOLUMES_ML, FalsePositives
from screener_nnu.calibration.percentiles import PercentileMap, ScoreHistogram
from screener_nnu.calibration.record import Calibration
from screener_nnu.calibration.scans import ScanSource, ScoredScan
from screener_nnu.case_score import CASE_PERCENTILE, case_score
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.histograms import BinIndex, CaseHistogram
from screener_nnu.inference.pipeline import attempt

logger = logging.getLogger(__name__)

# Bins for annotated cases: as fine as the percentiles, and on as far above them.
_BINS = 4096
# Masks drawn by hand reach over the skin a little; more than this share deserves a look.
_OUTSIDE = 0.05


@dataclass
class Measured:
    """What is kept of the scans: at most 48 MB each, however large they are.

    Attributes:
        reach: score (nats) down to which components are to be counted in every scan.
        histogram: of the voxels of all bodies.
        case_scores: nats, one a scan.
        tails: highest voxels of each scan.
        left_out: reason by name.
    """

    reach: float = math.inf
    histogram: ScoreHistogram = field(default_factory=ScoreHistogram)
    case_scores: list[float] = field(default_factory=list)
    tails: list[Tail] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, case: str, scan: ScoredScan) -> None:
        """Adds a scan.

        Raises:
            CaseError: its scores cannot be used; nothing of it is kept.
        """
        scores = scan.in_body(case)
        tail = tail_of(scan.score, scan.body, scan.voxel_ml, self.reach)
        value = case_score(scores)
        self.histogram.add(scores)
        self.tails.append(tail)
        self.case_scores.append(value)


def measure_scans(scans: ScanSource, reach: float = math.inf) -> Measured:
    """Scores all scans; those that cannot be used are left out with the reason.

    Args:
        scans: to be scored.
        reach: score (nats) down to which components are to be counted in every scan.

    Raises:
        ScreenerError: none could be used.
    """
    measured = Measured(reach)
    measured.left_out = each_usable(scans, measured.add)
    return measured


def each_usable(scans: ScanSource, add: Callable[[str, ScoredScan], None]) -> dict[str, str]:
    """Scores scans one after the other and hands them on; none is held while the next is made.

    Args:
        scans: to be scored.
        add: takes the name and the scan, or raises a CaseError if it cannot be used.

    Returns:
        The reason for each scan that was left out, by name.

    Raises:
        ScreenerError: none could be used.
    """
    left_out: dict[str, str] = {}
    for case, scan in tqdm(scans.items(), desc="calibration", unit="scan"):
        # One that is too large for the memory must not cost the others either.
        _, reason = attempt(partial(_add, add, case, scan))
        if reason:
            left_out[case] = reason
            logger.warning("left out: %s: %s", case, reason)
    if len(left_out) == len(scans):
        reason = next(iter(left_out.values()), "none was given")
        raise ScreenerError(f"no scan can be used to calibrate; the first: {reason}")
    return left_out


def _add(add: Callable[[str, ScoredScan], None], case: str, scan: Callable[[], ScoredScan]) -> None:
    add(case, scan())


def _checked(case: str, scan: Callable[[], ScoredScan]) -> ScoredScan:
    scored = scan()
    scored.in_body(case)
    return scored


def calibrate_on(measured: Measured, model: str, source: str) -> Calibration:
    """The calibration of held-out scans.

    Args:
        measured: the scans.
        model: hash of the weights.
        source: where the scans came from, as words that name none.
    """
    thresholds = shared_thresholds(measured.tails)
    counts = np.stack([count_components(t, thresholds, VOLUMES_ML) for t in measured.tails])
    # In an order of their own, so that no row tells which scan it was.
    order = np.lexsort(counts.reshape(counts.shape[0], -1).T)
    return Calibration(
        model,
        source,
        measured.histogram.percentiles(),
        CASE_PERCENTILE,
        tuple(sorted(measured.case_scores)),
        FalsePositives(thresholds.astype(np.float64), VOLUMES_ML, counts[order]),
    )


def measure_annotated(scans: ScanSource, percentiles: PercentileMap) -> AnnotatedThresholds:
    """Thresholds from annotated scans.

    Args:
        scans: with annotations.
        percentiles: of the model's calibration, for the bins.

    Raises:
        ScreenerError: no scan could be used, or none has an annotated voxel.
    """
    edges = annotation_edges(percentiles)
    index = BinIndex(edges)
    histograms = []
    for case, load in tqdm(scans.items(), desc="annotated cases", unit="scan"):
        scan, reason = attempt(partial(_checked, case, load))
        if scan is None:
            logger.warning("left out: %s: %s", case, reason)
            continue
        assert scan.annotated is not None  # such scans were asked for
        _warn_of_outside(case, scan.annotated, scan.body)
        counted = scan.body | scan.annotated
        positive = index.count(scan.score[scan.annotated])
        histograms.append(
            CaseHistogram(case, positive, index.count(scan.score[counted]) - positive)
        )
    if not histograms:
        raise ScreenerError("no annotated scan can be used; the reasons stand above")
    return choose_thresholds(histograms, edges)


def _warn_of_outside(case: str, annotated: NDArray[np.bool_], body: NDArray[np.bool_]) -> None:
    """Voxels outside of the body have the lowest score, and no threshold finds them."""
    share = float((annotated & ~body).sum()) / max(int(annotated.sum()), 1)
    if share > _OUTSIDE:
        logger.warning(
            "%s: %.0f %% of its annotated voxels lie outside of the body, which has the lowest "
            "score there: compare its mask with the scan",
            case,
            100 * share,
        )


def annotation_edges(percentiles: PercentileMap) -> NDArray[np.float32]:
    """Bins through the knots of the percentiles, each cut evenly, and on above the highest."""
    knots = percentiles.scores
    pieces = max(_BINS // knots.size, 1)
    places = np.arange(0, (knots.size - 1) * pieces + 1) / pieces
    inner = np.interp(places, np.arange(knots.size), knots)
    above = knots[-1] + (knots[-1] - knots[0]) * np.geomspace(1e-3, 10.0, 200)
    below = [np.finfo(np.float32).min]
    return np.unique(np.concatenate([below, inner, above]).astype(np.float32))
