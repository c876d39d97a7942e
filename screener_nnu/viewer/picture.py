"""Values of pictures as they are shown: 8 bits as they are, 16 from the lowest to the highest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
_EIGHT_BITS = 255


def shown_range(values: NDArray[np.generic]) -> tuple[float, float]:
    """The values that are shown as black and as white."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > _EIGHT_BITS else (0.0, float(_EIGHT_BITS))


def shown_pixels(array: NDArray[np.generic]) -> Pixels:
    """A picture as it is shown, (H, W, 3).

    Args:
        array: values of the file, (1, H, W) or (3, 1, H, W) or (3, H, W).
    """
    values = array.reshape(-1, *array.shape[-2:])
    low, high = shown_range(values)
    scaled = (values.astype(np.float32) - low) * (_EIGHT_BITS / max(high - low, 1.0))
    channels = np.rint(scaled).astype(np.uint8)
    return np.moveaxis(np.broadcast_to(channels, (3, *channels.shape[1:])), 0, -1)
