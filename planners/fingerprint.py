"""Fingerprint of unlabelled CT: sizes, spacings and the HU histogram inside the body."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.preprocessing.source_state import read_with_state

logger = logging.getLogger(__name__)

HU_EDGES = np.arange(-1024.0, 3072.0 + 1, 4.0)
#: Keys of a record of an image that can be used.
RECORD_KEYS = frozenset(
    {"case", "image", "shape", "spacing", "body_shape", "body_share", "hu_counts", "source"}
)
_BODY_THRESHOLD = -500.0
_BODY_BLOCK_MM = 5.0
# Share of the voxels that are body, from which no air is left around it.


def analyse_case(case: str, path: Path) -> dict[str, Any]:
    """Record of one case: shape, spacing, body box (voxels) and HU histogram of body voxels.

    It also holds the share of the whole image's voxels that are body, and the state of the file.

    Raises:
        CaseError: the image cannot be used.
    """
    from screener_nnu.preprocessing.body import body_box, body_mask

    raw, source = read_with_state(path, case)
    box = body_box(raw.array, raw.spacing, _BODY_THRESHOLD, _BODY_BLOCK_MM)
    image = raw.array[box]
    inside = image[body_mask(image, raw.spacing, _BODY_THRESHOLD)]
    if inside.size == 0:
        raise CaseError(case, "no body was found; remove it from imagesTr or check that it is CT")
    counts, _ = np.histogram(np.clip(inside, HU_EDGES[0], HU_EDGES[-1] - 1), bins=HU_EDGES)
    return {
        "case": case,
        "image": str(path),
        "shape": list(raw.array.shape),
        "spacing": [float(s) for s in raw.spacing],
        "body_shape": list(image.shape),
        "body_share": inside.size / raw.array.size,
        "body_volume_ml": float(inside.size * np.prod(raw.spacing) / 1000),
        "hu_counts": {str(i): int(n) for i, n in enumerate(counts) if n},
        "source": source.to_dict(),
    }


def body_shares(records: list[dict[str, Any]]) -> dict[str, float]:
    """Share of the voxels of each usable scan that are body, by case."""
    return {r["case"]: r["body_share"] for r in records if "skipped" not in r}


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The fingerprint: nnU-Net's keys, body sizes and the pooled HU histogram.

    Raises:
        ScreenerError: no case can be used; the message holds the reasons.
    """
    used = [r for r in records if "skipped" not in r]
    skipped = {r["case"]: r["skipped"] for r in records if "skipped" in r}
    if not used:
        reasons = "\n".join(f"  {case}: {reason}" for case, reason in skipped.items())
        raise ScreenerError(f"no usable image among {len(records)}:\n{reasons}")
    counts = np.zeros(len(HU_EDGES) - 1)
    for record in used:
        for index, number in record["hu_counts"].items():
            counts[int(index)] += number
    relative = [np.prod(r["body_shape"]) / np.prod(r["shape"]) for r in used]
    return {
        "spacings": [r["spacing"] for r in used],
        "shapes_after_crop": [r["body_shape"] for r in used],
        "body_extents_mm": [
            [n * s for n, s in zip(r["body_shape"], r["spacing"], strict=True)] for r in used
        ],
        "foreground_intensity_properties_per_channel": {"0": intensity_properties(counts)},
        "median_relative_size_after_cropping": float(np.median(relative)),
        "hu_histogram": {"edges": HU_EDGES.tolist(), "counts": counts.tolist()},
        "cases": {r["case"]: {k: r[k] for k in ("image", "shape", "spacing")} for r in used},
        "skipped": skipped,
        "sources": {r["case"]: {k: r.get(k) for k in ("image", "source")} for r in records},
    }


def intensity_properties(counts: np.ndarray) -> dict[str, float]:
    """nnU-Net's intensity properties (HU) of body voxels, from the histogram."""
    centres = (HU_EDGES[:-1] + HU_EDGES[1:]) / 2
    total = counts.sum()
    mean = float((counts * centres).sum() / total)
    cumulative = np.cumsum(counts) / total

    def percentile(q: float) -> float:
        return float(centres[np.searchsorted(cumulative, q)])

    present = np.flatnonzero(counts)
    return {
        "mean": mean,
        "median": percentile(0.5),
        "std": float(np.sqrt((counts * (centres - mean) ** 2).sum() / total)),
        "min": float(centres[present[0]]),
        "max": float(centres[present[-1]]),
        "percentile_00_5": percentile(0.005),
        "percentile_99_5": percentile(0.995),
    }
