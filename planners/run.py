"""From raw data sets to a plan on disk and its cases."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError
from screener_nnu.paths import (
    FINGERPRINT_FILE,
    begun_stages,
    cases_folder,
    dataset_name,
    plan_file,
    preprocessed_folder,
    raw_folder,
)
from screener_nnu.planners.fingerprint import RECORDS_FILE, collect_records, summarise
from screener_nnu.planners.planner import ScreenerPlanner
from screener_nnu.plans import ScreenerSettings, read_plan, write_json
from screener_nnu.preprocessing.pipeline import preprocess_dataset
from screener_nnu.preprocessing.reading import find_cases

logger = logging.getLogger(__name__)


def plan_dataset(
    datasets: list[str],
    pool: tuple[int, str] | None,
    processes: int,
    request: dict[str, Any],
    fresh: bool = False,
    overrides: Sequence[str] = (),
) -> str:
    """Writes fingerprint, `dataset.json` and plan; returns the data set's full name.

    Args:
        datasets: raw data sets by number or name.
        pool: number and name of a pooled data set; needed for several raw ones.
        processes: that read images.
        request: arguments of `ScreenerPlanner`.
        fresh: forget what an earlier run knew of the images.
        overrides: settings `key=value` that take the place of the planner's.

    Raises:
        ScreenerError: no images, or a plan with other settings that cases were made with.
    """
    if len(datasets) > 1 and pool is None:
        raise ScreenerError("several data sets need a name together: add --pool 901 SomeName")
    name = f"Dataset{pool[0]:03d}_{pool[1]}" if pool else dataset_name(datasets[0])
    cases, sources = _collect_cases(datasets, pooled=pool is not None)
    folder = preprocessed_folder(name)
    if fresh:
        (folder / RECORDS_FILE).unlink(missing_ok=True)
    fingerprint = summarise(collect_records(cases, folder, processes))
    used = {case: sources[case] for case in fingerprint["cases"]}
    plan = ScreenerPlanner(fingerprint, name, sources=used, **request).plan()
    planned = ScreenerSettings.from_dict(plan["screener"])
    plan["screener"] = planned.override(list(overrides)).to_dict()
    path = plan_file(name, request["plans_name"])
    write_json(folder / FINGERPRINT_FILE, fingerprint)
    if not (folder / "dataset.json").is_file():
        write_json(folder / "dataset.json", _description(datasets, pool, len(used)))
    if path.is_file() and _keeps_old_plan(name, path, plan):
        logger.info("%s stays as it is: its cases and stages were made with it", path)
        return name
    write_json(path, plan)
    settings = plan["screener"]
    for key, reason in settings["reasons"].items():
        logger.info("%s: %s", key, reason)
    for case, reason in settings["left_out"].items():
        logger.warning("left out %s: %s", case, reason)
    logger.info("plan written to %s", path)
    return name


def _collect_cases(datasets: list[str], pooled: bool) -> tuple[dict[str, Path], dict[str, str]]:
    cases: dict[str, Path] = {}
    sources: dict[str, str] = {}
    for dataset in datasets:
        source = dataset_name(dataset)
        for case, path in find_cases(raw_folder(dataset)).items():
            name = f"{source[7:10]}_{case}" if pooled else case
            cases[name] = path
            sources[name] = source
    return cases, sources


def _description(datasets: list[str], pool: tuple[int, str] | None, count: int) -> dict[str, Any]:
    """nnU-Net's `dataset.json`: the raw one, or that of a pool, which has no raw folder."""
    if pool is None:
        return json.loads((raw_folder(datasets[0]) / "dataset.json").read_text())
    return {
        "name": pool[1],
        "description": "unlabelled scans of " + ", ".join(dataset_name(d) for d in datasets),
        "channel_names": {"0": "CT"},
        "labels": {"background": 0},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }


def _keeps_old_plan(dataset: str, path: Path, plan: dict[str, Any]) -> bool:
    """Whether an existing plan stays, because something was made with it.

    Raises:
        ScreenerError: cases were made with it, and the new plan would need others.
    """
    old, _ = read_plan(path)
    was, now = old["screener"], plan["screener"]
    folder = path.parent / was["data_identifier"]
    if not (folder.is_dir() and any(folder.iterdir())):
        return False
    way_out = f"give the new plan another name with -p, or delete {path} and {folder}"
    # Cases that could not be preprocessed have left the old plan: the new one still names them.
    gone = set(was["left_out"]) - set(now["left_out"])
    split = _without(now["split"], gone)
    if split != was["split"]:
        raise ScreenerError(f"the scans or the split of {path} have changed; {way_out}")
    if was["preprocessing"] != now["preprocessing"]:
        raise ScreenerError(f"{path} was planned with other settings; {way_out}")
    trained = bool(begun_stages(dataset, old["plans_name"]))
    return trained or split != now["split"]


def preprocess_planned(
    dataset: str, plans_name: str, processes: int, part: int = 0, parts: int = 1
) -> None:
    """Makes the cases of a plan; those that turn out unusable leave the plan's split."""
    path = plan_file(dataset, plans_name)
    _, settings = read_plan(path)
    fingerprint = json.loads((path.parent / FINGERPRINT_FILE).read_text())
    split = settings.split
    planned = (*split.train, *split.validation, *split.test)
    images = {case: Path(fingerprint["cases"][case]["image"]) for case in sorted(set(planned))}
    smallest = tuple(size // 2 for size in settings.crop_size)
    summary = preprocess_dataset(
        images,
        settings.preprocessing,
        cases_folder(dataset, settings.data_identifier),
        smallest,  # type: ignore[arg-type]
        processes,
        part,
        parts,
    )
    if summary.skipped:
        _drop_cases(path, summary.skipped)


def _drop_cases(path: Path, reasons: dict[str, str]) -> None:
    # Read again: another part may have dropped cases of its own in the meantime.
    plan, _ = read_plan(path)
    split = _without(plan["screener"]["split"], set(reasons))
    if not split["train"]:
        raise ScreenerError("no training case is left; see the reasons above")
    plan["screener"]["split"] = split
    plan["screener"]["left_out"].update(reasons)
    write_json(path, plan)
    logger.info("%d cases left out of %s", len(reasons), path)


def _without(split: dict[str, list[str]], gone: set[str]) -> dict[str, list[str]]:
    """A split without some cases; a training case stands in when none is left to validate."""
    kept = {use: [case for case in cases if case not in gone] for use, cases in split.items()}
    if not kept["validation"]:
        kept["validation"] = kept["train"][:1]
    return kept
