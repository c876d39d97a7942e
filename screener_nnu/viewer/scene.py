"""What a page says beside its volumes: scales, percentiles, findings, where to start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from screener_nnu.score_units import NATS, shown_unit
from screener_nnu.viewer.colours import LEAST_COVER, PALETTES
from screener_nnu.viewer.encoding import HU_AXES, HU_LEVELS, LABEL_AXES, SCORE_AXES, ScoreScale
from screener_nnu.viewer.findings import FindingLike, FindingsLike
from screener_nnu.viewer.grid import Volumes

Percentile = Callable[[float], float | None]
# A map is shown above this percentile unless a threshold is given: where it is rare at all.
_DEFAULT_PERCENTILE = 97.5
# Colours reach from and to these percentiles.
_COLOUR_PERCENTILES = (75.0, 99.98)


@dataclass(frozen=True)
class Ranks:
    """Percentiles of the codes 1 to 255 of a score.

    Attributes:
        values: 0 to 100, never falling, `(255,)`.
        normal: they are those of held-out scans, else of the body in this scan.
    """

    values: np.ndarray
    normal: bool

    def score(self, percentile: float, scale: ScoreScale) -> float:
        """The lowest score with at least that percentile, between codes."""
        return float(np.interp(percentile, self.values, scale.values))


def rank_codes(scale: ScoreScale, body_scores: np.ndarray, percentile: Percentile | None) -> Ranks:
    """Percentiles among held-out scans if they are known, else within the body of the scan."""
    if percentile is not None:
        known = [percentile(float(value)) for value in scale.values]
        ranks = [float(rank) for rank in known if rank is not None]
        if len(ranks) == len(known):
            return Ranks(np.maximum.accumulate(ranks), True)
    below = np.searchsorted(np.sort(body_scores), scale.values)
    return Ranks(100 * below / len(body_scores), False)


def colour_range(scale: ScoreScale, ranks: Ranks) -> tuple[float, float]:
    """Scores at both ends of the colours."""
    low, high = (ranks.score(percentile, scale) for percentile in _COLOUR_PERCENTILES)
    return (low, high) if high - low > 1e-3 * (scale.high - scale.low) else (scale.low, scale.high)


def page_facts(
    volumes: Volumes,
    scale: ScoreScale,
    ranks: Ranks,
    threshold: float | None,
    findings: FindingsLike | None,
    colours: tuple[float, float] | None = None,
    unit: str = NATS,
) -> dict[str, Any]:
    """Plain values for the page's script; axes and sizes in the order (x, y, z)."""
    grid = volumes.grid
    if threshold is None:
        threshold = ranks.score(_DEFAULT_PERCENTILE, scale)
    rows = [] if findings is None else [_row(row, volumes) for row in findings.rows]
    peak = peak_voxel(volumes)
    return {
        "size": list(grid.size),
        "spacing": list(grid.spacing),
        "origin": list(grid.origin),
        "direction": list(grid.direction),
        "levels": HU_LEVELS.tolist(),
        "differences": {
            name: [2 - axis for axis in reversed(axes)]
            for name, axes in (("hu", HU_AXES), ("score", SCORE_AXES), ("labels", LABEL_AXES))
        },
        "unit": shown_unit(unit),
        "low": scale.low,
        "high": scale.high,
        "percentiles": [round(float(value), 4) for value in ranks.values],
        "ranked": ranks.normal,
        "palettes": PALETTES,
        "least_cover": LEAST_COVER,
        "colours": list(colours or colour_range(scale, ranks)),
        "threshold": float(np.clip(threshold, scale.low, scale.high)),
        "findings": None if findings is None else rows,
        "peak": list(peak),
    }


def peak_voxel(volumes: Volumes) -> tuple[int, ...]:
    """The voxel (x, y, z) of the body with the highest score."""
    inside = np.where(volumes.body, volumes.score, -np.inf)
    return tuple(int(i) for i in np.unravel_index(int(inside.argmax()), inside.shape)[::-1])


def _row(finding: FindingLike, volumes: Volumes) -> dict[str, Any]:
    return {
        "number": finding.number,
        "volume_ml": finding.volume_ml,
        "peak": finding.peak_score,
        "mean": finding.mean_score,
        "percentile": finding.percentile,
        "centre": list(finding.centre_mm),
        "voxel": list(volumes.grid.index(finding.peak_mm)),
    }
