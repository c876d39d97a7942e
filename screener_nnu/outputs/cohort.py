"""Scores of whole scans once all are predicted: of each alone, or of all of a run together."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from screener_nnu.densities.vector_scores import COHORT, REFERENCE
from screener_nnu.errors import ScreenerError, some
from screener_nnu.outputs.extras import read_record
from screener_nnu.outputs.scan_vectors import unpacked
from screener_nnu.plans import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VectorRequest:
    """How vectors of scans are scored.

    Attributes:
        mode: `reference`, where scores are those of the scan alone, or `cohort`.
        changes: settings of the cohort mode that differ from those of the fit.
    """

    mode: str = REFERENCE
    changes: dict[str, Any] = field(default_factory=dict)

    def refuse_unfit(self, detector: Any) -> None:
        """Refuses a cohort of a detector that has no scores of vectors.

        Raises:
            ScreenerError: it has none, or there are settings of a cohort without one.
        """
        if self.mode == COHORT and not _scores_vectors(detector):
            raise ScreenerError(
                "--msde_mode cohort is for detectors with scores of whole scans (vector_... in "
                "cases.csv), and this one has none: take --detector msde_pooled or msde"
            )
        if self.changes and self.mode != COHORT:
            raise ScreenerError(
                f"{', '.join(f'--msde_{name}' for name in self.changes)}: settings of the cohort "
                "mode; add --msde_mode cohort"
            )

    def refuse_parts(self) -> None:
        """Refuses a cohort of a part of the scans.

        Raises:
            ScreenerError: it is one.
        """
        if self.mode == COHORT:
            raise ScreenerError(
                "--msde_mode cohort scores all scans together, and --parts are predicted apart: "
                "leave --msde_mode out here, and once all parts are done run the command without "
                "--part and --parts, which leaves maps alone"
            )


def score_vectors(
    folder: Path, cases: Iterable[str], detector: Any, request: VectorRequest
) -> None:
    """Brings `vector_scores` in the records of cases to the mode that is asked for.

    In cohort mode the vectors of all cases are scored together, whichever run has predicted them.
    In reference mode those that an earlier run has scored in a cohort are scored again.

    Args:
        folder: of the maps and their records.
        cases: that this run was asked for and that have a map.
        detector: as it was loaded.
        request: see above.
    """
    if not _scores_vectors(detector):
        return
    records = {case: read_record(folder, case) for case in cases}
    if request.mode == REFERENCE:
        records = {c: r for c, r in records.items() if "cohort" in r.get("vector_scores", {})}
    kept = ((case, unpacked(record.get("vector"))) for case, record in records.items())
    vectors = {case: vector for case, vector in kept if vector is not None}
    lacking = [case for case in records if case not in vectors]
    if lacking:
        logger.warning(
            "no vector is kept of %s, so that they keep their scores: an earlier version predicted "
            "them, or they have no body; --overwrite predicts again", some(lacking)
        )  # fmt: skip
    names = list(vectors)
    if not names:
        return
    stacked = torch.from_numpy(np.stack(list(vectors.values())))
    stacked = stacked.to(detector.density.y_mean.device, torch.float32)
    if request.mode == COHORT:
        scores = detector.density.cohort_scores(stacked, names, **request.changes)
    else:
        scores = [detector.density.vector_scores(vector) for vector in stacked]
    for case, values in zip(names, scores, strict=True):
        write_json(folder / f"{case}.json", {**records[case], "vector_scores": values})


def _scores_vectors(detector: Any) -> bool:
    return bool(detector.by_position and detector.density.has_vector_scores)
