"""Every random draw is a function of (seed, stage, step, sample), whatever process makes it."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def numpy_generator(seed: int, stage: str, *counters: int) -> np.random.Generator:
    """NumPy generator of a sample; the same arguments give the same draws."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), *counters])


def torch_generator(device: torch.device, seed: int, stage: str, *counters: int) -> torch.Generator:
    """Torch generator on `device`; the same arguments give the same draws there."""
    key = np.random.SeedSequence([seed, zlib.crc32(stage.encode()), *counters])
    generator = torch.Generator(device=device)
    generator.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))
    return generator


def shuffled_index(count: int, seed: int, stage: str, position: int) -> int:
    """Index drawn without replacement: each pass over `count` items has an order of its own."""
    turn, place = divmod(position, count)
    return int(numpy_generator(seed, f"{stage} order", turn).permutation(count)[place])
