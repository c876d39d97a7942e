"""Slices of one Series Instance UID parted into volumes: geometry first, then phases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from screener_nnu.dicom.records import Series, SeriesInfo, Slice
from screener_nnu.dicom.stacking import SAME_POSITION

# Direction cosines and pixel sizes (part of a mm) that differ by less are equal up to rounding.
_TOLERANCE = 1e-3
_CLOCKS = ("acquisition number", "temporal position", "acquisition time", "content time")


def split_series(info: SeriesInfo, slices: Sequence[Slice]) -> list[Series]:
    """Volumes of a series: slices of one orientation, matrix and pixel size, and of one phase.

    A volume is parted into phases only where positions repeat, by the first of acquisition number,
    temporal position, acquisition time and content time that leaves none repeated.
    """
    pieces = [phase for group in _by_geometry(slices) for phase in _phases(group)]
    if len(pieces) == 1:
        return [Series(info, tuple(pieces[0]))]
    # A fixed order, so that a part keeps its number however the files are called.
    pieces.sort(key=lambda piece: (-len(piece), min((s.number, s.sop_uid) for s in piece)))
    return [replace(Series(info, tuple(p)), part=i) for i, p in enumerate(pieces, 1)]


def _by_geometry(slices: Sequence[Slice]) -> list[list[Slice]]:
    groups: list[list[Slice]] = []
    for one in slices:
        for group in groups:
            if _alike(group[0], one):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _alike(a: Slice, b: Slice) -> bool:
    return (
        (a.shape, a.localizer, a.position is None) == (b.shape, b.localizer, b.position is None)
        and _near(a.orientation, b.orientation)
        and _near(a.spacing, b.spacing)
    )


def _near(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> bool:
    if a is None or b is None:
        return a is b
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) < _TOLERANCE


def _phases(slices: list[Slice]) -> list[list[Slice]]:
    if not _repeats(slices):
        return [slices]
    for clock in range(len(_CLOCKS)):
        groups: dict[str, list[Slice]] = {}
        for one in slices:
            groups.setdefault(one.clocks[clock], []).append(one)
        # A clock that ticks with every slice parts a volume into slices, not into phases.
        if len(groups) > 1 and all(len(g) > 1 and not _repeats(g) for g in groups.values()):
            return [groups[key] for key in sorted(groups)]
    return [slices]


def _repeats(slices: Sequence[Slice]) -> bool:
    """Whether two different images lie at one position; copies of a file are no different image."""
    places: Counter[tuple[float, ...]] = Counter()
    for position in {s.identity: s.position for s in slices}.values():
        if position is not None:
            places[tuple(round(value / SAME_POSITION) for value in position)] += 1
    return any(count > 1 for count in places.values())
