"""What is kept of a method's scores on synthetic anomalies: counts, and one slice a kind."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from screener_nnu.evaluation.froc import FrocCounts

_COUNTS, _OVERLAPS, _FROC, _SCORES = "counts_", "overlaps_", "froc_", "score_"
_CHANGES, _SLICES = "changes_", "slice_"


@dataclass(frozen=True)
class Judged:
    """Counts of one method.

    Attributes:
        cases: names of the scans.
        counts: annotated and other voxels a bin, (scans, 2, K), by kind of anomaly.
        case_scores: by name, of each scan without anomalies, then with each kind,
            (1 + kinds, scans).
        overlaps: shares of the anomalies' voxels a bin, each anomaly one in all, (scans, K), by
            kind; see `LesionHistograms.overlap`.
        froc: anomalies found and false positives of each scan, by kind.
        changes: annotated voxels a bin by how much they have changed, see `counting.CHANGES`,
            (scans, classes, K), by kind.
        slices: one of the first scan (H, W), by kind, see `slices_figure.shown_slice`.
    """

    cases: tuple[str, ...]
    counts: dict[str, np.ndarray]
    case_scores: dict[str, np.ndarray] = field(default_factory=dict)
    overlaps: dict[str, np.ndarray] = field(default_factory=dict)
    froc: dict[str, tuple[FrocCounts, ...]] = field(default_factory=dict)
    changes: dict[str, np.ndarray] = field(default_factory=dict)
    slices: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of anomalies."""
        return tuple(self.counts)

    def to_bytes(self) -> bytes:
        """A compressed NumPy archive."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"cases": np.array(self.cases), "kinds": np.array(self.kinds)}
        arrays |= {f"{_COUNTS}{kind}": values for kind, values in self.counts.items()}
        arrays |= {f"{_OVERLAPS}{kind}": values for kind, values in self.overlaps.items()}
        arrays |= {f"{_FROC}{kind}": _table(scans) for kind, scans in self.froc.items()}
        arrays |= {f"{_CHANGES}{kind}": values for kind, values in self.changes.items()}
        arrays |= {f"{_SLICES}{kind}": values for kind, values in self.slices.items()}
        arrays |= {f"{_SCORES}{name}": values for name, values in self.case_scores.items()}
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_file(cls, path: Path) -> Judged:
        """Reads what `to_bytes` gave."""
        with np.load(path) as stored:

            def known(prefix: str) -> list[str]:
                return [key for key in stored if key.startswith(prefix)]

            kinds = [str(kind) for kind in stored["kinds"]]
            return cls(
                tuple(str(case) for case in stored["cases"]),
                {kind: stored[f"{_COUNTS}{kind}"] for kind in kinds},
                {key.removeprefix(_SCORES): stored[key] for key in known(_SCORES)},
                {key.removeprefix(_OVERLAPS): stored[key] for key in known(_OVERLAPS)},
                {key.removeprefix(_FROC): _scans(stored[key]) for key in known(_FROC)},
                {key.removeprefix(_CHANGES): stored[key] for key in known(_CHANGES)},
                {key.removeprefix(_SLICES): stored[key] for key in known(_SLICES)},
            )


def _table(scans: tuple[FrocCounts, ...]) -> np.ndarray:
    """Rows (scans, 1 + 2 T): anomalies, those found and false positives at T thresholds."""
    return np.stack([[scan.lesions, *scan.found, *scan.false_positives] for scan in scans])


def _scans(table: np.ndarray) -> tuple[FrocCounts, ...]:
    """What `_table` was made of."""
    half = (table.shape[1] + 1) // 2
    return tuple(
        FrocCounts(int(row[0]), row[1:half].astype(np.int32), row[half:].astype(np.int32))
        for row in table
    )
