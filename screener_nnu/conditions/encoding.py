"""Sine and cosine of positions, for the conditions that are made of them."""

from __future__ import annotations

import torch

#: Periods over the range [0, 1] of a coordinate: 2^-1 .. 2^2 (authors' settings).
FREQUENCIES = (0.5, 1.0, 2.0, 4.0)
#: Channels of three encoded coordinates.
ENCODED_CHANNELS = 3 * 2 * len(FREQUENCIES)


def sine_cosine(unit: torch.Tensor) -> list[torch.Tensor]:
    """Sine and cosine of 2 pi f u, frequency by frequency.

    Args:
        unit: coordinates u in [0, 1], of any shape.

    Returns:
        Eight tensors of that shape: sine, then cosine, of each of `FREQUENCIES`.
    """
    angles = [2 * torch.pi * frequency * unit for frequency in FREQUENCIES]
    return [wave for angle in angles for wave in (angle.sin(), angle.cos())]
