"""Thresholds for a chosen number of false positives per scan, without a label.

Held-out scans are taken as nearly free of pathology: every component above a threshold is counted
as false. Where they hold some, thresholds come out too high and false positives too few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.bootstrap import case_weights
from screener_nnu.least_volume import MINIMUM_ML

VOLUMES_ML = (0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Least volumes (ml) of components that are counted side by side."""
SAMPLES = 1000
_INTERVAL = (2.5, 97.5)

FloatArray = NDArray[np.float64]
Range = tuple[float, float]


@dataclass(frozen=True)
class FalsePositiveThreshold:
    """A threshold for a number of false positives per scan.

    Attributes:
        asked: false positives per scan.
        volume_ml: least volume of the components that were counted.
        threshold: nats; components of voxels above it count.
        interval: 95 % of the thresholds that other held-out scans would have given (bootstrap).
        held_out: components per held-out scan above the threshold.
        left_out: components per scan when each scan is left out of the choice of its threshold;
            NaN with one scan.
        left_out_interval: 95 % of it over scans (bootstrap).
    """

    asked: float
    volume_ml: float
    threshold: float
    interval: Range
    held_out: float
    left_out: float
    left_out_interval: Range


@dataclass(frozen=True)
class FalsePositives:
    """Components of N held-out scans above T thresholds.

    Attributes:
        thresholds: rising (nats) `(T,)`; nothing lies above the last one.
        volumes_ml: least volumes (ml), rising `(V,)`.
        counts: components `(N, V, T)`.
    """

    thresholds: FloatArray
    volumes_ml: tuple[float, ...]
    counts: NDArray[np.int32]

    @property
    def scans(self) -> int:
        """Held-out scans N."""
        return int(self.counts.shape[0])

    def threshold_for(
        self, per_scan: float, volume_ml: float = MINIMUM_ML
    ) -> FalsePositiveThreshold:
        """The lowest threshold from which on up there are no more than so many per scan.

        Args:
            per_scan: components per scan.
            volume_ml: least volume (ml) of a component. Of the counted volumes the largest that
                does not exceed it is taken, so that there are rather fewer than asked for.

        Raises:
            ScreenerError: so few, or so many, that these scans cannot tell.
        """
        row, counts = self._counts(volume_ml)
        self._check(per_scan, counts)
        place = _lowest(counts.mean(axis=0), per_scan)
        left_out = _left_out(counts, per_scan)
        weights = case_weights(self.scans, SAMPLES, seed=0) / self.scans
        drawn = self.thresholds[_lowest(weights @ counts, per_scan)]
        return FalsePositiveThreshold(
            per_scan,
            self.volumes_ml[row],
            float(self.thresholds[place]),
            _range(drawn),
            float(counts[:, place].mean()),
            float(left_out.mean()) if left_out.size else float("nan"),
            _range(weights @ left_out) if left_out.size else (float("nan"), float("nan")),
        )

    def per_scan(self, threshold: float, volume_ml: float = MINIMUM_ML) -> float:
        """Components per held-out scan above a threshold (nats); NaN below all counted ones."""
        _, counts = self._counts(volume_ml)
        place = int(np.searchsorted(self.thresholds, threshold, side="right")) - 1
        return float(counts[:, place].mean()) if place >= 0 else float("nan")

    def _counts(self, volume_ml: float) -> tuple[int, FloatArray]:
        smaller = [row for row, v in enumerate(self.volumes_ml) if v <= volume_ml * (1 + 1e-9)]
        if not smaller:
            raise ScreenerError(
                f"components below {self.volumes_ml[0]:g} ml were not counted: ask for a least "
                f"volume of {self.volumes_ml[0]:g} ml or more"
            )
        return smaller[-1], self.counts[:, smaller[-1]].astype(float)

    def _check(self, per_scan: float, counts: FloatArray) -> None:
        lowest = 1.0 / self.scans
        if not per_scan >= lowest * (1 - 1e-9):
            raise ScreenerError(
                f"{self.scans} held-out scan(s) cannot tell a threshold for {per_scan:g} false "
                f"positives per scan: that is less than one in all of them. Ask for "
                f"{_rounded_up(lowest):g} or more, or calibrate with more scans "
                "(screener_calibrate --images)"
            )
        most = float(counts.mean(axis=0).max())
        if per_scan >= most:
            raise ScreenerError(
                f"held-out scans have at most {most:.2f} components per scan at any threshold "
                f"from {self.thresholds[0]:.4g} nats up, and {per_scan:g} were asked for: ask for "
                "fewer, or give a percentile such as p99"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "thresholds": [float(f"{value:.9g}") for value in self.thresholds],
            "volumes_ml": list(self.volumes_ml),
            "counts": self.counts.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FalsePositives:
        """Reads what `to_dict` wrote.

        Raises:
            ScreenerError: numbers that do not belong together.
        """
        thresholds = np.asarray(values["thresholds"], dtype=np.float64)
        volumes = tuple(float(value) for value in values["volumes_ml"])
        counts = np.asarray(values["counts"], dtype=np.int32)
        shaped = counts.ndim == 3 and counts.shape[1:] == (len(volumes), thresholds.size)
        if not shaped or not counts.size or (counts < 0).any():
            raise ScreenerError("its counts of components do not fit their thresholds")
        rising = (np.diff(thresholds) > 0).all() and (np.diff(volumes) > 0).all()
        if not np.isfinite(thresholds).all() or not rising or counts[..., -1].any():
            raise ScreenerError("its thresholds do not rise until nothing is left")
        return cls(thresholds, volumes, counts)


def _lowest(per_scan: FloatArray, asked: float) -> Any:
    """First threshold `(...)` from which on up components `(..., T)` are no more than asked for.

    Components may be few again at low thresholds, where all of them have grown together.
    """
    worst = np.maximum.accumulate(per_scan[..., ::-1], axis=-1)[..., ::-1]
    return np.argmax(worst <= asked * (1 + 1e-9), axis=-1)


def _left_out(counts: FloatArray, asked: float) -> FloatArray:
    """Components of each scan above the threshold that the others give `(N,)`; empty for one."""
    scans = counts.shape[0]
    if scans < 2:
        return np.zeros(0)
    others = (counts.sum(axis=0) - counts) / (scans - 1)
    return counts[np.arange(scans), _lowest(others, asked)]


def _range(values: FloatArray) -> Range:
    low, high = np.percentile(values, _INTERVAL)
    return float(low), float(high)


def _rounded_up(value: float) -> float:
    return float(np.ceil(value * 100 - 1e-9) / 100)
