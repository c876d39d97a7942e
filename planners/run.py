"""From raw data sets to a plan on disk and its cases."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError, some
from screener_nnu.paths import (
    FINGERPRINT_FILE,
    cases_folder,
    dataset_name,
    plan_file,
    preprocessed_folder,
    raw_folder,
)
from screener_nnu.planners.dropping import drop_cases
from screener_nnu.planners.existing import existing_plan_stays, names_of
from screener_nnu.planners.fingerprint import body_shares, summarise
from screener_nnu.planners.lock import only_run
from screener_nnu.planners.modality import modality_of_datasets
from screener_nnu.planners.normal_cases import read_normal_cases, stored_normal_cases
from screener_nnu.planners.planner import ScreenerPlanner
from screener_nnu.planners.records import collect_records
from screener_nnu.planners.replaced import warn_of_dependents
from screener_nnu.planners.settings_check import check_settings
from screener_nnu.planners.stored import (
    INTENSITIES,
    Fingerprint,
    keep_planned_from,
    read_fingerprint,
    read_sources,
)
from screener_nnu.plans import Plan, read_plan, write_json
from screener_nnu.preprocessing.modality import CT
from screener_nnu.preprocessing.pictures import is_picture
from screener_nnu.preprocessing.pipeline import preprocess_dataset
from screener_nnu.preprocessing.raw_dataset import find_cases, read_description, read_groups
from screener_nnu.preprocessing.units import warn_of_full_views

logger = logging.getLogger(__name__)


def plan_dataset(
    datasets: list[str],
    pool: tuple[int, str] | None,
    processes: int,
    request: dict[str, Any],
    verify: bool = False,
    overrides: Sequence[str] = (),
    modality: str | None = None,
    normal_cases: Path | None = None,
) -> str:
    """Writes fingerprint, `dataset.json` and plan; returns the data set's full name.

    Args:
        datasets: raw data sets by number or name.
        pool: number and name of a pooled data set; needed for several raw ones.
        processes: that read images.
        request: arguments of `ScreenerPlanner`.
        verify: compare the content of every image with what an earlier run read.
        overrides: settings `key=value` that take the place of the planner's.
        modality: of the images; by default what the data sets say, or their values.
        normal_cases: list of cases that are known to be normal; by default that of the plan, if it
            is there.

    Raises:
        ScreenerError: no images, a list that does not fit them, or a plan with other settings that
            cases were made with.
    """
    if len(datasets) > 1 and pool is None:
        raise ScreenerError("several data sets need a name together: add --pool 901 SomeName")
    name = f"Dataset{pool[0]:03d}_{pool[1]}" if pool else dataset_name(datasets[0])
    modality = modality_of_datasets(datasets, modality)
    cases, sources, groups = _collect_cases(datasets, pooled=pool is not None)
    path = plan_file(name, request["plans_name"])
    normal = read_normal_cases(normal_cases, cases) if normal_cases else stored_normal_cases(path)
    planned = partial(
        _plan, name, sources, {**request, "groups": groups, "normal": normal}, overrides
    )
    folder = preprocessed_folder(name)
    with only_run(folder):
        stored = read_fingerprint(folder)
        records = collect_records(cases, folder, processes, verify, modality)
        if modality == CT:
            warn_of_full_views(body_shares(records))
        fingerprint = summarise(records)
        _check_channels(datasets, len(fingerprint[INTENSITIES]))
        plan = planned(fingerprint)
        keep_planned_from(folder, stored, fingerprint)
        write_json(folder / FINGERPRINT_FILE, fingerprint)
        _describe(folder / "dataset.json", datasets, pool, len(fingerprint["cases"]))
        if not existing_plan_stays(path, fingerprint, plan, planned):
            write_json(path, plan.to_dict())
            _explain(plan, path)
    return name


def _check_channels(datasets: Sequence[str], found: int) -> None:
    """Refuses data sets whose description and images have other numbers of channels.

    Raises:
        ScreenerError: they have; stock nnU-Net would fail on it in fine-tuning.
    """
    for dataset in datasets:
        folder = raw_folder(dataset)
        named = len(read_description(folder)["channel_names"])
        if named != found:
            raise ScreenerError(
                f"{folder / 'dataset.json'} names {named} channels, and the images have {found}: "
                'correct channel_names, for instance {"0": "R", "1": "G", "2": "B"} of colours'
            )


def _plan(
    name: str,
    sources: Mapping[str, str],
    request: dict[str, Any],
    overrides: Sequence[str],
    fingerprint: Fingerprint,
) -> Plan:
    used = {case: sources.get(case, name) for case in fingerprint["cases"]}
    plan = ScreenerPlanner(fingerprint, name, sources=used, **request).plan()
    spacing = plan.settings.preprocessing.spacing
    plan = plan.with_settings(plan.settings.override(list(overrides)))
    if plan.settings.preprocessing.spacing != spacing:
        raise ScreenerError(
            "preprocessing.spacing is that of the network, too: give --spacing Z Y X in its place"
        )
    check_settings(plan)
    return plan


def _explain(plan: Plan, path: Path) -> None:
    for key, reason in plan.settings.reasons.items():
        logger.info("%s: %s", key, reason)
    for case, reason in plan.settings.left_out.items():
        logger.warning("left out %s: %s", case, reason)
    logger.info("plan written to %s", path)


def _collect_cases(
    datasets: list[str], pooled: bool
) -> tuple[dict[str, Path], dict[str, str], dict[str, str]]:
    """Image, source data set and group of each case; many have no group."""
    cases: dict[str, Path] = {}
    sources: dict[str, str] = {}
    groups: dict[str, str] = {}
    for dataset in datasets:
        source, grouped = dataset_name(dataset), read_groups(raw_folder(dataset))
        for case, path in find_cases(raw_folder(dataset)).items():
            name = f"{source[7:10]}_{case}" if pooled else case
            cases[name] = path
            sources[name] = source
            if case in grouped:
                groups[name] = f"{source} {grouped[case]}"
    return cases, sources, groups


def _describe(path: Path, datasets: list[str], pool: tuple[int, str] | None, count: int) -> None:
    """Writes nnU-Net's `dataset.json`; one that is there stays, for nnU-Net may have put it."""
    description = _description(datasets, pool, count)
    if not path.is_file():
        write_json(path, description)
    elif pool is None and _json_of(path) != description:
        logger.warning(
            "%s has changed since it was copied to %s, which stays: delete that to copy it again",
            raw_folder(datasets[0]) / path.name,
            path,
        )


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


