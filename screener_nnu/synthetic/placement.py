"""Places for synthetic anomalies that do not give themselves away by where they are.

Were anomalies deeper, or more central, than the body as a whole, a method that knows nothing but
the position would find them. Several sets of places are drawn and one is taken whose voxels are
spread over distance and depth as those of the body are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.synthetic.blobs import Blob, draw_blob
from screener_nnu.synthetic.fields import FloatArray, Triple

BoolArray = NDArray[np.bool_]
_BIN_MM = 0.25


@dataclass(frozen=True)
class BlobSettings:
    """How many blobs a scan gets and what they are like; lengths in mm.

    Attributes:
        mean_count: mean of the Poisson distribution of their number (at least one is drawn).
        radius: smallest and largest radius.
        edge: width of the soft edge.
        highest_auroc: a set of places is taken when no positional AUROC exceeds this.
        candidates: number of sets drawn before the best one so far is taken.
    """

    mean_count: float = 5.0
    radius: tuple[float, float] = (6.0, 20.0)
    edge: float = 5.0
    highest_auroc: float = 0.57
    candidates: int = 60


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


@dataclass(frozen=True)
class Placement:
    """Blobs of one scan and what position alone would tell about them.

    Attributes:
        blobs: the blobs; they do not overlap, and their weight is zero outside the body.
        scores: positions of the blobs' voxels among those of the body.
    """

    blobs: list[Blob]
    scores: PositionScores

    @property
    def auroc(self) -> dict[str, float]:
        """AUROC of each positional score over the voxels of the body."""
        return self.scores.auroc()


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


def place_blobs(
    body: BoolArray,
    spacing: Triple,
    rng: np.random.Generator,
    settings: BlobSettings | None = None,
    earlier: PositionScores | None = None,
) -> Placement:
    """Draws the blobs of one scan.

    Centres are uniform over the body widened by half a radius; without the widening the voxels
    just under the skin would be reached less often than others.

    Args:
        body: True inside the body, (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
        rng: source of randomness.
        settings: number, size and softness of the blobs.
        earlier: positions in the scans before this one; the pool with them is kept even as well
            (a small body has more of its voxels in blobs, and lesser distances).

    Returns:
        The first set of places that is within `settings.highest_auroc`, otherwise the best one.

    Raises:
        ValueError: when the body mask is empty.
    """
    if not body.any():
        raise ValueError("The body mask is empty; check the HU of the scan (air is -1000).")
    settings = settings or BlobSettings()
    count = max(1, int(rng.poisson(settings.mean_count)))
    bins = position_bins(body, spacing)
    outside = ndimage.distance_transform_edt(~body, sampling=spacing).astype(np.float32)
    best: Placement | None = None
    lowest = np.inf
    for _ in range(settings.candidates):
        blobs = _draw_set(body, outside, spacing, rng, settings, count)
        if not blobs:
            continue
        scores = PositionScores.of_scan(bins, blob_mask(body.shape, blobs)[body])
        figure = max(max(s.auroc().values()) for s in (scores, scores + (earlier or scores)))
        if figure < lowest:
            best, lowest = Placement(blobs, scores), figure
        if lowest <= settings.highest_auroc:
            break
    if best is None:
        raise ValueError("The body is too small for a single blob; lower the radius of the blobs.")
    return best


def blob_mask(shape: Sequence[int], blobs: Sequence[Blob]) -> BoolArray:
    """True where the weight of a blob exceeds one half, (Z, Y, X)."""
    mask = np.zeros(tuple(shape), bool)
    for blob in blobs:
        mask[blob.box] |= blob.weight > 0.5
    return mask


def _draw_set(
    body: BoolArray,
    outside: FloatArray,
    spacing: Triple,
    rng: np.random.Generator,
    settings: BlobSettings,
    count: int,
) -> list[Blob]:
    """Draws blobs that do not overlap; each has at least a tenth of its ball inside the body."""
    taken = np.zeros(body.shape, bool)
    around = np.flatnonzero(outside <= 0.5 * settings.radius[1])
    blobs: list[Blob] = []
    for _ in range(8 * count):
        radius = float(rng.uniform(*settings.radius))
        index = np.unravel_index(around[rng.integers(len(around))], body.shape)
        if outside[index] > 0.5 * radius:
            continue
        place = [
            float((i + rng.uniform(-0.5, 0.5)) * s) for i, s in zip(index, spacing, strict=True)
        ]
        centre = (place[0], place[1], place[2])
        blob = draw_blob(rng, body.shape, spacing, centre, radius, settings.edge)
        weight = np.where(body[blob.box], blob.weight, np.float32(0))
        ball = 4 / 3 * np.pi * radius**3 / float(np.prod(spacing))
        if (weight > 0.5).sum() < max(1.0, 0.1 * ball) or taken[blob.box][weight > 0].any():
            continue
        taken[blob.box] |= weight > 0
        blobs.append(Blob(blob.box, weight, centre, radius))
        if len(blobs) == count:
            break
    return blobs


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
