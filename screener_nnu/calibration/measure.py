"""Measures a calibration on scored scans, one after the other or by workers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from screener_nnu.calibration.annotated import AnnotatedThresholds, choose_thresholds
from screener_nnu.calibration.components import Tail, count_components, shared_thresholds, tail_of
from screener_nnu.calibration.false_positives import VOLUMES_ML, FalsePositives
from screener_nnu.calibration.percentiles import PercentileMap, ScanShares, ScoreHistogram
from screener_nnu.calibration.record import Calibration
from screener_nnu.calibration.scans import ScanSource, ScoredScan
from screener_nnu.case_score import CASE_PERCENTILE, case_score
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.histograms import BinIndex, CaseHistogram
from screener_nnu.inference.pipeline import attempt
from screener_nnu.workers import run_cases

logger = logging.getLogger(__name__)
#: What is kept of a scan.
Kept = TypeVar("Kept")

# Bins for annotated cases: as fine as the percentiles, and on as far above them.
_BINS = 4096
# Masks drawn by hand reach over the skin a little; more than this share deserves a look.
_OUTSIDE = 0.05


class MeasuredScan(NamedTuple):
    """What is kept of a scan: 48 MB at most, however large it is.

    Attributes:
        shares: distribution of the scores of its body.
        tail: its highest voxels.
        case_score: nats.
    """

    shares: ScanShares
    tail: Tail
    case_score: float


def measure_scan(case: str, scan: ScoredScan, reach: float) -> MeasuredScan:
    """Measures a scan.

    Raises:
        CaseError: its scores cannot be used.
    """
    scores = scan.in_body(case)
    tail = tail_of(scan.score, scan.body, scan.voxel_ml, reach)
    return MeasuredScan(ScanShares.of(scores), tail, case_score(scores))


@dataclass
class Measured:
    """What is kept of all scans.

    Attributes:
        scans: those that can be used.
        left_out: reason by name.
    """

    scans: list[MeasuredScan] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def measure_scans(scans: ScanSource, reach: float = math.inf) -> Measured:
    """Scores all scans; those that cannot be used are left out with the reason.

    Args:
        scans: to be scored.
        reach: score (nats) down to which components are to be counted in every scan.

    Raises:
        ScreenerError: none could be used.
    """
    found, left_out = each_usable(scans, partial(measure_scan, reach=reach))
    return Measured(list(found.values()), left_out)


def each_usable(
    scans: ScanSource, reduce: Callable[[str, ScoredScan], Kept], noun: str = "scan"
) -> tuple[dict[str, Kept], dict[str, str]]:
    """Scores scans one after the other, or by workers, and keeps what is made of each.

    Args:
        scans: to be scored.
        reduce: makes of a name and its scan what is kept, or raises a CaseError if it cannot be
            used.
        noun: what they are, for messages.

    Returns:
        What was made, in the order of the scans, and the reason for each that was left out.

    Raises:
        ScreenerError: none could be used.
    """
    work = partial(_reduced, reduce)
    outcomes = run_cases(work, scans, 0, lambda reason: (None, reason))
    made: dict[str, Kept] = {}
    left_out: dict[str, str] = {}
    # One that is too large for the memory must not cost the others either.
    for case, (kept, reason) in tqdm(outcomes, desc="calibration", unit="scan", total=len(scans)):
        if reason:
            left_out[case] = reason
            logger.warning("left out: %s: %s", case, reason)
        else:
            made[case] = cast(Kept, kept)
    if not made:
        reason = next(iter(left_out.values()), "none was given")
        raise ScreenerError(f"no {noun} can be used to calibrate; the first: {reason}")
    return {case: made[case] for case in scans if case in made}, left_out


def _reduced(
    reduce: Callable[[str, ScoredScan], Kept], case: str, scan: Callable[[], ScoredScan]
) -> tuple[Kept | None, str]:
    return attempt(lambda: reduce(case, scan()))


def calibrate_on(measured: Measured, model: str, source: str) -> Calibration:
    """The calibration of held-out scans.

    Args:
        measured: the scans.
        model: hash of the weights.
        source: where the scans came from, as words that name none.
    """
    histogram = ScoreHistogram()
    for scan in measured.scans:
        histogram.add(scan.shares)
    tails = [scan.tail for scan in measured.scans]
    thresholds = shared_thresholds(tails)
    counts = np.stack([count_components(tail, thresholds, VOLUMES_ML) for tail in tails])
    # In an order of their own, so that no row tells which scan it was.
    order = np.lexsort(counts.reshape(counts.shape[0], -1).T)
    return Calibration(
        model,
        source,
        histogram.percentiles(),
        CASE_PERCENTILE,
        tuple(sorted(scan.case_score for scan in measured.scans)),
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
    found, _ = each_usable(scans, partial(count_annotated, edges=edges), "annotated scan")
    for case, (_, outside) in found.items():
        if outside > _OUTSIDE:
            logger.warning(
                "%s: %.0f %% of its annotated voxels lie outside of the body, which has the lowest "
                "score there: compare its mask with the scan",
                case,
                100 * outside,
            )
    return choose_thresholds([histogram for histogram, _ in found.values()], edges)


def count_annotated(
    case: str, scan: ScoredScan, edges: NDArray[np.float32]
) -> tuple[CaseHistogram, float]:
    """Annotated and other voxels of a scan in each bin, and the share of them outside its body.

    Those outside have the lowest score, and no threshold finds them.

    Raises:
        CaseError: its scores cannot be used.
    """
    scan.in_body(case)
    assert scan.annotated is not None  # such scans were asked for
    index = BinIndex(edges)
    positive = index.count(scan.score[scan.annotated])
    negative = index.count(scan.score[scan.body | scan.annotated]) - positive
    outside = float((scan.annotated & ~scan.body).sum()) / max(int(scan.annotated.sum()), 1)
    return CaseHistogram(case, positive, negative), outside


def annotation_edges(percentiles: PercentileMap) -> NDArray[np.float32]:
    """Bins through the knots of the percentiles, each cut evenly, and on above the highest."""
    knots = percentiles.scores
    pieces = max(_BINS // knots.size, 1)
    places = np.arange(0, (knots.size - 1) * pieces + 1) / pieces
    inner = np.interp(places, np.arange(knots.size), knots)
    above = knots[-1] + (knots[-1] - knots[0]) * np.geomspace(1e-3, 10.0, 200)
    below = [np.finfo(np.float32).min]
    return np.unique(np.concatenate([below, inner, above]).astype(np.float32))
