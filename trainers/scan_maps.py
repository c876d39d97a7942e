"""Pooled maps of whole scans, kept on disk, as what a density is fitted to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from screener_nnu.inference.map_store import MapFiles, MapStore, positions_of
from screener_nnu.inference.volume import cells_in_body
from screener_nnu.plans import Shape
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.trainers.density_maps import Maps
from screener_nnu.trainers.reading import CaseReader, Pinnable
from screener_nnu.trainers.score_statistics import require_finite
from screener_nnu.trainers.storing import (
    Networks,
    maps_elsewhere,
    remove_half_maps,
    store_all,
    store_maps,
)

_KEPT_BODIES = 512


@dataclass(frozen=True)
class Draw:
    """What a sample takes of a scan.

    Attributes:
        positions: of the body; 0 for the whole scan.
        reach: positions on each side that the density looks at. With 0, positions are drawn one by
            one; else a block is cut, as much larger, and its rim does not count.
    """

    positions: int = 0
    reach: int = 0


@dataclass(frozen=True)
class ScanSample(Pinnable):
    """Maps of a scan or of a part of it.

    Attributes:
        case: name of the scan.
        y, c: (1, channels, ...), c may be None; (1, channels, n, 1, 1) for scattered positions.
        inside: which positions count, (1, ...).
    """

    case: str
    y: torch.Tensor
    c: torch.Tensor | None
    inside: torch.Tensor


class ScanReader(CaseReader[ScanSample]):
    """Reads stored maps; it knows no network, so that worker processes can have it.

    Args:
        folder, names, seed, stage: see `CaseReader`.
        files: of the maps.
        draw: what to take of a scan.
    """

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        seed: int,
        stage: str,
        files: MapFiles,
        draw: Draw,
    ) -> None:
        """Opens nothing yet."""
        super().__init__(folder, names, seed, stage)
        self.files, self.draw = files, draw

    def read(self, case: str, generator: np.random.Generator) -> ScanSample:
        """The whole case, or positions of it; all of a case with fewer of them.

        Raises:
            ScreenerError: they hold values that are no finite numbers.
        """
        sample = self._drawn(case, generator)
        folder = self.files.y_folder.parent
        what = f"maps of {case} in {folder} (made anew where they are deleted)"
        require_finite(what, sample.y, sample.c)
        return sample

    def _drawn(self, case: str, generator: np.random.Generator) -> ScanSample:
        y, c = self.files.read(case)
        inside = _inside(self.folder, case, self.files.pooling, tuple(y.shape[2:]))
        found = np.flatnonzero(inside)
        wanted = self.draw.positions
        if not 0 < wanted < len(found):
            return ScanSample(case, y, c, torch.from_numpy(inside)[None])
        if not self.draw.reach:
            drawn = np.sort(generator.choice(found, wanted, replace=False, shuffle=False))
            every = torch.ones(1, wanted, 1, 1, dtype=torch.bool)
            some_c = None if c is None else positions_of(c, drawn)
            return ScanSample(case, positions_of(y, drawn), some_c, every)
        centre = np.unravel_index(generator.choice(found), inside.shape)
        outer, counted = _block(centre, inside.shape, self.draw)
        block = (slice(None), slice(None), *outer)
        return ScanSample(
            case,
            y[block].clone(),
            None if c is None else c[block].clone(),
            torch.from_numpy(inside[outer] & counted)[None],
        )


def _inside(folder: Path, case: str, pooling: Shape, cells: tuple[int, ...]) -> np.ndarray:
    """Positions more than half of which lie in the body."""
    bits = _packed_body(folder, case, pooling)
    return np.unpackbits(bits, count=int(np.prod(cells))).astype(bool).reshape(cells)


@lru_cache(maxsize=_KEPT_BODIES)
def _packed_body(folder: Path, case: str, pooling: Shape) -> np.ndarray:
    cases = CaseFolder(folder)
    inside = cells_in_body(cases.read(case, "body"), cases.shape(case, "hu"), pooling)
    return np.packbits(inside.numpy())


def _block(
    centre: tuple[np.intp, ...], cells: tuple[int, ...], draw: Draw
) -> tuple[tuple[slice, ...], np.ndarray]:
    """A block around a position, and which of its cells see all of their neighbours.

    It has about twice as many of those as positions are asked for: about half lie in the body. At
    the border of the scan neighbours are missing in prediction, too.
    """
    edge = max(3, round((2 * draw.positions) ** (1 / 3)))
    size = np.minimum(edge, cells)
    start = np.clip(np.subtract(centre, size // 2), 0, np.subtract(cells, size))
    first = np.maximum(start - draw.reach, 0)
    last = np.minimum(start + size + draw.reach, cells)
    counted = np.zeros(last - first, dtype=bool)
    counted[tuple(slice(a, a + n) for a, n in zip(start - first, size, strict=True))] = True
    return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True)), counted


class ScanSource:
    """Whole scans whose maps are kept on disk, for scans that fit in a tile or two.

    The networks run once a scan instead of once a step; nothing is mirrored.

    Args:
        folder: of the cases.
        store: of their maps.
        draw: what a sample of training takes of a scan.
    """

    def __init__(self, folder: Path, store: MapStore, draw: Draw) -> None:
        """Keeps where to read."""
        self.folder, self.store, self.draw = folder, store, draw

    def fill(self, names: Iterable[str], networks: Networks | None = None) -> None:
        """Makes all maps before the first step; those on disk stay, broken cases are left out.

        Args:
            names: of the cases.
            networks: for workers in place of this process, where there are some.
        """
        cases = CaseFolder(self.folder)
        remove_half_maps(self.store.files.y_folder, self.store.files.c_folder)
        elsewhere = networks and partial(maps_elsewhere, networks=networks)
        here = lambda case, _: store_maps(self.store, cases, case)  # noqa: E731
        store_all(dict.fromkeys(names), here, "maps", "left out", elsewhere)

    def reader(
        self, names: tuple[str, ...], seed: int, stage: str, all_positions: bool = False
    ) -> ScanReader:
        """See `MapSource`."""
        draw = Draw() if all_positions else self.draw
        return ScanReader(self.folder, names, seed, stage, self.store.files, draw)

    def maps(self, sample: ScanSample, flips: list[int]) -> Maps:
        """As they were stored."""
        device = self.store.device
        c = None if sample.c is None else sample.c.to(device, non_blocking=True)
        y = sample.y.to(device, non_blocking=True)
        return y, c, sample.inside.to(device, non_blocking=True)
