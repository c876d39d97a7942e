"""Vectors of scans in the records of their cases."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STORED = np.dtype("<f4")


def packed(vector: NDArray[np.float32]) -> str:
    """A vector (d,) as one short line of JSON, bit for bit.

    Example:
        >>> unpacked(packed(np.array([0.1, 2], dtype=np.float32)))
        array([0.1, 2. ], dtype=float32)
    """
    return base64.b64encode(vector.astype(_STORED).tobytes()).decode()


def unpacked(text: Any) -> NDArray[np.float32] | None:
    """The vector of such a line; None where it is none."""
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), _STORED)
    except (TypeError, ValueError):
        return None
