"""Fits a density that needs no gradient to positions of training scans."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from screener_nnu.densities import StandardisedDensity
from screener_nnu.densities.standardised import as_map
from screener_nnu.errors import ScreenerError
from screener_nnu.preprocessing.memory import free_memory

logger = logging.getLogger(__name__)

# Positions that a density is fitted to, where the plan does not say: some 100 MB; of wide
# descriptors fewer, so that it is 1 GB at most.
_FITTED_ROWS, _FITTED_NUMBERS = 1_000_000, 250_000_000
_GB = 1e9
# Numbers of rows that are added at a time to a density that takes them part by part.
_PART_NUMBERS = 1 << 24


class ScanRows(NamedTuple):
    """Descriptors (n, d) and conditions (n, d_cond), or None, of positions of a scan."""

    y: Tensor
    c: Tensor | None


def rows_of_a_scan(scans: int, channels: int) -> int:
    """Positions of each of so many scans that a density is fitted to at once."""
    return max(1, min(_FITTED_ROWS, _FITTED_NUMBERS // channels) // scans)


def fit_to_rows(
    model: StandardisedDensity, scans: Iterable[ScanRows], generator: torch.Generator
) -> None:
    """Standardises by the rows of all scans, which are held at once, and fits the density to them.

    Args:
        model: the density, on any device.
        scans: read once.
        generator: on the CPU, of whatever the density draws.

    Raises:
        ScreenerError: see `check_memory` and `FittedDensity.fit`.
    """
    rows = _joined(list(_accumulated(model, scans)))
    check_memory(model, rows.c)
    model.fit(*rows, generator)


def fit_to_stream(model: StandardisedDensity, scans: Callable[[], Iterable[ScanRows]]) -> None:
    """The same for a density that asks for every row: scans are read twice, and few are held.

    Args:
        model: the density, on any device.
        scans: gives the same scans every time.

    Raises:
        ScreenerError: see `check_memory` and `StreamedDensity`.
    """
    coordinates = Coordinates()
    for rows in _accumulated(model, scans()):
        coordinates.add(rows.c)
    c = coordinates.table()
    check_memory(model, c)
    model.begin(c)
    for part in _parts(scans()):
        model.add(*part)
    model.finish()


def _accumulated(model: StandardisedDensity, scans: Iterable[ScanRows]) -> Iterator[ScanRows]:
    """The scans, whose statistics the model has when all are through."""
    for rows in scans:
        model.accumulate(*(None if m is None else as_map(m) for m in rows))  # type: ignore[arg-type]
        yield rows
    model.finish_statistics()


def _parts(scans: Iterable[ScanRows]) -> Iterator[ScanRows]:
    """Rows of several scans at a time."""
    held: list[ScanRows] = []
    for rows in scans:
        held.append(rows)
        if sum(one.y.numel() for one in held) >= _PART_NUMBERS:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: list[ScanRows]) -> ScanRows:
    conditions = [rows.c for rows in held if rows.c is not None]
    y = torch.cat([rows.y for rows in held])
    return ScanRows(y, torch.cat(conditions) if conditions else None)


class Coordinates:
    """All values that occur along each axis of conditions, which are few on a grid."""

    def __init__(self) -> None:
        """Starts without any."""
        self.axes: list[Tensor] = []

    def add(self, c: Tensor | None) -> None:
        """Adds conditions (n, d_cond); nothing where there are none."""
        if c is None:
            return
        found = [column.unique() for column in c.T]
        seen = self.axes or [values[:0] for values in found]
        self.axes = [torch.cat(pair).unique() for pair in zip(seen, found, strict=True)]

    def table(self) -> Tensor | None:
        """(N, d_cond), in whose columns all values stand; the first fills up shorter ones."""
        if not self.axes:
            return None
        most = max(map(len, self.axes))
        columns = [torch.cat([v, v[:1].expand(most - len(v))]) for v in self.axes]
        return torch.stack(columns, dim=1)


def check_memory(model: StandardisedDensity, c: Tensor | None) -> None:
    """Says what a large density takes, and refuses one that the memory does not hold.

    Args:
        model: the density, on its device.
        c: conditions (N, d_cond), of each coordinate all values that occur, or None.

    Raises:
        ScreenerError: this machine or its GPU has not so much memory left.
    """
    kept, fitting = model.state_bytes(c)
    if kept > _GB:
        logger.info(
            "the density takes %.1f GB, and %.1f GB while it is fitted", kept / _GB, fitting / _GB
        )
    device = model.y_mean.device
    left = [(fitting, free_memory())]
    if device.type == "cuda":
        left.append((kept, torch.cuda.mem_get_info(device)[0]))
    for needed, free in left:
        if free is not None and needed > free:
            raise ScreenerError(
                f"the density needs {needed / _GB:.1f} GB of memory, and {free / _GB:.1f} GB are "
                "free: keep fewer channels (density.descriptor_options.most_channels), choose "
                "larger cells (density.pooling) or fewer bins (density.options.bins, such as "
                "[1,28,28]), or set density.options.covariance to shared or diagonal"
            )
