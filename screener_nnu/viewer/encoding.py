"""Volumes as text in a page: 8 bits a voxel, differences of neighbours, gzip, base64."""

from __future__ import annotations

import gzip
from base64 import b64decode, b64encode
from dataclasses import dataclass

import numpy as np

from screener_nnu.plans import Shape

# HU of the 256 codes: steps of 2.5 HU where windows are narrow (fat to enhanced blood), 16 in lung
# and air, 20 and 80 in bone. Half a step is well below the noise of CT everywhere.
HU_LEVELS = np.concatenate(
    [
        np.arange(-1024, -160, 16.0),
        np.arange(-160, 240, 2.5),
        np.arange(240, 640, 20.0),
        np.arange(640, 2400, 80.0),
    ]
)
# Along these axes of (z, y, x) neighbours are subtracted: noise of HU would only grow along more
# than one, the smooth score shrinks along each.
HU_AXES = (2,)
SCORE_AXES = (2, 1, 0)
LABEL_AXES: tuple[int, ...] = ()


def encode_hu(hu: np.ndarray, levels: np.ndarray = HU_LEVELS) -> np.ndarray:
    """The code of the level next to each value (HU, or of a picture)."""
    return np.rint(np.interp(hu, levels, np.arange(len(levels)))).astype(np.uint8)


@dataclass(frozen=True)
class ScoreScale:
    """Codes of scores: 0 outside the body, 1 to 255 evenly from `low` to `high`."""

    low: float
    high: float

    @classmethod
    def of_scores(cls, scores: np.ndarray) -> ScoreScale:
        """Covers the scores of a body but for the lowest thousandth, where nobody looks."""
        low, high = float(np.quantile(scores, 0.001)), float(scores.max())
        return cls(low, high if high > low else low + 1.0)

    @property
    def values(self) -> np.ndarray:
        """Scores of the codes 1 to 255, `(255,)`."""
        return np.linspace(self.low, self.high, 255)

    def encode(self, score: np.ndarray, body: np.ndarray) -> np.ndarray:
        """Codes of a map."""
        steps = (score - self.low) * (254 / (self.high - self.low))
        codes = np.clip(np.rint(steps), 0, 254).astype(np.uint8) + np.uint8(1)
        return np.where(body, codes, np.uint8(0))


def pack(codes: np.ndarray, axes: tuple[int, ...]) -> str:
    """Text of a volume of bytes (z, y, x)."""
    for axis in axes:
        codes = np.diff(codes, axis=axis, prepend=np.zeros_like(codes.take([0], axis)))
    # No time in the header: the same volume gives the same page.
    return b64encode(gzip.compress(codes.tobytes(), compresslevel=7, mtime=0)).decode("ascii")


def unpack(text: str, shape: Shape, axes: tuple[int, ...]) -> np.ndarray:
    """The volume of a text that `pack` made."""
    codes = np.frombuffer(gzip.decompress(b64decode(text)), dtype=np.uint8).reshape(shape)
    for axis in axes:
        codes = np.cumsum(codes, axis=axis, dtype=np.uint8)
    return codes
