"""Places for synthetic anomalies that do not give themselves away by where they are.

Were anomalies deeper, or more central, than the body as a whole, a method that knows nothing but
the position would find them. Many blobs are drawn all over the body, and a few of them are taken
whose voxels are, together, as central and as deep as those of the body. They fill about the same
share of every body, so that this also holds in the pool of many scans, whichever these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.synthetic.anomaly_positions import BoolArray, PositionScores, position_bins
from screener_nnu.synthetic.anomaly_settings import BlobSettings
from screener_nnu.synthetic.blobs import Blob, draw_blob
from screener_nnu.synthetic.fields import Triple

Accept = Callable[[Blob], bool]
#: (rng, shape, spacing, centre, radius, edge) -> blob, see `draw_blob`.
Draw = Callable[[np.random.Generator, tuple[int, ...], Triple, Triple, float, float], Blob]

# Blobs that are drawn for every one that is needed, and at least.
_POOL_PER_BLOB = 4
_POOL = 60
# Blobs that are tried at most for every one of the pool; the rest of the pool is given up then.
_TRIES_PER_BLOB = 12
_SETS = 3000
# Filling the body by a quarter more or less than asked for is as good.
_SHARE_TOLERANCE = 1.25
# No blob reaches further than this many radii, besides half of its edge.
_REACH = 1.7


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


class BodyPlaces:
    """Where blobs of a body may lie; computed once, however many sets of blobs are drawn.

    Args:
        body: True inside the body, (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
        draw: draws a blob of another shape than `draw_blob`, no longer than 1.7 radii.

    Raises:
        ValueError: when the body mask is empty.
    """

    def __init__(self, body: BoolArray, spacing: Triple, draw: Draw = draw_blob) -> None:
        """Measures distances."""
        if not body.any():
            raise ValueError("The body mask is empty; check the HU of the scan (air is -1000).")
        self.body, self.spacing, self.draw = body, spacing, draw
        self.bins = position_bins(body, spacing)
        self.outside = ndimage.distance_transform_edt(~body, sampling=spacing).astype(np.float32)
        self._number = np.cumsum(body.reshape(-1), dtype=np.int32).reshape(body.shape) - 1
        counts = [np.bincount(values) for values in self.bins.values()]
        self._ranks = [(np.cumsum(n) - n / 2) / n.sum() for n in counts]

    def rank_sums(self, blob: Blob) -> NDArray[np.float64]:
        """Sum over a blob's voxels of their rank (0 to 1) in each position, (positions,).

        The mean rank of the voxels of several blobs is their AUROC against the whole body.
        """
        voxels = self._number[blob.box][blob.weight > 0.5]
        both = zip(self._ranks, self.bins.values(), strict=True)
        return np.array([ranks[values[voxels]].sum() for ranks, values in both])

    def place(
        self,
        rng: np.random.Generator,
        settings: BlobSettings | None = None,
        accept: Accept | None = None,
    ) -> Placement:
        """Draws the blobs of one scan; see `place_blobs`."""
        settings = settings or BlobSettings()
        count = max(1, int(rng.poisson(settings.mean_count)))
        pool = self._draw_pool(rng, settings, count, accept or (lambda blob: True))
        if not pool:
            raise ValueError("no place for a blob was found; lower their radius")
        blobs = [pool[i] for i in self._choose(pool, rng, settings, count)]
        anomaly = blob_mask(self.body.shape, blobs)[self.body]
        return Placement(blobs, PositionScores.of_scan(self.bins, anomaly))

    def _draw_pool(
        self, rng: np.random.Generator, settings: BlobSettings, count: int, accept: Accept
    ) -> list[Blob]:
        """Blobs all over the body, which may overlap.

        Centres are uniform over the body widened by half a radius; without the widening the voxels
        just under the skin would be reached less often than others.
        """
        around = np.flatnonzero(self.outside <= 0.5 * settings.radius[1])
        scale = self._radius_scale(settings, count)
        wanted = _POOL + _POOL_PER_BLOB * count
        pool: list[Blob] = []
        for _ in range(_TRIES_PER_BLOB * wanted):
            radius = float(np.clip(scale * rng.uniform(*settings.radius), *settings.radius))
            index = np.unravel_index(around[rng.integers(len(around))], self.body.shape)
            if self.outside[index] > 0.5 * radius:
                continue
            blob = self._draw(rng, index, radius, settings.edge)
            ball = 4 / 3 * np.pi * radius**3 / float(np.prod(self.spacing))
            # A blob that is nearly all outside the body would be a speck on the skin.
            if (blob.weight > 0.5).sum() >= max(1.0, 0.1 * ball) and accept(blob):
                pool.append(blob)
            if len(pool) == wanted:
                break
        return pool

    def _radius_scale(self, settings: BlobSettings, count: int) -> float:
        """Factor on the radii with which `count` blobs fill their share of the body."""
        radii = np.linspace(*settings.radius, 100)
        ball = float(4 / 3 * np.pi * (radii**3).mean())
        volume = float(self.body.sum()) * float(np.prod(self.spacing))
        return float((settings.body_share * volume / (count * ball)) ** (1 / 3))

    def _draw(
        self, rng: np.random.Generator, index: Sequence[np.intp], radius: float, edge: float
    ) -> Blob:
        """A blob somewhere in a voxel, cut at the skin."""
        place = [
            float((i + rng.uniform(-0.5, 0.5)) * s)
            for i, s in zip(index, self.spacing, strict=True)
        ]
        centre = (place[0], place[1], place[2])
        blob = self.draw(rng, self.body.shape, self.spacing, centre, radius, edge)
        weight = np.where(self.body[blob.box], blob.weight, np.float32(0))
        return Blob(blob.box, weight, centre, radius)

    def _choose(
        self, pool: list[Blob], rng: np.random.Generator, settings: BlobSettings, count: int
    ) -> list[int]:
        """Blobs of the pool that do not overlap and together lie as the body does."""
        apart = _apart(pool, settings.edge)
        sizes = np.array([(blob.weight > 0.5).sum() for blob in pool])
        ranks = np.stack([self.rank_sums(blob) for blob in pool])
        wanted = settings.body_share * float(self.body.sum())
        best: list[int] = []
        lowest = np.inf
        for _ in range(_SETS):
            chosen = _disjoint(rng.permutation(len(pool)), apart, count)
            size = float(sizes[chosen].sum())
            uneven = float(np.abs(ranks[chosen].sum(axis=0) / size - 0.5).max())
            share = abs(np.log(size / wanted)) - np.log(_SHARE_TOLERANCE)
            cost = count - len(chosen) + max(0.0, uneven - (settings.highest_auroc - 0.5))
            # Position matters more: a tenth in AUROC is as bad as 2.7 times the volume.
            cost += 0.1 * max(0.0, float(share))
            if cost < lowest:
                best, lowest = chosen, cost
            if lowest <= 0:
                break
        return best


def place_blobs(
    body: BoolArray,
    spacing: Triple,
    rng: np.random.Generator,
    settings: BlobSettings | None = None,
    accept: Accept | None = None,
) -> Placement:
    """Draws the blobs of one scan.

    Args:
        body: True inside the body, (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
        rng: source of randomness.
        settings: number, size and softness of the blobs.
        accept: says whether a blob, cut at the skin, is of use; None takes all.

    Returns:
        The first set of blobs that keeps to `settings.highest_auroc` and `settings.body_share`,
        otherwise the best of those that were tried.

    Raises:
        ValueError: when the body mask is empty, or no blob is accepted.
    """
    return BodyPlaces(body, spacing).place(rng, settings, accept)


def blob_mask(shape: Sequence[int], blobs: Sequence[Blob]) -> BoolArray:
    """True where the weight of a blob exceeds one half, (Z, Y, X)."""
    mask = np.zeros(tuple(shape), bool)
    for blob in blobs:
        mask[blob.box] |= blob.weight > 0.5
    return mask


def _apart(blobs: list[Blob], edge: float) -> BoolArray:
    """Which pairs of blobs cannot touch, (blobs, blobs)."""
    centres = np.array([blob.centre for blob in blobs])
    reach = _REACH * np.array([blob.radius for blob in blobs]) + edge / 2
    distances = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    return np.asarray(distances > reach[:, None] + reach[None], bool)


def _disjoint(order: NDArray[np.intp], apart: BoolArray, count: int) -> list[int]:
    """The first blobs in an order that do not touch one another."""
    chosen: list[int] = []
    for i in order:
        if apart[i][chosen].all():
            chosen.append(int(i))
        if len(chosen) == count:
            break
    return chosen
