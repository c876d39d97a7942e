"""What position alone would tell about anomalies: three distances, and their AUROC."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.synthetic.fields import FloatArray, Triple

BoolArray = NDArray[np.bool_]
_BIN_MM = 0.25


class PositionScores:
    """AUROC of position alone, gathered over one scan or several.

    Three positions are measured, each in both directions: distance to the centre of the volume,
    distance to the centre of the body's bounding box, and depth under the skin (mm).
    AUROC is that of the histograms with bins of 0.25 mm (ties count one half).
    """

    names = ("volume_centre", "body_centre", "skin_depth")

    def __init__(self) -> None:
        """Starts with no voxels."""
        self._body = {name: np.zeros(0, np.int64) for name in self.names}
        self._anomaly = {name: np.zeros(0, np.int64) for name in self.names}

    @classmethod
    def of_scan(cls, bins: dict[str, NDArray[np.int32]], anomaly: BoolArray) -> PositionScores:
        """Counts the voxels of one scan.

        Args:
            bins: output of `position_bins`.
            anomaly: True in anomalies, for the same voxels of the body, (voxels,).
        """
        scores = cls()
        for name, values in bins.items():
            scores._body[name] = np.bincount(values)
            scores._anomaly[name] = np.bincount(values[anomaly])
        return scores

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, list[int]]]) -> PositionScores:
        """Reads what `to_dict` returned."""
        scores = cls()
        for name in cls.names:
            scores._body[name] = np.asarray(values["body"][name], np.int64)
            scores._anomaly[name] = np.asarray(values["anomaly"][name], np.int64)
        return scores

    def to_dict(self) -> dict[str, dict[str, list[int]]]:
        """The counts, ready for JSON."""
        return {
            "body": {name: counts.tolist() for name, counts in self._body.items()},
            "anomaly": {name: counts.tolist() for name, counts in self._anomaly.items()},
        }

    def __add__(self, other: PositionScores) -> PositionScores:
        """Pools the voxels of two sets of scans."""
        scores = PositionScores()
        for name in self.names:
            scores._body[name] = _sum(self._body[name], other._body[name])
            scores._anomaly[name] = _sum(self._anomaly[name], other._anomaly[name])
        return scores

    def auroc(self) -> dict[str, float]:
        """AUROC of every score: `<position>_far` for the distance, `_near` for its negative."""
        figures = {}
        for name in self.names:
            far = _histogram_auroc(self._anomaly[name], self._body[name])
            figures[f"{name}_far"] = far
            figures[f"{name}_near"] = 1.0 - far
        return figures


def positions(body: BoolArray, spacing: Triple) -> dict[str, FloatArray]:
    """Positions in mm of the voxels inside the body, each (voxels,) in array order."""
    inside = np.nonzero(body)
    step = np.asarray(spacing, np.float32)
    middle = (np.asarray(body.shape) - 1) / 2
    box = np.array([(axis.min() + axis.max()) / 2 for axis in inside])
    depth = ndimage.distance_transform_edt(body, sampling=spacing)
    return {
        "volume_centre": _distance(inside, middle, step),
        "body_centre": _distance(inside, box, step),
        "skin_depth": np.asarray(depth[inside], np.float32),
    }


def position_bins(body: BoolArray, spacing: Triple) -> dict[str, NDArray[np.int32]]:
    """`positions` in whole quarters of a millimetre, each (voxels,)."""
    measured = positions(body, spacing)
    return {name: (values / _BIN_MM).astype(np.int32) for name, values in measured.items()}


def _distance(
    inside: tuple[NDArray[np.intp], ...], middle: NDArray[np.float64], step: FloatArray
) -> FloatArray:
    """Distance in mm of voxels to a place given in voxels."""
    total = np.zeros(len(inside[0]), np.float32)
    for axis, centre, size in zip(inside, middle, step, strict=True):
        total += ((axis - centre) * size).astype(np.float32) ** 2
    return np.sqrt(total)


def _sum(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of two histograms of different length."""
    total = np.zeros(max(len(a), len(b)), np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def _histogram_auroc(anomaly: NDArray[np.int64], body: NDArray[np.int64]) -> float:
    """Chance that an anomaly voxel lies higher than another voxel of the body (ties: one half)."""
    positive = _sum(anomaly, np.zeros(len(body), np.int64)).astype(np.float64)
    negative = body - positive
    below = np.cumsum(negative) - negative / 2
    pairs = positive.sum() * negative.sum()
    return float((positive * below).sum() / pairs) if pairs else 0.5
