"""Methods side by side: what the report of a comparison is written of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from screener_nnu.ablation.figures import Figure, Row


@dataclass(frozen=True)
class Compared:
    """Figures of one method on one family of anomalies.

    Attributes:
        row: AUROC and case scores.
        figures: `auroc` and those of `FURTHER`, by name and column.
        differences: of their means to those of the first detector, on the same draws of scans.
        changes: AUROC by how much anomalous voxels have changed, see `figures.change_draws`.
    """

    row: Row
    figures: dict[str, dict[str, Figure]]
    differences: dict[str, Figure]
    changes: dict[str, Figure]


@dataclass(frozen=True)
class Table:
    """All methods on one family of anomalies.

    Attributes:
        family: of `FAMILIES`.
        rows: by method; what are no detectors are baselines without learning.
        detectors: in order.
        scans, left_out: with anomalies, and those that have no room for a kind.
        shares: of the anomalous voxels, by class of change.
    """

    family: str
    rows: dict[str, Compared]
    detectors: Sequence[str]
    scans: Sequence[str]
    left_out: Sequence[str]
    shares: dict[str, float]

    @property
    def baselines(self) -> list[Compared]:
        """The best first."""
        return [one for method, one in self.rows.items() if method not in self.detectors]
