"""What a page says beside its volumes: scales, percentiles, findings, where to start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from screener_nnu.least_volume import PIXEL_ML
from screener_nnu.score_units import NATS, shown_unit
from screener_nnu.viewer.colours import LEAST_COVER, PALETTES
from screener_nnu.viewer.encoding import HU_AXES, HU_LEVELS, LABEL_AXES, SCORE_AXES, ScoreScale
from screener_nnu.viewer.findings import FindingLike, FindingsLike
from screener_nnu.viewer.grid import Volumes
from screener_nnu.viewer.picture import shown_range

Percentile = Callable[[float], float | None]
#: Names of the volumes of an image in a page: grey, or red, green and blue.
CHANNELS = ("hu", "green", "blue")
_WINDOW_HU = (400.0, 40.0)
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
        "picture": grid.is_picture,
        "levels": levels_of(volumes).tolist(),
        "window": list(window_of(volumes)),
        "palette": palette_of(volumes),
        "differences": {
            name: [2 - axis for axis in reversed(axes)]
            for name, axes in (
                *((name, HU_AXES) for name in CHANNELS),
                ("score", SCORE_AXES),
                ("labels", LABEL_AXES),
            )
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


def levels_of(volumes: Volumes) -> np.ndarray:
    """Values of the codes of an image: HU, or those of a picture from black to white."""
    return np.linspace(*shown_range(volumes.hu), 256) if volumes.grid.is_picture else HU_LEVELS


def window_of(volumes: Volumes) -> tuple[float, float]:
    """Width and level that a page begins with: soft tissue, or all of a picture."""
    if not volumes.grid.is_picture:
        return _WINDOW_HU
    low, high = shown_range(volumes.hu)
    return high - low, (low + high) / 2


def palette_of(volumes: Volumes) -> str:
    """Colours that a page begins with: those of fire are lost on an eye's red ground."""
    return "viridis" if volumes.hu.ndim == 4 else "fire"


def peak_voxel(volumes: Volumes) -> tuple[int, ...]:
    """The voxel (x, y, z) of the body with the highest score."""
    inside = np.where(volumes.body, volumes.score, -np.inf)
    return tuple(int(i) for i in np.unravel_index(int(inside.argmax()), inside.shape)[::-1])


def _row(finding: FindingLike, volumes: Volumes) -> dict[str, Any]:
    size = {"volume_ml": finding.volume_ml}
    if volumes.grid.is_picture:
        size = {"area_px": round(finding.volume_ml / PIXEL_ML)}
    return {
        "number": finding.number,
        **size,
        "peak": finding.peak_score,
        "mean": finding.mean_score,
        "percentile": finding.percentile,
        "centre": list(finding.centre_mm),
        "voxel": list(volumes.grid.index(finding.peak_mm)),
    }
