"""How many scans can be prepared at once: an estimate of their memory, and what is free."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.reading import Source, read_size

# Measured peaks: reading and cropping take 12 bytes a raw voxel, CLAHE and the body mask 60 a
# stored one; a process with its libraries takes 0.6 GB.
_BYTES_PER_RAW_VOXEL = 12
_BYTES_PER_STORED_VOXEL = 60
_BYTES_PER_PROCESS = 600_000_000
_USABLE = 0.8


def estimate_bytes(path: Source, settings: PreprocessingSettings) -> int:
    """Peak memory of preparing a scan, an upper bound from its header (bytes)."""
    voxels, volume = read_size(path)
    stored = volume / float(np.prod(settings.storage_spacing))
    return int(
        _BYTES_PER_PROCESS + _BYTES_PER_RAW_VOXEL * voxels + _BYTES_PER_STORED_VOXEL * stored
    )


def bounded_processes(estimates: Iterable[int], wanted: int, free: int | None) -> int:
    """Processes that fit into memory even when the largest scans meet.

    Args:
        estimates: peak of each scan (bytes).
        wanted: processes asked for, at least 1.
        free: free memory (bytes); None when the system does not tell, which bounds nothing.
    """
    if free is None:
        return wanted
    left, fit = _USABLE * free, 0
    for need in sorted(estimates, reverse=True)[:wanted]:
        left -= need
        if left < 0:
            break
        fit += 1
    return max(1, fit)


def free_memory() -> int | None:
    """Memory that can still be used (bytes), within the limit of a batch job or container."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    lines = (line.split() for line in meminfo.read_text().splitlines())
    free = {words[0]: int(words[1]) * 1024 for words in lines if len(words) > 1}["MemAvailable:"]
    return min([free, *_group_limits()])


def _group_limits() -> list[int]:
    """What the control groups of this process leave it (bytes)."""
    membership = Path("/proc/self/cgroup")
    root = Path("/sys/fs/cgroup")
    left = []
    lines = membership.read_text().splitlines() if membership.is_file() else []
    for path in (line.split("::", 1)[1] for line in lines if line.startswith("0::")):
        group = root / path.lstrip("/")
        for folder in [group, *group.parents]:
            if (folder / "memory.max").is_file() and (folder / "memory.current").is_file():
                limit = (folder / "memory.max").read_text().strip()
                if limit != "max":
                    left.append(int(limit) - int((folder / "memory.current").read_text()))
    return left
