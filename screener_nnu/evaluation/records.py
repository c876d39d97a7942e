"""What is kept of one case and method: everything that a figure needs, in a small file.

Records over the same bins merge, wherever they were made, and a stopped evaluation goes on from
those that it wrote.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.froc import FrocCounts
from screener_nnu.evaluation.histograms import CaseHistogram
from screener_nnu.evaluation.lesions import LesionHistograms
from screener_nnu.files import replacing

HISTOGRAMS = "histograms"
DAMAGED = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)
VOXELS_PER_CLASS = 1000
"""Voxels that the paper's protocol draws of each class and scan, fewer where there are fewer."""


@dataclass(frozen=True)
class SampledScores:
    """The sampling of the paper: a thousand lesion and a thousand other voxels of each scan.

    Pooled, they give AUROC at equal weight of scans and classes. Small and large lesions, short
    and long scans then weigh alike, which the figures over all voxels do not do; it is kept to
    compare with the paper.

    References:
        Goncharov et al., ICLR 2026 (https://arxiv.org/abs/2502.08321).

    Attributes:
        annotated: scores of annotated voxels, up to `VOXELS_PER_CLASS`.
        other: of other voxels that count, up to `VOXELS_PER_CLASS`.
    """

    annotated: NDArray[np.float32]
    other: NDArray[np.float32]

    @classmethod
    def draw(
        cls, scores: NDArray[np.float32], annotated: NDArray[np.bool_], case: str, seed: int
    ) -> SampledScores:
        """Draws voxels of a case without repeats, the same ones for every method.

        Args:
            scores: of the counted voxels `(n,)`.
            annotated: which of them are annotated `(n,)`.
            case: name of the case, part of the seed.
            seed: seed of the evaluation.
        """
        rng = np.random.default_rng([seed, zlib.crc32(case.encode())])
        places = [np.flatnonzero(annotated), np.flatnonzero(~annotated)]
        for kind, here in enumerate(places):
            if here.size > VOXELS_PER_CLASS:
                places[kind] = rng.choice(here, VOXELS_PER_CLASS, replace=False, shuffle=False)
        return cls(*(scores[here] for here in places))


@dataclass(frozen=True)
class CaseRecord:
    """Counts of one case and method.

    Attributes:
        histogram: annotated and other voxels by bin.
        lesions: histogram of each lesion.
        froc: lesions found and false positives by threshold.
        case_score: score of the case as a whole.
        sampled: scores drawn by the paper's protocol.
        outside: voxels whose score lies below or above all bins.
    """

    histogram: CaseHistogram
    lesions: LesionHistograms
    froc: FrocCounts
    case_score: float
    sampled: SampledScores
    outside: int

    def save(self, path: Path, signature: str) -> None:
        """Writes the record so that a reader sees the old file or the whole new one.

        Args:
            path: the `.npz` file.
            signature: of the files and settings that it was made from.
        """
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                signature=np.array(signature),
                case=np.array(self.histogram.case),
                positive=self.histogram.positive,
                negative=self.histogram.negative,
                lesion_sizes=self.lesions.sizes,
                lesion_entries=np.stack(
                    [self.lesions.lesions, self.lesions.bins, self.lesions.counts]
                ),
                froc_lesions=np.array(self.froc.lesions),
                froc=np.stack([self.froc.found, self.froc.false_positives]),
                case_score=np.array(self.case_score),
                sampled_annotated=self.sampled.annotated,
                sampled_other=self.sampled.other,
                outside=np.array(self.outside),
            )

    @classmethod
    def load(cls, path: Path) -> CaseRecord:
        """Reads a record.

        Raises:
            ScreenerError: when the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(
                    CaseHistogram(str(stored["case"]), stored["positive"], stored["negative"]),
                    LesionHistograms(stored["lesion_sizes"], *stored["lesion_entries"]),
                    FrocCounts(int(stored["froc_lesions"]), *stored["froc"]),
                    float(stored["case_score"]),
                    SampledScores(stored["sampled_annotated"], stored["sampled_other"]),
                    int(stored["outside"]),
                )
        except DAMAGED as error:
            raise ScreenerError(
                f"{path} is missing or damaged; delete it and run that evaluation again"
            ) from error


def stored_signature(path: Path) -> dict[str, Any] | None:
    """Signature of a record as `signature_of` made it, None where there is no readable one."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return json.loads(str(stored["signature"]))
    except DAMAGED:
        return None


def record_path(folder: Path, method: str, case: str) -> Path:
    """File of the record of a case and method in the folder of an evaluation."""
    return folder / HISTOGRAMS / method / f"{case}.npz"
