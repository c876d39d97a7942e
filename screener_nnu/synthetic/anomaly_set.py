"""A test set without annotators: synthetic anomalies in unlabelled scans, written to disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from screener_nnu.errors import ScreenerError
from screener_nnu.ownership import own_folder
from screener_nnu.plans import write_json
from screener_nnu.preprocessing.reading import Source
from screener_nnu.synthetic.anomalies import KINDS, check_kind
from screener_nnu.synthetic.anomaly_case import CaseFiles, Request, synthesize_case
from screener_nnu.synthetic.anomaly_positions import PositionScores
from screener_nnu.synthetic.anomaly_preview import write_preview
from screener_nnu.synthetic.anomaly_settings import BlobSettings
from screener_nnu.workers import part_of, run_cases

logger = logging.getLogger(__name__)

REPORT_FILE = "placement.json"
#: AUROC of a position alone above which a test set is no test of a method that knows positions.
POSITIONAL_LIMIT = 0.6


def synthesize_test_set(
    images: Mapping[str, Source],
    output: Path,
    seed: int,
    kinds: Sequence[str] = KINDS,
    settings: BlobSettings | None = None,
    processes: int = 0,
    part: int = 0,
    parts: int = 1,
) -> dict[str, Any]:
    """Writes every scan once per kind of anomaly, with its mask, in the geometry of the input.

    Files are `<kind>/images/<case>_0000.nii.gz`, `<kind>/masks/<case>.nii.gz`,
    `<kind>/placements/<case>.json`, `<kind>/preview.png` and `placement.json`. What is complete is
    left as it is, so that a killed run goes on and scans or kinds can be added later.

    Args:
        images: path (or DICOM series) of the HU image of each case.
        output: folder to write to.
        seed: every draw is a function of seed, case name and kind; the donor of foreign tissue is
            another scan, chosen so that it rarely changes when scans are added or taken away.
        kinds: some of `KINDS`.
        settings: number, size and contrast of the anomalies.
        processes: scans at a time; 0 works in this process.
        part: which share of the scans, counted from 0; shares can run on several machines.
        parts: number of shares.

    Returns:
        What `placement.json` holds: `seed`, `settings`, and for each kind in the folder `scans`,
        `anomalies`, `volume_ml` and `pooled_auroc`, the AUROC that position alone reaches.

    Raises:
        ScreenerError: when there is no image, the folder was made with other settings, or no scan
            could be used; or there is no such part.
        ValueError: when a kind is unknown.
    """
    for kind in kinds:
        check_kind(kind)
    if not images:
        raise ScreenerError("no scan was given: name a folder of images or a data set")
    settings = settings or BlobSettings()
    share = part_of(images, part, parts)
    claim_folder(output, seed, settings)
    # Tissue is taken from scans of all parts.
    request = Request(dict(images), output, seed, tuple(kinds), settings)
    skipped = _run(request, share, processes)
    if share and len(skipped) == len(share):
        raise ScreenerError("no scan could be used; the reasons stand above")
    others = images.keys() - share.keys()
    known = {case: why for case, why in _skipped(output).items() if case in others}
    report = _head(seed, settings) | {"skipped": known | skipped, "kinds": summarise(output)}
    write_json(output / REPORT_FILE, report)
    _warn_of_given_away_places(report["kinds"])
    sound = {case: source for case, source in images.items() if case not in report["skipped"]}
    for kind in kinds:
        write_preview(output / kind, sound)
    return report


def highest_position(values: Mapping[str, Any]) -> tuple[str, float]:
    """The position that tells most of a kind's anomalies, and its AUROC."""
    position, figure = max(values["pooled_auroc"].items(), key=lambda item: item[1])
    return position, figure


def _warn_of_given_away_places(kinds: dict[str, Any]) -> None:
    for kind, values in kinds.items():
        position, figure = highest_position(values)
        if figure > POSITIONAL_LIMIT:
            logger.warning(
                "%s: places give the anomalies away, %s alone has an AUROC of %.2f (%.1f is the "
                "limit): add scans, or lower --radius or --body_share",
                kind,
                position,
                figure,
                POSITIONAL_LIMIT,
            )


def claim_folder(output: Path, seed: int, settings: BlobSettings) -> None:
    """Makes the folder, or finds that it was made with the same settings.

    Raises:
        ScreenerError: it was made with others; the message says which, and how to go on. Or it
            cannot be written to.
    """
    owned = own_folder(output)
    head = _head(seed, settings)
    path = output / REPORT_FILE
    if not path.is_file():
        write_json(path, head | {"kinds": {}})
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        before = {"seed": stored["seed"], **stored["settings"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ScreenerError(
            f"{path} is not that of a test set ({error!r}): give another folder (-o), or delete it"
        ) from error
    asked = {"seed": seed, **head["settings"]}
    other = [
        f"{name} {before.get(name)} (now {asked.get(name)})"
        for name in sorted(before | asked)
        if before.get(name) != asked.get(name)
    ]
    if other:
        raise ScreenerError(
            f"{output} was made with other settings: {', '.join(other)}. Ask for the same ones to "
            "go on, give another folder (-o), or delete this one"
        )
    owned.adopt([path, *_earlier_files(output)])


def _earlier_files(output: Path) -> Iterator[Path]:
    """What a test set consists of, beside its report."""
    for kind in KINDS:
        yield output / kind / "preview.png"
        for pattern in ("images/*_0000.nii.gz", "masks/*.nii.gz", "placements/*.json"):
            yield from (output / kind).glob(pattern)


def _head(seed: int, settings: BlobSettings) -> dict[str, Any]:
    """Seed and settings as JSON holds them."""
    return {"seed": seed, "settings": json.loads(json.dumps(asdict(settings)))}


def _skipped(output: Path) -> dict[str, str]:
    """Why scans of earlier runs, or of other parts, have no anomalies."""
    skipped: dict[str, str] = json.loads((output / REPORT_FILE).read_text()).get("skipped", {})
    return skipped


def _run(request: Request, share: dict[str, Source], processes: int) -> dict[str, str]:
    """Works the scans off; returns why each one that was skipped has no anomalies."""
    skipped: dict[str, str] = {}
    work = partial(synthesize_case, request=request)
    outcomes = run_cases(work, share, processes, died=str)
    for case, reason in tqdm(outcomes, total=len(share), unit="scan"):
        if reason:
            skipped[case] = reason
            logger.warning("%s is skipped: %s", case, reason)
    return skipped


def summarise(output: Path) -> dict[str, Any]:
    """What lies in the folder, by kind: scans, anomalies, volume, and AUROC of position alone."""
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        pooled, scans = PositionScores(), {}
        for case, record in CaseFiles.records(output / kind):
            pooled = pooled + PositionScores.from_dict(record.pop("positions"))
            scans[case] = record
        if scans:
            kinds[kind] = {
                "anomalies": sum(len(record["blobs"]) for record in scans.values()),
                "volume_ml": round(sum(record["volume_ml"] for record in scans.values()), 1),
                "pooled_auroc": pooled.auroc(),
                "scans": scans,
            }
    return kinds
