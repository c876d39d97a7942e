"""Evaluates anomaly maps and baselines against annotations, one case in memory at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.baselines import HuHistogram, baseline_names, is_baseline
from screener_nnu.evaluation.bins import (
    BINS_FILE,
    Bins,
    evaluation_signature,
    no_case_left,
    place_bins,
)
from screener_nnu.evaluation.cases import Measurement
from screener_nnu.evaluation.counting import count_cases
from screener_nnu.evaluation.froc import MIN_VOLUME_MM3
from screener_nnu.evaluation.pairing import CaseFiles, pair_cases
from screener_nnu.evaluation.records import CaseRecord, record_path
from screener_nnu.evaluation.summarise import (
    MethodResult,
    case_notes,
    summarise_method,
    undefined_figures,
)

PROTOCOLS = ("full", "paper")


@dataclass(frozen=True)
class Evaluation:
    """Figures of all methods on the same cases.

    Attributes:
        methods: result of each method, the maps first and then the baselines.
        skipped: reason for each case that could not be used.
        notes: remark on each case that was used but needs one.
        undefined: reason for each figure that these cases cannot give.
        protocol: `full`, or `paper` with the figures of its sampling as well.
    """

    methods: dict[str, MethodResult]
    skipped: dict[str, str]
    notes: dict[str, str]
    undefined: dict[str, str] = field(default_factory=dict)
    protocol: str = "full"


def evaluate_maps(
    methods: Mapping[str, Path],
    masks: Path,
    images: Path | None = None,
    hu_histogram: HuHistogram | None = None,
    labels: Collection[int] | None = None,
    thresholds: Mapping[str, float] | None = None,
    bootstrap: bool = True,
    processes: int = 1,
    seed: int = 0,
    folder: Path | None = None,
    bins: Path | None = None,
    min_volume_mm3: float = MIN_VOLUME_MM3,
    protocol: str = "full",
) -> Evaluation:
    """Evaluates maps and baselines on every case that has all its files.

    The voxels counted are the body mask united with the annotation. Two passes are made over the
    cases: a sample of scores places the bins of each method, then all scores are counted. What
    an earlier call left in the folder for the same files and settings is not computed again.

    Args:
        methods: folder of maps `<case>.nii.gz` and body masks `<case>_body.nii.gz`, by method; of
            pictures `<case>.tif` and `<case>_body.png`.
        masks: folder of annotations `<case>.nii.gz`, of pictures `<case>.png`.
        images: folder of CT in HU, or of pictures; without it the baselines are left out.
        hu_histogram: HU of the bodies of all planned scans; without it HU rarity is left out.
        labels: annotation values that are pathology; None takes all above zero.
        thresholds: threshold of a method chosen elsewhere; otherwise Dice is taken at the best
            pooled one, which is optimistic.
        bootstrap: whether to compute intervals over cases.
        processes: cases read at the same time.
        seed: seed of all that is drawn: places of bins, sampled voxels, bootstrap.
        folder: where bins and the records of the cases are kept; None keeps nothing.
        bins: bins of another evaluation to use, so that both merge.
        min_volume_mm3: least volume of a detection and of a lesion in the FROC; pixels of pictures.
        protocol: `full`, or `paper` for the figures of the paper's sampling as well.

    Raises:
        ScreenerError: when a folder does not exist, a method has an unfit name, the given bins
            do not fit, or no case can be used.
    """
    _check(methods, protocol)
    found, skipped = pair_cases(methods, masks, images)
    if not found:
        raise no_case_left(skipped)
    pictures = found[0].is_picture
    baselines = baseline_names(hu_histogram is not None, pictures) if images else []
    names = [*methods, *baselines]
    measurement = Measurement(
        tuple(labels) if labels is not None else None, hu_histogram, seed, min_volume_mm3
    )
    chosen = dict(thresholds or {})
    with tempfile.TemporaryDirectory() as temporary:
        kept = folder or Path(temporary)
        placed = _bins(bins, found, names, measurement, chosen, kept, processes)
        placed.save(kept / BINS_FILE)
        usable = [files for files in found if files.case not in placed.skipped]
        complete, failed = count_cases(usable, measurement, placed, kept, processes)
        skipped |= {**placed.skipped, **failed}
        if not complete:
            raise no_case_left(skipped)
        return summarise_records(kept, placed, complete, skipped, chosen, bootstrap, protocol, seed)


def summarise_records(
    folder: Path,
    bins: Bins,
    cases: Sequence[str],
    skipped: dict[str, str],
    thresholds: Mapping[str, float],
    bootstrap: bool,
    protocol: str,
    seed: int = 0,
) -> Evaluation:
    """Computes all figures from the records in a folder, one method in memory at a time.

    Args:
        folder: folder of an evaluation.
        bins: bins of the records.
        cases: cases that have a record of every method.
        skipped: reason for each case left out.
        thresholds: threshold of a method chosen elsewhere.
        bootstrap: whether to compute intervals over cases.
        protocol: `full` or `paper`.
        seed: seed of the bootstrap.

    Raises:
        ScreenerError: when a record is missing or damaged.
    """
    results: dict[str, MethodResult] = {}
    notes: dict[str, str] = {}
    undefined: dict[str, str] = {}
    for method, placed in bins.methods.items():
        records = [CaseRecord.load(record_path(folder, method, case)) for case in cases]
        results[method] = summarise_method(
            records, placed, thresholds.get(method), bootstrap, protocol, seed
        )
        notes |= case_notes(records, method)
        undefined |= undefined_figures(records)
    return Evaluation(results, skipped, notes, undefined, protocol)


def _check(methods: Mapping[str, Path], protocol: str) -> None:
    """Refuses names that a baseline has or that are no name of a folder, and other protocols."""
    if taken := [name for name in methods if is_baseline(name)]:
        raise ScreenerError(f"{', '.join(sorted(taken))}: the name of a baseline; choose another")
    for name in methods:
        if name != Path(name).name or name.startswith("."):
            raise ScreenerError(f"{name}: no name for a folder of records; choose another")
    if protocol not in PROTOCOLS:
        raise ScreenerError(f"{protocol}: no protocol; choose one of {', '.join(PROTOCOLS)}")


def _bins(
    given: Path | None,
    found: Sequence[CaseFiles],
    names: list[str],
    measurement: Measurement,
    thresholds: dict[str, float],
    folder: Path,
    processes: int,
) -> Bins:
    """Bins given, else those in the folder if placed by the same files and settings, or new."""
    if given is not None:
        return Bins.load(given).restrict(names)
    signature = evaluation_signature(found, names, measurement, thresholds)
    with suppress(ScreenerError):
        stored = Bins.load(folder / BINS_FILE)
        if stored.signature == signature:
            return stored
    placed = place_bins(found, measurement, thresholds, processes)
    return replace(placed, signature=signature)
