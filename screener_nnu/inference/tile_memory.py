"""How large a tile may be: the plan's, or less where memory is short.

The networks normalise over what they see, so a map depends on its tile: the plan's tile stays the
upper limit however much memory is free, and a smaller one is taken only when the plan's would not
fit, with a warning.
"""

from __future__ import annotations

import logging
from functools import lru_cache

import numpy as np
import torch

from screener_nnu.networks.unet import low_precision
from screener_nnu.plans import Shape, StockPlan
from screener_nnu.preprocessing.memory import free_memory

logger = logging.getLogger(__name__)

# Measured peaks of a UNet without gradients, per voxel of the input and channel of its finest
# stage: 40 to 44 in float32, 19 to 22 in bfloat16; and its output in float32.
_BYTES_PER_CHANNEL = 46
_BYTES_PER_OUTPUT = 5
_USABLE = 0.8
# Small tiles leave a GPU idle: so many voxels are given to it at once.
_VOXELS_AT_ONCE = 1 << 20


def affordable_tile(
    tile: Shape, plan: StockPlan, outputs: int, device: torch.device, half: bool
) -> Shape:
    """The plan's tile, or what free memory allows.

    Args:
        tile: of the plan.
        plan: for width and strides of the network.
        outputs: channels of the network's output.
        device: of the network.
        half: whether the plan allows bfloat16 on the processor.
    """
    width = plan.architecture["arch_kwargs"]["features_per_stage"][0]
    with low_precision(device, half):
        halved = torch.is_autocast_enabled(device.type)
    per_voxel = width * _BYTES_PER_CHANNEL * (0.5 if halved else 1)
    per_voxel += outputs * _BYTES_PER_OUTPUT
    return _fitting_tile(tuple(tile), plan.divisor, per_voxel, device)  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _fitting_tile(tile: Shape, divisor: Shape, per_voxel: float, device: torch.device) -> Shape:
    """Decided once a process: all scans of a run get the same tile, whatever is under way."""
    free = _free_bytes(device)
    if free is None:
        return tile
    fits = largest_tile(tile, np.array(divisor), int(_USABLE * free / per_voxel))
    if fits != tile:
        logger.warning(
            "%.1f GB of memory are free: tiles of %s voxels in place of the plan's %s, so that the "
            "map differs slightly from that of a larger machine",
            free / 1e9, fits, tuple(tile),
        )  # fmt: skip
    return fits


def largest_tile(tile: Shape, divisor: np.ndarray, voxels: int) -> Shape:
    """Takes steps of the divisor from the longest axis until a tile has at most so many voxels.

    Example:
        >>> largest_tile((64, 96, 96), np.array([16, 32, 32]), 300_000)
        (48, 64, 96)
    """
    z, y, x = tile
    shape = np.array([z, y, x])
    while shape.prod() > voxels and (shape > divisor).any():
        axis = int(np.where(shape > divisor, shape, 0).argmax())
        # To a multiple below: the plan's tile need not be one.
        shape[axis] = (shape[axis] - 1) // divisor[axis] * divisor[axis]
    z, y, x = (int(n) for n in shape)
    return z, y, x


def tiles_at_once(tile: Shape, largest: Shape, device: torch.device) -> int:
    """Tiles that are worth one call: a processor is busy with one, and so is a full device.

    Args:
        tile: that is used.
        largest: of the plan; a smaller one is used where memory is short.
        device: of the network.
    """
    if device.type != "cuda" or tuple(tile) != tuple(largest):
        return 1
    return max(1, _VOXELS_AT_ONCE // int(np.prod(tile)))


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    return free_memory()
