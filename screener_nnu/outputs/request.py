"""What is asked for beside the maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from screener_nnu.calibration.record import Calibration
from screener_nnu.errors import ScreenerError
from screener_nnu.findings.find import LIMIT, MINIMUM_ML

REQUEST_VERSION = 1


@dataclass(frozen=True)
class OutputRequest:
    """What is made of each map.

    Attributes:
        threshold: of findings, and where that of a page starts (nats).
        findings: list the places above the threshold, in `<case>_findings.*`.
        dicom: a DICOM parametric map, and with findings a DICOM SEG, of scans that came as DICOM.
        page: a page to look at, with a picture.
        minimum_ml, limit: smallest volume of a finding, and most findings that are listed.
        calibration: what the model's scores mean; None where that is not known.
        model_name: shown on pages.
    """

    threshold: float | None = None
    findings: bool = False
    dicom: bool = False
    page: bool = False
    minimum_ml: float = MINIMUM_ML
    limit: int = LIMIT
    calibration: Calibration | None = None
    model_name: str = ""

    def __post_init__(self) -> None:
        """Refuses findings without a threshold.

        Raises:
            ScreenerError: there is no threshold.
        """
        if self.findings and self.threshold is None:
            raise ScreenerError(
                "findings are the places above a threshold: give --threshold, in nats, or as p99.9 "
                "or fp1 where the model is calibrated"
            )

    def percentile(self, score: float) -> float | None:
        """Place of a score (nats) among the voxels of held-out scans, 0 to 100."""
        if self.calibration is None:
            return None
        return float(self.calibration.percentile(np.array([score]))[0])

    def to_dict(self) -> dict[str, Any]:
        """What two runs must have in common for the files of one to serve the other."""
        return {
            "version": REQUEST_VERSION,
            "threshold": self.threshold,
            "findings": [self.minimum_ml, self.limit] if self.findings else None,
            "dicom": self.dicom,
            "page": self.page,
            "calibration": None if self.calibration is None else self.calibration.model,
        }
