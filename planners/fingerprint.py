"""Fingerprint of unlabelled CT: sizes, spacings and the HU histogram inside the body.

One JSON line a case goes to `screener_fingerprint_cases.jsonl` as soon as it is known, so that a
killed run goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.files import replacing
from screener_nnu.preprocessing.memory import bounded_processes, free_memory
from screener_nnu.preprocessing.reading import read_image, read_size
from screener_nnu.preprocessing.workers import run_cases

logger = logging.getLogger(__name__)

HU_EDGES = np.arange(-1024.0, 3072.0 + 1, 4.0)
RECORDS_FILE = "screener_fingerprint_cases.jsonl"
_BODY_THRESHOLD = -500.0
_BODY_BLOCK_MM = 5.0
_BYTES_PER_VOXEL = 14  # what was read, as float32, turned, and the masks of the body


def analyse_case(case: str, path: Path) -> dict[str, Any]:
    """Record of one case: shape, spacing, body box (voxels) and HU histogram of body voxels.

    Raises:
        CaseError: the image cannot be used.
    """
    from screener_nnu.preprocessing.body import body_box, body_mask

    raw = read_image(path, case)
    box = body_box(raw.array, raw.spacing, _BODY_THRESHOLD, _BODY_BLOCK_MM)
    image = raw.array[box]
    inside = image[body_mask(image, raw.spacing, _BODY_THRESHOLD)]
    if inside.size == 0:
        raise CaseError(case, "no body was found; remove it from imagesTr or check that it is CT")
    counts, _ = np.histogram(np.clip(inside, HU_EDGES[0], HU_EDGES[-1] - 1), bins=HU_EDGES)
    return {
        "case": case,
        "image": str(path),
        "shape": list(raw.array.shape),
        "spacing": [float(s) for s in raw.spacing],
        "body_shape": list(image.shape),
        "body_volume_ml": float(inside.size * np.prod(raw.spacing) / 1000),
        "hu_counts": {str(i): int(n) for i, n in enumerate(counts) if n},
    }


def _analyse(case: str, path: Path) -> dict[str, Any]:
    try:
        return analyse_case(case, path)
    except CaseError as error:
        return {"skipped": error.reason}
    except MemoryError:
        return {"skipped": "memory ran out: run again with fewer processes (-np) or more memory"}


def collect_records(
    cases: Mapping[str, Path], folder: Path, processes: int
) -> list[dict[str, Any]]:
    """Records of all cases; those already in `folder` are not computed again."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RECORDS_FILE
    known = {r["case"]: r for r in _read_records(file) if cases.get(r["case"]) is not None}
    known = {n: r for n, r in known.items() if r["image"] == str(cases[n]) and "skipped" not in r}
    todo = {name: path for name, path in cases.items() if name not in known}
    _rewrite(file, known.values())
    with file.open("a") as stream:
        for record in tqdm(
            _run(todo, processes), total=len(todo), desc="fingerprint", disable=not todo
        ):
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            known[record["case"]] = record
            if "skipped" in record:
                logger.warning("skipped %s: %s", record["case"], record["skipped"])
    return [known[name] for name in sorted(known)]


def _run(todo: Mapping[str, Path], processes: int) -> Iterable[dict[str, Any]]:
    """Records as they are made; a worker that the system kills costs its own case at most."""
    memory = (_BYTES_PER_VOXEL * read_size(path)[0] for path in todo.values())
    processes = bounded_processes(memory, processes, free_memory()) if todo else 0
    alone = processes <= 1 or len(todo) <= 1
    outcomes = run_cases(
        _analyse, dict(todo), 0 if alone else processes, lambda reason: {"skipped": reason}
    )
    for case, record in outcomes:
        yield {"case": case, "image": str(todo[case]), **record}


def _read_records(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    records = []
    for line in file.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # the line that a kill cut off
            continue
    return records


def _rewrite(file: Path, records: Iterable[dict[str, Any]]) -> None:
    with replacing(file) as temporary:
        temporary.write_text("".join(json.dumps(r) + "\n" for r in records))


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The fingerprint: nnU-Net's keys, body sizes and the pooled HU histogram.

    Raises:
        ScreenerError: no case can be used; the message holds the reasons.
    """
    used = [r for r in records if "skipped" not in r]
    skipped = {r["case"]: r["skipped"] for r in records if "skipped" in r}
    if not used:
        reasons = "\n".join(f"  {case}: {reason}" for case, reason in skipped.items())
        raise ScreenerError(f"no usable image among {len(records)}:\n{reasons}")
    counts = np.zeros(len(HU_EDGES) - 1)
    for record in used:
        for index, number in record["hu_counts"].items():
            counts[int(index)] += number
    relative = [np.prod(r["body_shape"]) / np.prod(r["shape"]) for r in used]
    return {
        "spacings": [r["spacing"] for r in used],
        "shapes_after_crop": [r["body_shape"] for r in used],
        "body_extents_mm": [
            [n * s for n, s in zip(r["body_shape"], r["spacing"], strict=True)] for r in used
        ],
        "foreground_intensity_properties_per_channel": {"0": intensity_properties(counts)},
        "median_relative_size_after_cropping": float(np.median(relative)),
        "hu_histogram": {"edges": HU_EDGES.tolist(), "counts": counts.tolist()},
        "cases": {r["case"]: {k: r[k] for k in ("image", "shape", "spacing")} for r in used},
        "skipped": skipped,
    }


def intensity_properties(counts: np.ndarray) -> dict[str, float]:
    """nnU-Net's intensity properties (HU) of body voxels, from the histogram."""
    centres = (HU_EDGES[:-1] + HU_EDGES[1:]) / 2
    total = counts.sum()
    mean = float((counts * centres).sum() / total)
    cumulative = np.cumsum(counts) / total

    def percentile(q: float) -> float:
        return float(centres[np.searchsorted(cumulative, q)])

    present = np.flatnonzero(counts)
    return {
        "mean": mean,
        "median": percentile(0.5),
        "std": float(np.sqrt((counts * (centres - mean) ** 2).sum() / total)),
        "min": float(centres[present[0]]),
        "max": float(centres[present[-1]]),
        "percentile_00_5": percentile(0.005),
        "percentile_99_5": percentile(0.995),
    }
