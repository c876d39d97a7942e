"""Validation scans with synthetic anomalies, whichever detector is to find them."""

from __future__ import annotations

import logging

import numpy as np

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import Plan
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.preprocessing.modality import CT
from screener_nnu.sampling.spread import spread
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.cases import AnomalousCase, anomalous_case

logger = logging.getLogger(__name__)

#: Scans that are painted at most, with each kind of anomaly.
MAX_SCANS = 12


class PaintedScans:
    """Up to 12 validation scans, each with every kind of synthetic anomaly.

    Args:
        cases: folder of the cases.
        plan: whose split says which scans.

    Attributes:
        names: of the scans; they give each other foreign tissue.
        kinds: of the anomalies.
    """

    def __init__(self, cases: CaseFolder, plan: Plan) -> None:
        """Takes the validation scans of the plan."""
        self.cases, self.settings = cases, plan.settings
        self.kinds: tuple[str, ...] = KINDS
        self.names = tuple(spread(self.settings.split.validation, MAX_SCANS))
        self._voxels: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def painted(self, case: str, kind: str) -> AnomalousCase:
        """A scan with anomalies, the same ones every time.

        Raises:
            CaseError: it has no place for them.
        """
        settings = self.settings
        names, preprocessing = self.names, settings.preprocessing
        return anomalous_case(self.cases, case, names, kind, preprocessing, settings.seed)

    def _stored(self, case: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Voxels of anomalies and other voxels of the body, of what is scored of a scan.

        Raises:
            CaseError: it has no place for anomalies of this kind.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Paints, or reads what is stored; a scan that misses a kind of anomaly is left out of all.

        A kind that would cost all scans, or of pictures more than half of them, is left out itself:
        in a smooth picture no movement shows.

        Raises:
            ScreenerError: no scan is left.
        """
        for case in self.names:
            for kind in KINDS:
                try:
                    self._voxels[case, kind] = self._stored(case, kind)
                except CaseError as error:
                    logger.warning("left out of the synthetic anomalies: %s", error)
        ct = self.settings.preprocessing.modality == CT
        least, self.kinds = 1 if ct else -(-len(self.names) // 2), KINDS
        while len(self._whole()) < least and len(self.kinds) > 1:
            rarest = min(self.kinds, key=lambda kind: sum(k == kind for _, k in self._voxels))
            self.kinds = tuple(kind for kind in self.kinds if kind != rarest)
            logger.warning("left out of the figure: anomalies of kind %s", rarest)
        if not self._whole():
            raise ScreenerError(
                "synthetic anomalies cannot be painted into any validation scan: plan with more "
                "scans, or larger ones"
            )
        self.names = self._whole()

    def _whole(self) -> tuple[str, ...]:
        """Scans that have anomalies of every kind."""
        return tuple(c for c in self.names if all((c, k) in self._voxels for k in self.kinds))
