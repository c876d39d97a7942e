"""What earlier runs have left of a data set: its plans, and the fingerprints they came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError
from screener_nnu.paths import FINGERPRINT_FILE
from screener_nnu.plans import Plan, read_plan, write_json
from screener_nnu.preprocessing.source_state import SourceState

Fingerprint = dict[str, Any]

INTENSITIES = "foreground_intensity_properties_per_channel"
# What a plan depends on, beside the names of the cases.
_PLANNED_FROM = ("spacings", "body_extents_mm", INTENSITIES, "hu_histogram")
# Of other modalities than CT.
_OF_OTHERS = ("modality", "highest")
_EARLIER = "screener_fingerprint_{}.json"


def plans_of(folder: Path) -> Iterator[tuple[Path, Plan]]:
    """The plans of a preprocessed data set; other files, and damaged ones, are passed over."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield path, read_plan(path)
        except (ScreenerError, OSError):
            continue


def read_fingerprint(folder: Path) -> Fingerprint | None:
    """The stored fingerprint of a data set; None without one.

    Raises:
        ScreenerError: it is damaged.
    """
    path = folder / FINGERPRINT_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(values, dict):
        raise _damaged(path, "it holds no names")
    return values


def read_sources(folder: Path) -> dict[str, tuple[Path, SourceState | None]]:
    """Image of each case, and its state, as the fingerprint of a data set has them.

    Raises:
        ScreenerError: there is no fingerprint, or it is damaged.
    """
    fingerprint = read_fingerprint(folder)
    path = folder / FINGERPRINT_FILE
    if fingerprint is None:
        raise ScreenerError(f"no {path.absolute()}: run screener_plan_and_preprocess first")
    try:
        # That of an earlier version has the images that can be used only, without their states.
        entries = fingerprint.get("sources") or fingerprint["cases"]
        return {
            case: (Path(entry["image"]), SourceState.from_dict(entry.get("source")))
            for case, entry in entries.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, repr(error)) from error


def _damaged(path: Path, reason: object) -> ScreenerError:
    return ScreenerError(
        f"{path.absolute()} is damaged ({reason}): delete it and run screener_plan_and_preprocess "
        "again, which makes it from what it knows of each scan"
    )


def keep_planned_from(folder: Path, fingerprint: Fingerprint | None, new: Fingerprint) -> None:
    """Keeps what plans were made from before another fingerprint takes its place."""
    basis = planning_basis(fingerprint)
    if basis is None or basis == planning_basis(new):
        return
    if any(_made_from(basis, plan) for _, plan in plans_of(folder)):
        name = hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:8]
        write_json(folder / _EARLIER.format(name), basis)


def planned_from(folder: Path, plan: Plan) -> Iterator[Fingerprint]:
    """The kept fingerprints that a plan may have been made from."""
    for path in sorted(folder.glob(_EARLIER.format("*"))):
        try:
            basis = planning_basis(json.loads(path.read_text()))
        except ValueError:
            continue
        if basis is not None and _made_from(basis, plan):
            yield basis


def _made_from(basis: Fingerprint, plan: Plan) -> bool:
    return bool(plan.values.get(INTENSITIES) == basis[INTENSITIES])


def planning_basis(fingerprint: Any) -> Fingerprint | None:
    """The part of a fingerprint that a plan depends on; None where something of it is missing."""
    if not isinstance(fingerprint, dict) or not {*_PLANNED_FROM, "cases"} <= fingerprint.keys():
        return None
    values = {key: fingerprint[key] for key in _PLANNED_FROM}
    values |= {key: fingerprint[key] for key in _OF_OTHERS if key in fingerprint}
    return {**values, "cases": {case: {} for case in fingerprint["cases"]}}
