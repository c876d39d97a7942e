"""Copies of training scans with synthetic anomalies, prepared like the scans themselves."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from screener_nnu.errors import CaseError
from screener_nnu.plans import ScreenerSettings
from screener_nnu.preprocessing.case_files import CaseFolder, write_case
from screener_nnu.preprocessing.prepare import PreparedImage
from screener_nnu.sampling.spread import at_most
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.cases import PAINTING_VERSION, anomalous_case

logger = logging.getLogger(__name__)

#: Scans that are painted at most: more add little, and each has to be scored by the teacher.
MOST_COPIES = 100


class PaintedCopies:
    """Up to 100 scans, each with synthetic anomalies of one kind, prepared like all others.

    Args:
        cases_folder: of the prepared scans.
        settings: of the plan; its seed decides the anomalies.
        names: of scans that may be painted; they give each other foreign tissue.

    Attributes:
        folder: of the copies, which have the names of their scans.
        names: of the scans that are painted.
    """

    def __init__(
        self, cases_folder: Path, settings: ScreenerSettings, names: Sequence[str]
    ) -> None:
        """Paints nothing yet."""
        self.cases, self.settings = CaseFolder(cases_folder), settings
        self.names = at_most(tuple(names), MOST_COPIES)
        identity = [self.names, settings.seed, settings.preprocessing.identity(), PAINTING_VERSION]
        text = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
        self.folder = cases_folder.with_name(f"{cases_folder.name}_painted") / text

    def fill(self, names: Sequence[str]) -> None:
        """Paints what is missing of some of the scans, or older than its scan.

        A scan that cannot be read, or has no place for its kind, is reported and left out.
        """
        missing = [name for name in names if not self._is_current(name)]
        for name in tqdm(missing, desc="painted copies", unit="scan", disable=not missing):
            try:
                self._paint(name)
            except CaseError as error:
                logger.warning("left out of the painted copies: %s", error)

    def _paint(self, name: str) -> None:
        settings, kind = self.settings.preprocessing, KINDS[self.names.index(name) % len(KINDS)]
        made = anomalous_case(self.cases, name, self.names, kind, settings, self.settings.seed)
        frame = self.cases.frame(name)
        frame = replace(frame, storage_shape=frame.grid_shape)
        body = made.body.astype(np.uint8)
        write_case(self.folder, name, PreparedImage(made.hu, made.equalised, body, frame, settings))

    def _is_current(self, name: str) -> bool:
        copies = CaseFolder(self.folder)
        if copies.whole_marker(name) is None:
            return False
        try:
            return copies.changed(name) >= self.cases.changed(name)
        except CaseError:  # of the scan itself, which is reported where it is read
            return True
