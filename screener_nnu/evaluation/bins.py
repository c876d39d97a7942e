"""Bins and thresholds of every method, shared by all cases of an evaluation and beyond it.

They are placed in a first pass over the cases, by a sample of their scores.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.cases import (
    Measurement,
    iterate_scores,
    load_labels,
)
from screener_nnu.evaluation.froc import place_thresholds
from screener_nnu.evaluation.histograms import quantile_edges
from screener_nnu.evaluation.metrics import lowest_above
from screener_nnu.evaluation.pairing import CaseFiles, file_state
from screener_nnu.evaluation.records import DAMAGED
from screener_nnu.evaluation.workers import for_each_case
from screener_nnu.files import replacing

BINS_FILE = "bins.npz"
# Scores a method and class that place the bins, over all cases: some sixty for each bin.
_SAMPLES = 2_000_000
_LEAST_SAMPLES_PER_CASE = 2_000


@dataclass(frozen=True)
class MethodBins:
    """Where the scores of one method are counted.

    Attributes:
        edges: lower bounds of the bins `(K,)`.
        froc_thresholds: rising thresholds of the detections `(T,)`.
    """

    edges: NDArray[np.float32]
    froc_thresholds: NDArray[np.float32]

    @cached_property
    def digest(self) -> str:
        """Hash that is equal for equal bins and thresholds."""
        content = self.edges.tobytes() + b"|" + self.froc_thresholds.tobytes()
        return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True)
class Bins:
    """Bins of all methods of an evaluation.

    Attributes:
        methods: bins by method, the maps first and then the baselines.
        signature: hash of the files and settings that the bins were placed by.
        skipped: cases found unusable while the bins were placed, with the reason.
    """

    methods: Mapping[str, MethodBins]
    signature: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes the bins so that a reader sees the old file or the whole new one."""
        about = {
            "methods": list(self.methods),
            "signature": self.signature,
            "skipped": dict(self.skipped),
        }
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
        for number, bins in enumerate(self.methods.values()):
            arrays[f"edges_{number}"] = bins.edges
            arrays[f"froc_thresholds_{number}"] = bins.froc_thresholds
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Bins:
        """Reads bins from their file, or from the folder of an evaluation.

        Raises:
            ScreenerError: when there are none or the file is damaged.
        """
        path = path / BINS_FILE if path.is_dir() else path
        if not path.is_file():
            raise ScreenerError(f"{path} does not exist; name the {BINS_FILE} of an evaluation")
        try:
            with np.load(path, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                methods = {
                    method: MethodBins(
                        stored[f"edges_{number}"], stored[f"froc_thresholds_{number}"]
                    )
                    for number, method in enumerate(about["methods"])
                }
        except (*DAMAGED, TypeError, zipfile.LargeZipFile) as error:
            raise ScreenerError(f"{path} holds no bins or is damaged; evaluate again") from error
        return cls(methods, about["signature"], about["skipped"])

    def restrict(self, names: list[str]) -> Bins:
        """Bins of some methods, in their order.

        Raises:
            ScreenerError: when one of them has no bins here.
        """
        if missing := [name for name in names if name not in self.methods]:
            raise ScreenerError(
                f"no bins of {', '.join(missing)} in --bins, which holds "
                f"{', '.join(self.methods)}; give the maps the same names in both evaluations"
            )
        return Bins({name: self.methods[name] for name in names})


@dataclass(frozen=True)
class _CaseSample:
    """Scores of some voxels of a case.

    Attributes:
        annotated: of annotated voxels.
        other: of other voxels.
        stands_for: other voxels of the case for each one drawn.
        extremes: lowest and highest score of all counted voxels.
    """

    annotated: NDArray[np.float32]
    other: NDArray[np.float32]
    stands_for: float
    extremes: tuple[float, float]


@dataclass
class _Gathered:
    """Samples of one method over the cases."""

    cases: list[_CaseSample] = field(default_factory=list)

    def place(self, included: list[float]) -> MethodBins:
        """Bins that spread annotated and other scores evenly, and thresholds of the FROC."""
        annotated = np.concatenate([case.annotated for case in self.cases])
        other = np.concatenate([case.other for case in self.cases])
        extremes = [value for case in self.cases for value in case.extremes]
        weights = np.concatenate([np.full(c.other.size, c.stands_for) for c in self.cases])
        # Without a single voxel that is not annotated no rate is defined; any threshold will do.
        thresholds = place_thresholds(other, weights) if other.size else np.unique(annotated)[:1]
        return MethodBins(
            quantile_edges([annotated, other], include=extremes + included), thresholds
        )


def place_bins(
    found: Sequence[CaseFiles],
    measurement: Measurement,
    thresholds: Mapping[str, float],
    processes: int,
) -> Bins:
    """Samples every case, and places the bins of each method.

    Args:
        found: cases with all their files.
        measurement: how to read them.
        thresholds: scores by method that must be the edge of a bin.
        processes: cases read at the same time.

    Returns:
        Bins, with the reason for each case that cannot be used.

    Raises:
        ScreenerError: when no case can be used.
    """
    size = max(_SAMPLES // max(len(found), 1), _LEAST_SAMPLES_PER_CASE)
    gathered: dict[str, _Gathered] = {}
    skipped: dict[str, str] = {}
    sampling = partial(_sample_case, measurement=measurement, size=size)
    sampled_cases = for_each_case(sampling, found, processes, "placing bins")
    for files, sampled in zip(found, sampled_cases, strict=True):
        if isinstance(sampled, CaseError):
            skipped[files.case] = sampled.reason
            continue
        for method, sample in sampled.items():
            gathered.setdefault(method, _Gathered()).cases.append(sample)
    if not gathered:
        raise no_case_left(skipped)
    methods = {
        method: samples.place(
            [float(lowest_above(thresholds[method]))] if method in thresholds else []
        )
        for method, samples in gathered.items()
    }
    return Bins(methods, skipped=skipped)


def no_case_left(skipped: Mapping[str, str]) -> ScreenerError:
    """The error that no case can be evaluated, with the first reasons."""
    reasons = "; ".join(f"{case}: {reason}" for case, reason in list(skipped.items())[:5])
    return ScreenerError(
        f"no case can be evaluated ({reasons or 'the folders hold no maps'}): map and annotation "
        "are CASE.nii.gz of one name, and CASE_body.nii.gz lies beside the map; of pictures they "
        "are CASE.tif, CASE.png and CASE_body.png"
    )


def _sample_case(files: CaseFiles, measurement: Measurement, size: int) -> dict[str, _CaseSample]:
    """Up to `size` scores of annotated and of other voxels, by method."""
    labels = load_labels(files, measurement.labels)
    rng = np.random.default_rng([measurement.seed, zlib.crc32(files.case.encode())])
    # The same voxels for every method, so that no method's bins are luckier than another's.
    annotated = _draw(np.flatnonzero(labels.annotated), size, rng)
    others = np.flatnonzero(~labels.annotated)
    other = _draw(others, size, rng)
    return {
        method: _CaseSample(
            scores[annotated],
            scores[other],
            others.size / max(other.size, 1),
            (float(scores.min()), float(scores.max())),
        )
        for method, scores in iterate_scores(files, labels, measurement.hu_histogram)
    }


def _draw(places: NDArray[np.intp], size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return places if places.size <= size else places[rng.integers(0, places.size, size)]


def evaluation_signature(
    cases: Iterable[CaseFiles],
    names: list[str],
    measurement: Measurement,
    thresholds: dict[str, float],
) -> str:
    """Hash of all that decides where the bins lie."""
    described = {
        "cases": [
            [
                file_state(path)
                for path in [*files.maps.values(), files.body, files.mask, files.image]
            ]
            for files in cases
        ],
        "methods": names,
        "settings": measurement.describe(names),
        "thresholds": thresholds,
    }
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