def _description(datasets: list[str], pool: tuple[int, str] | None, count: int) -> dict[str, Any]:
    """nnU-Net's `dataset.json`: the raw one, or that of a pool, which has no raw folder."""
    if pool is None:
        return json.loads((raw_folder(datasets[0]) / "dataset.json").read_text())
    first = read_description(raw_folder(datasets[0]))
    return {
        "name": pool[1],
        "description": "unlabelled scans of " + ", ".join(dataset_name(d) for d in datasets),
        "channel_names": first["channel_names"],
        "labels": {"background": 0},
        "numTraining": count,
        "file_ending": ".png" if is_picture(first["file_ending"]) else ".nii.gz",
    }


def preprocess_planned(
    dataset: str,
    plans_name: str,
    processes: int,
    part: int = 0,
    parts: int = 1,
    verify: bool = False,
) -> None:
    """Makes the cases of a plan; those that turn out unusable leave the plan's split.

    See `preprocess_dataset`.

    Raises:
        ScreenerError: no plan or no fingerprint, or scans of the plan that nothing is known of.
    """
    path = plan_file(dataset, plans_name)
    settings = read_plan(path).settings
    known = read_sources(path.parent)
    cases = sorted(names_of(settings.split))
    missing = [case for case in cases if case not in known]
    if missing:
        raise ScreenerError(
            f"{path} names scans that are no longer there: {some(missing)}; put them back, "
            "or plan the others under another name with -p"
        )
    scans = {case: state for case in cases if (state := known[case][1]) is not None}
    folder = cases_folder(dataset, settings.data_identifier)
    summary = preprocess_dataset(
        {case: known[case][0] for case in cases},
        settings.preprocessing,
        folder,
        tuple(size // 2 for size in settings.crop_size),  # type: ignore[arg-type]
        processes,
        part,
        parts,
        scans,
        lambda replaced: warn_of_dependents(dataset, folder, replaced, scans),
        verify,
    )
    if summary.skipped:
        drop_cases(path, settings.data_identifier, summary.skipped)
