"""Second pass over the cases: counts every voxel and keeps a record of each case and method."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.case_score import case_score
from screener_nnu.errors import CaseError
from screener_nnu.evaluation.bins import Bins, MethodBins
from screener_nnu.evaluation.cases import (
    CaseLabels,
    Measurement,
    iterate_scores,
    load_labels,
)
from screener_nnu.evaluation.froc import count_froc, least_voxels
from screener_nnu.evaluation.histograms import BinIndex, CaseHistogram
from screener_nnu.evaluation.lesions import LesionHistograms, Lesions, find_lesions
from screener_nnu.evaluation.pairing import CaseFiles, file_state
from screener_nnu.evaluation.records import (
    CaseRecord,
    SampledScores,
    record_path,
    stored_signature,
)
from screener_nnu.evaluation.workers import for_each_case

logger = logging.getLogger(__name__)


def count_cases(
    cases: Sequence[CaseFiles],
    measurement: Measurement,
    bins: Bins,
    folder: Path,
    processes: int,
) -> tuple[list[str], dict[str, str]]:
    """Counts the cases that have no record of the same files, settings and bins yet.

    Args:
        cases: cases with all their files.
        measurement: how to read and measure them.
        bins: bins of every method.
        folder: folder of the evaluation.
        processes: cases read at the same time.

    Returns:
        Cases that have a record of every method, and the reason for each other one.
    """
    counting = partial(count_case, measurement=measurement, bins=bins, folder=folder)
    complete: list[str] = []
    skipped: dict[str, str] = {}
    kept = 0
    counted = for_each_case(counting, cases, processes, "counting")
    for files, result in zip(cases, counted, strict=True):
        if isinstance(result, CaseError):
            skipped[files.case] = result.reason
        else:
            complete.append(files.case)
            kept += not result
    if kept:
        logger.info("%d of %d cases were counted before and are kept", kept, len(cases))
    return complete, skipped


def count_case(files: CaseFiles, measurement: Measurement, bins: Bins, folder: Path) -> list[str]:
    """Counts one case for every method that lacks its record.

    Returns:
        Methods counted.

    Raises:
        CaseError: when a file cannot be read, has another geometry, or holds NaN.
    """
    wanted = {}
    for method, placed in bins.methods.items():
        signature = record_signature(files, method, measurement, placed)
        if stored_signature(record_path(folder, method, files.case)) != signature:
            wanted[method] = json.dumps(signature)
    if not wanted:
        return []
    labels = load_labels(files, measurement.labels)
    lesions = find_lesions(labels.annotation)
    for method, scores in iterate_scores(files, labels, measurement.hu_histogram, wanted):
        record = count_scores(
            files.case, scores, labels, lesions, bins.methods[method], measurement
        )
        record.save(record_path(folder, method, files.case), wanted[method])
    return list(wanted)


def count_scores(
    case: str,
    scores: NDArray[np.float32],
    labels: CaseLabels,
    lesions: Lesions,
    bins: MethodBins,
    measurement: Measurement,
) -> CaseRecord:
    """Counts the scores of one method and case.

    Args:
        case: name of the case.
        scores: scores of the counted voxels `(n,)`.
        labels: which voxels these are.
        lesions: lesions of the case.
        bins: bins and thresholds of the method.
        measurement: how to measure.
    """
    full = CaseHistogram.count(case, scores, labels.annotated, bins.edges)
    annotated_bins = BinIndex(bins.edges).find(scores[labels.annotated])
    in_body = labels.body[labels.counted]
    return CaseRecord(
        # 32 bits, as the histograms of all cases of a method are in memory together.
        CaseHistogram(case, full.positive.astype(np.uint32), full.negative.astype(np.uint32)),
        LesionHistograms.count(lesions, annotated_bins),
        count_froc(
            scores,
            labels.counted,
            labels.annotated,
            lesions,
            bins.froc_thresholds,
            least_voxels(measurement.min_volume_mm3, labels.spacing),
        ),
        case_score(scores if in_body.all() else scores[in_body]),
        SampledScores.draw(scores, labels.annotated, case, measurement.seed),
        int(np.count_nonzero(scores < bins.edges[0]) + np.count_nonzero(scores > bins.edges[-1])),
    )


def record_signature(
    files: CaseFiles, method: str, measurement: Measurement, bins: MethodBins
) -> dict[str, Any]:
    """What a record belongs to: names, sizes and times of the files, settings and bins."""
    scores = files.maps.get(method, files.image)
    # The first map sets the geometry that all other files are held against.
    used = [next(iter(files.maps.values())), scores, files.body, files.mask]
    return {
        "files": [file_state(path) for path in used if path is not None],
        "settings": measurement.describe([method]),
        "bins": bins.digest,
    }
