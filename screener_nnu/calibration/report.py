"""A calibration in words and tables, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from screener_nnu.calibration.annotated import RECALLS
from screener_nnu.calibration.check import Checked
from screener_nnu.calibration.false_positives import SAMPLES
from screener_nnu.calibration.record import Calibration
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.bootstrap import case_weights
from screener_nnu.least_volume import MINIMUM_ML

ASKED = (0.5, 1.0, 2.0, 5.0)
# Where no more of the held-out voxels lie below the best threshold, lesions do not stand out.
_USELESS = 80.0
_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999)


def describe(calibration: Calibration, volume_ml: float = MINIMUM_ML) -> Iterator[str]:
    """The lines of a report.

    Args:
        calibration: of a model.
        volume_ml: least volume (ml) of a false positive.
    """
    n, scores = calibration.scans, calibration.case_scores
    yield f"{n} held-out scans ({calibration.source})"
    yield ""
    yield "percentile of held-out body voxels, nats"
    yield from table(
        [f"p{p:g}" for p in _PERCENTILES],
        [[f"{calibration.score_at(p):.2f}" for p in _PERCENTILES]],
    )
    yield ""
    yield (
        f"case score (p{calibration.case_percentile:g} of a scan): lowest {scores[0]:.2f}, median "
        f"{np.median(scores):.2f}, highest {scores[-1]:.2f} nats; {n} scans tell "
        f"{100 / n:.3g} % apart"
    )
    yield ""
    yield f"false positives per scan: components of {volume_ml:g} ml or more; 95 % intervals"
    yield from table(
        ("asked", "nats", "interval", "percentile", "held-out", "left out", "interval"),
        [_asked_row(calibration, asked, volume_ml) for asked in ASKED],
    )
    if calibration.annotated is not None:
        yield ""
        yield from _annotated(calibration)


def _asked_row(calibration: Calibration, asked: float, volume_ml: float) -> list[str]:
    try:
        found = calibration.false_positives.threshold_for(asked, volume_ml)
    except ScreenerError as error:
        return [f"{asked:g}", str(error).split(": ")[0], *[""] * 5]
    return [
        f"{asked:g}",
        f"{found.threshold:.2f}",
        _range(found.interval),
        f"{float(calibration.percentile(np.array(found.threshold))):.4f}",
        f"{found.held_out:.2f}",
        f"{found.left_out:.2f}",
        _range(found.left_out_interval),
    ]


def _annotated(calibration: Calibration) -> Iterator[str]:
    found = calibration.annotated
    assert found is not None
    left_out = "-" if found.left_out_dice is None else f"{found.left_out_dice:.3f}"
    yield (
        f"{found.cases} annotated cases: mean Dice {found.dice:.3f} above "
        f"{found.dice_threshold:.2f} nats, {left_out} when each case is left out of the choice"
    )
    percentile = float(calibration.percentile(np.array(found.dice_threshold)))
    if percentile < _USELESS:
        yield (
            f"that is p{percentile:.3g} of held-out bodies: these lesions do not stand out for "
            "this model, and no threshold of it finds them"
        )
    recalls = found.recall_thresholds
    if recalls:
        yield from table(
            [f"recall{recall:g}" for recall in recalls], [[f"{t:.2f}" for t in recalls.values()]]
        )
    missing = ", ".join(f"recall{recall:g}" for recall in RECALLS if recall not in recalls)
    if missing:
        yield f"no threshold for {missing}: so many annotated voxels score below all held-out ones"


def compare(
    calibration: Calibration, checked: Checked, volume_ml: float = MINIMUM_ML
) -> Iterator[str]:
    """Asked-for and obtained false positives on other scans, and where their case scores lie.

    Args:
        calibration: of a model.
        checked: scans that the calibration has not seen, by the same model.
        volume_ml: least volume (ml) of a false positive.
    """
    yield (
        f"{checked.scans} other scans, components of {volume_ml:g} ml or more; 95 % intervals "
        "over scans"
    )
    rows = []
    for asked in ASKED:
        try:
            found = calibration.false_positives.threshold_for(asked, volume_ml)
            counts = checked.above(found.threshold, found.volume_ml)
        except ScreenerError as error:
            rows.append([f"{asked:g}", "", str(error).split(": ")[0], "", ""])
            continue
        spread = " ".join(str(count) for count in sorted(counts.tolist()))
        mean = f"{counts.mean():.2f}"
        rows.append([f"{asked:g}", f"{found.threshold:.2f}", mean, _mean_range(counts), spread])
    yield from table(("asked", "nats", "obtained", "interval", "in each scan"), rows)
    yield ""
    lower = np.searchsorted(calibration.case_scores, checked.case_scores, side="left")
    yield (
        f"case scores: higher than {', '.join(str(k) for k in sorted(lower.tolist()))} of "
        f"{calibration.scans} held-out scans"
    )


def _mean_range(counts: NDArray[np.integer]) -> str:
    """95 % of the mean over scans (bootstrap)."""
    weights = case_weights(counts.size, SAMPLES, seed=1) / counts.size
    low, high = np.percentile(weights @ counts, (2.5, 97.5))
    return _range((float(low), float(high)))


def _range(values: tuple[float, float]) -> str:
    return f"{values[0]:.2f} to {values[1]:.2f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns of equal width, two spaces apart."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        yield "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
