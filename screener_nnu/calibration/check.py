"""Counts components of other scans above the thresholds of a calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from screener_nnu.calibration.components import count_components, tail_of
from screener_nnu.calibration.false_positives import FalsePositives
from screener_nnu.calibration.measure import each_usable
from screener_nnu.calibration.scans import ScanSource, ScoredScan
from screener_nnu.case_score import case_score
from screener_nnu.errors import ScreenerError

_NOT_COUNTED = -1


@dataclass
class Checked:
    """What is kept of the checked scans: some kilobytes each, however large and many they are.

    Attributes:
        false_positives: of the calibration, for its T thresholds and V least volumes.
        case_scores: nats, one a scan.
        counts: components of each scan `(V, T)`; -1 where too many voxels lie above.
    """

    false_positives: FalsePositives
    case_scores: list[float] = field(default_factory=list)
    counts: list[NDArray[np.int32]] = field(default_factory=list)

    @property
    def scans(self) -> int:
        """Checked scans."""
        return len(self.counts)

    def above(self, threshold: float, volume_ml: float) -> NDArray[np.int32]:
        """Components of each scan `(N,)` above one of the calibration's thresholds (nats).

        Args:
            threshold: as `FalsePositives.threshold_for` gives it.
            volume_ml: least volume, as it gives it.

        Raises:
            ScreenerError: too many voxels of a scan lie above it.
        """
        row = self.false_positives.volumes_ml.index(volume_ml)
        place = int(np.flatnonzero(self.false_positives.thresholds == threshold)[0])
        found = np.array([counts[row, place] for counts in self.counts], dtype=np.int32)
        if (found == _NOT_COUNTED).any():
            raise ScreenerError(
                f"so many voxels of a scan lie above {threshold:.4g} nats that its components were "
                "not counted"
            )
        return found


def check_scan(
    case: str, scan: ScoredScan, false_positives: FalsePositives
) -> tuple[NDArray[np.int32], float]:
    """Components of a scan `(V, T)`, -1 where too many voxels lie above, and its case score.

    Raises:
        CaseError: its scores cannot be used.
    """
    scores = scan.in_body(case)
    thresholds = false_positives.thresholds.astype(np.float32)
    tail = tail_of(scan.score, scan.body, scan.voxel_ml, float(thresholds[0]))
    reached = thresholds >= np.float32(tail.floor)
    volumes = false_positives.volumes_ml
    counts = np.full((len(volumes), thresholds.size), _NOT_COUNTED, dtype=np.int32)
    if reached.any():
        counts[:, reached] = count_components(tail, thresholds[reached], volumes)
    return counts, case_score(scores)


def check_scans(scans: ScanSource, false_positives: FalsePositives) -> Checked:
    """Counts components of scans; those that cannot be used are left out with the reason.

    Raises:
        ScreenerError: none could be used.
    """
    found, _ = each_usable(scans, partial(check_scan, false_positives=false_positives))
    counts = [of_scan for of_scan, _ in found.values()]
    return Checked(false_positives, [score for _, score in found.values()], counts)
