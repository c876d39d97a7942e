"""How the voxels of a case are read and measured, and what tells one measurement from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from screener_nnu.evaluation.baselines import NEED_HISTOGRAM
from screener_nnu.evaluation.bins import MethodBins
from screener_nnu.evaluation.cases import CaseFiles, HuHistogram
from screener_nnu.evaluation.froc import MIN_VOLUME_MM3

# Part of every signature: a change of what is counted must count anew.
_FORMAT = 2


@dataclass(frozen=True)
class Measurement:
    """Settings of the counts; travels to worker processes.

    Attributes:
        labels: annotation values that are pathology; None takes all above zero.
        hu_histogram: HU of the bodies of all planned scans, for the rarity baselines.
        seed: seed of everything drawn.
        min_volume_mm3: least volume of a detection and of a lesion in the FROC.
    """

    labels: tuple[int, ...] | None = None
    hu_histogram: HuHistogram | None = None
    seed: int = 0
    min_volume_mm3: float = MIN_VOLUME_MM3

    def describe(self, methods: Iterable[str]) -> dict[str, Any]:
        """The settings that change the counts of some methods, for a signature."""
        histogram = None
        if self.hu_histogram is not None and not NEED_HISTOGRAM.isdisjoint(methods):
            content = self.hu_histogram.edges.tobytes() + self.hu_histogram.counts.tobytes()
            histogram = hashlib.sha256(content).hexdigest()[:16]
        return {
            "format": _FORMAT,
            "labels": sorted(self.labels) if self.labels is not None else None,
            "hu_histogram": histogram,
            "seed": self.seed,
            "min_volume_mm3": self.min_volume_mm3,
        }


def record_signature(
    files: CaseFiles, method: str, measurement: Measurement, bins: MethodBins
) -> dict[str, Any]:
    """What a record belongs to: names, sizes and times of the files, settings and bins."""
    scores = files.maps.get(method, files.image)
    # The first map sets the geometry that all other files are held against.
    used = [next(iter(files.maps.values())), scores, files.body, files.mask]
    return {
        "files": [_state(path) for path in used if path is not None],
        "settings": measurement.describe([method]),
        "bins": bins.digest,
    }


def evaluation_signature(
    cases: Iterable[CaseFiles],
    names: list[str],
    measurement: Measurement,
    thresholds: dict[str, float],
) -> str:
    """Hash of all that decides where the bins lie."""
    described = {
        "cases": [
            [_state(path) for path in [*files.maps.values(), files.body, files.mask, files.image]]
            for files in cases
        ],
        "methods": names,
        "settings": measurement.describe(names),
        "thresholds": thresholds,
    }
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _state(path: Path | None) -> list[Any] | None:
    """Name, size in bytes and time of the last change of a file."""
    if path is None:
        return None
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]
