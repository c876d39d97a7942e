"""Fingerprint of unlabelled images: sizes, spacings and the histogram of values in the body."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from screener_nnu.errors import CaseError, ScreenerError, some
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.modality import CT, MODALITIES, PICTURE
from screener_nnu.preprocessing.source_state import read_with_state

logger = logging.getLogger(__name__)

#: Keys of a record of an image that can be used.
RECORD_KEYS = frozenset(
    {"case", "image", "shape", "spacing", "body_shape", "body_share", "hu_counts", "source"}
)
#: Highest values of pictures of 8 and of 16 bits.
_HIGHEST = (255.0, 65535.0)


def analyse_case(case: str, path: Path, modality: str = CT) -> dict[str, Any]:
    """Record of one case: shape, spacing, body box (voxels) and histogram of body voxels.

    It also holds the share of the whole image's voxels that are body, and the state of the file;
    of other modalities than CT their name, and of colours a histogram each.

    Raises:
        CaseError: the image cannot be used.
    """
    kind = MODALITIES[modality]
    raw, source = read_with_state(path, case, modality)
    highest = _HIGHEST[int(raw.array.max() > _HIGHEST[0])] if modality == PICTURE else 1.0
    settings = first_settings(modality, highest)
    window = kind.window(raw.array, settings)
    box = kind.box(raw.array, raw.spacing, settings, window)
    image = raw.array[(..., *box)]
    body = kind.body(image, raw.spacing, window, settings.body_threshold)
    if not body.any():
        raise CaseError(
            case, f"no body was found; remove it from imagesTr or check that it is {kind.title}"
        )
    edges = kind.edges(highest)
    colours = [image] if image.ndim == 3 else list(image)
    counts = [_counts(colour[body], edges) for colour in colours]
    voxels = int(np.prod(raw.shape))
    record = {
        "case": case,
        "image": str(path),
        "shape": list(raw.shape),
        "spacing": [float(s) for s in raw.spacing],
        "body_shape": list(body.shape),
        "body_share": int(body.sum()) / voxels,
        "body_volume_ml": float(int(body.sum()) * np.prod(raw.spacing) / 1000),
        "hu_counts": counts[0],
        "source": source.to_dict(),
    }
    if modality == CT:
        return record
    of_colours = {"colour_counts": counts} if len(counts) > 1 else {}
    return {**record, "modality": modality, "highest": highest, **of_colours}


def first_settings(modality: str, highest: float) -> PreprocessingSettings:
    """How the body of an image is found before there is a plan.

    Args:
        modality: its name.
        highest: value that a picture of its depth can have.
    """
    kind = MODALITIES[modality]
    window = PreprocessingSettings.hu_window if modality == CT else (0.0, highest)
    one = (1.0, 1.0, 1.0)
    return PreprocessingSettings(
        one, one, window, window, body_threshold=kind.threshold, modality=modality
    )


def _counts(values: np.ndarray, edges: np.ndarray) -> dict[str, int]:
    """Voxels of each bin that has some, by its number."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1] - 1e-3), bins=edges)
    return {str(i): int(n) for i, n in enumerate(counts) if n}


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
    modality, highest = _of_one_kind(used)
    edges = MODALITIES[modality].edges(highest)
    colours = [_pooled(used, colour, edges) for colour in range(_number_of_colours(used[0]))]
    relative = [np.prod(r["body_shape"]) / np.prod(r["shape"]) for r in used]
    return {
        "spacings": [r["spacing"] for r in used],
        "shapes_after_crop": [r["body_shape"] for r in used],
        "body_extents_mm": [
            [n * s for n, s in zip(r["body_shape"], r["spacing"], strict=True)] for r in used
        ],
        "foreground_intensity_properties_per_channel": {
            str(channel): intensity_properties(counts, edges)
            for channel, counts in enumerate(colours)
        },
        "median_relative_size_after_cropping": float(np.median(relative)),
        "hu_histogram": {"edges": edges.tolist(), "counts": np.sum(colours, axis=0).tolist()},
        "cases": {r["case"]: {k: r[k] for k in ("image", "shape", "spacing")} for r in used},
        "skipped": skipped,
        "sources": {r["case"]: {k: r.get(k) for k in ("image", "source")} for r in records},
        **({} if modality == CT else {"modality": modality, "highest": highest}),
    }


def _number_of_colours(record: dict[str, Any]) -> int:
    return len(record.get("colour_counts", [0]))


def _pooled(records: list[dict[str, Any]], colour: int, edges: np.ndarray) -> np.ndarray:
    """Voxels of each bin over all images."""
    counts = np.zeros(len(edges) - 1)
    for record in records:
        for index, number in record.get("colour_counts", [record["hu_counts"]])[colour].items():
            counts[int(index)] += number
    return counts


def _of_one_kind(records: list[dict[str, Any]]) -> tuple[str, float]:
    """Modality, and the highest value of pictures of the depth that they have.

    Raises:
        ScreenerError: some pictures are grey and others have colours, or 8 and 16 bits.
    """
    kinds: dict[tuple[int, float], list[str]] = {}
    for record in records:
        highest = record.get("highest", 0.0)
        kinds.setdefault((_number_of_colours(record), highest), []).append(record["case"])
    if len(kinds) > 1:
        lists = "; ".join(
            f"{len(cases)} {'grey' if colours == 1 else 'in colour'} of "
            f"{8 if highest == _HIGHEST[0] else 16} bits ({some(cases)})"
            for (colours, highest), cases in sorted(kinds.items())
        )
        raise ScreenerError(
            f"pictures of one data set have to be of one kind, and there are {lists}: convert them"
        )
    ((_, highest),) = kinds
    return records[0].get("modality", CT), highest


def intensity_properties(counts: np.ndarray, edges: np.ndarray) -> dict[str, float]:
    """nnU-Net's intensity properties of body voxels, from a histogram of their values."""
    centres = (edges[:-1] + edges[1:]) / 2
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
