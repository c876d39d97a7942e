"""Counts of the scores of one scan with synthetic anomalies, as an evaluation makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from screener_nnu.evaluation.froc import (
    MIN_VOLUME_MM3,
    FrocCounts,
    count_froc,
    least_voxels,
    place_thresholds,
)
from screener_nnu.evaluation.histograms import BinIndex, CaseHistogram, quantile_edges
from screener_nnu.evaluation.lesions import LesionHistograms, Lesions, find_lesions
from screener_nnu.least_volume import MINIMUM_PX
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.modality import PICTURE

#: Bounds (HU) of the classes of voxels by how much they have changed, and names of the classes.
CHANGES = (20.0, 80.0, 160.0)
CHANGE_CLASSES = ("below 20", "20 to 80", "80 to 160", "above 160")
_BINS = 4096
_SAMPLE = 200_000


@dataclass(frozen=True)
class ScanVoxels:
    """Which voxels of a scan count, and what they are.

    Attributes:
        counted: voxels of body and anomalies, bool (D, H, W).
        annotated: which of them are anomalous, bool (n,).
        lesions: connected anomalies.
        least_voxels: least volume of a detection and of an anomaly in the FROC.
        classes: of the anomalous voxels, by how much they have changed, (m,), see `CHANGES`.
    """

    counted: np.ndarray
    annotated: np.ndarray
    lesions: Lesions
    least_voxels: int
    classes: np.ndarray

    @classmethod
    def of(
        cls,
        mask: np.ndarray,
        counted: np.ndarray,
        change: np.ndarray,
        settings: PreprocessingSettings,
    ) -> ScanVoxels:
        """From masks (D, H, W) on the grid of a plan, and the change (m,) of anomalous voxels."""
        pictures = settings.modality == PICTURE
        least = MINIMUM_PX if pictures else least_voxels(MIN_VOLUME_MM3, settings.spacing)
        classes = np.digitize(change, CHANGES)
        return cls(counted, mask[counted], find_lesions(mask), least, classes)


@dataclass(frozen=True)
class Bins:
    """Where the scores of a method are counted.

    Attributes:
        edges: lower bounds of K bins.
        thresholds: of the FROC, rising (T,).
    """

    edges: np.ndarray
    thresholds: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Bins:
        """From scores of scans (n,), and which of them are of anomalies."""
        rng = np.random.default_rng(0)
        samples = []
        for wanted in (True, False):
            values = np.concatenate([scores[mask == wanted] for scores, mask in parts])
            few = values.size <= _SAMPLE
            samples.append(values if few else rng.choice(values, _SAMPLE, replace=False))
        others = samples[1].astype(np.float32)
        thresholds = place_thresholds(others, np.ones(others.size))
        return cls(quantile_edges(samples, _BINS), thresholds)


class Counts(NamedTuple):
    """Of one scan, see `Judged`: (2, K), (K,), the FROC's, and (4, K)."""

    voxels: np.ndarray
    overlap: np.ndarray
    froc: FrocCounts
    changes: np.ndarray


def count_scan(scores: np.ndarray, scan: ScanVoxels, bins: Bins) -> Counts:
    """Counts the scores (n,) of the voxels of a scan that count."""
    counted = CaseHistogram.count("", scores, scan.annotated, bins.edges)
    values = np.asarray(scores, np.float32)
    places = BinIndex(bins.edges).find(values[scan.annotated])
    return Counts(
        np.stack([counted.positive, counted.negative]),
        LesionHistograms.count(scan.lesions, places).overlap(bins.edges.size),
        count_froc(
            values,
            scan.counted,
            scan.annotated,
            scan.lesions,
            bins.thresholds,
            scan.least_voxels,
        ),
        np.stack(
            [
                np.bincount(places[scan.classes == number], minlength=bins.edges.size)
                for number in range(len(CHANGE_CLASSES))
            ]
        ),
    )
