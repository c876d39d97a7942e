"""Maps and scores of many scans, made here or by workers that load the same networks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from tqdm import tqdm

from screener_nnu.detectors import TEACHER, ModelRef
from screener_nnu.devices import asked_of_workers, choose_device
from screener_nnu.errors import CaseError
from screener_nnu.files import OLD_SECONDS, remove_half_written
from screener_nnu.inference.map_store import MapStore, is_current, maps_folder
from screener_nnu.inference.models import load_features
from screener_nnu.inference.volume import images_of
from screener_nnu.paths import cases_folder, plan_file
from screener_nnu.plans import read_plan
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.workers import run_cases
from screener_nnu.workers.crew import current_crew

if TYPE_CHECKING:
    from screener_nnu.trainers.anomaly_check import AnomalyCheck
    from screener_nnu.trainers.teacher_targets import TeacherTargets

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
#: Makes what is to be stored of a scan, or raises a `CaseError`.
Store = Callable[[str, Item], None]


@dataclass(frozen=True)
class Networks:
    """Which networks a worker loads.

    Attributes:
        dataset, plans: whose they are.
        trained: hash of their weights, so that a worker which outlives a command does not take
            those of an earlier training for them.
        device: that was asked for; by default what the worker has.
    """

    dataset: str
    plans: str
    trained: str
    device: str | None = None

    @classmethod
    def of(cls, dataset: str, plans: str, trained: str, device: torch.device) -> Networks:
        """Those of a training on a device."""
        return cls(dataset, plans, trained, asked_of_workers(device))


def store_all(
    items: Mapping[str, Item],
    here: Store[Item],
    title: str,
    lost: str,
    elsewhere: Store[Item] | None = None,
) -> None:
    """Stores something of each scan; a broken scan is reported and left out.

    Args:
        items: what each is made from.
        here: makes it in this process.
        title: of the progress bar.
        lost: begins the report of a scan that is left out.
        elsewhere: the same in a worker, where there are some; can be pickled.
    """
    outcomes: Iterable[tuple[str, CaseError | str | None]] = (
        (case, _attempt(here, case, item)) for case, item in items.items()
    )
    if elsewhere is not None and current_crew() is not None:
        outcomes = run_cases(partial(_attempt, elsewhere), items, 0, str)
    bar = tqdm(outcomes, desc=title, unit="scan", total=len(items), disable=not items)
    for case, error in bar:
        if error:
            error = CaseError(case, error) if isinstance(error, str) else error
            logger.warning("%s: %s", lost, error)


def _attempt(store: Store[Item], case: str, item: Item) -> CaseError | str | None:
    """What is wrong with the scan, or with another one that it needs."""
    try:
        store(case, item)
    except CaseError as error:
        return error
    return None


def is_stored(cases: CaseFolder, case: str, paths: Iterable[Path]) -> bool:
    """Whether arrays of a case are there, whole, and not of before it was prepared."""
    try:
        changed = cases.changed(case)
    except CaseError:
        return False
    return all(is_current(path, changed) for path in paths)


def remove_half_maps(*folders: Path | None) -> None:
    """Removes arrays that killed runs were writing; other processes may be writing now."""
    for folder in folders:
        if folder is not None:
            remove_half_written(folder, r".+\.npy", OLD_SECONDS)


def store_maps(store: MapStore, cases: CaseFolder, case: str) -> None:
    """Makes the maps of a prepared case, unless those on disk are of it as it is now.

    Raises:
        CaseError: it cannot be read.
    """
    store.maps(case, images_of(cases, case), newer_than=cases.changed(case))


@lru_cache(maxsize=1)
def _check(networks: Networks) -> AnomalyCheck:
    """The painted scans of a plan, whose store holds the maps of all its scans."""
    from screener_nnu.trainers.anomaly_check import AnomalyCheck

    plan = read_plan(plan_file(networks.dataset, networks.plans))
    device = choose_device(networks.device)
    features = load_features(networks.dataset, plan).to(device)
    folder = cases_folder(networks.dataset, plan.settings.data_identifier)
    store = MapStore(maps_folder(folder), features, plan, device)
    return AnomalyCheck(store, CaseFolder(folder), plan)


def maps_elsewhere(case: str, _: None, networks: Networks) -> None:
    """Stores the maps of a scan."""
    check = _check(networks)
    store_maps(check.store, check.cases, case)


def painted_elsewhere(_: str, item: tuple[str, str], networks: Networks) -> None:
    """Stores the maps of a scan with a kind of synthetic anomalies."""
    _check(networks).store_painted(*item)


@lru_cache(maxsize=1)
def _targets(networks: Networks, folder: Path, with_descriptors: bool) -> TeacherTargets:
    from screener_nnu.trainers.teacher_targets import TeacherTargets

    device = choose_device(networks.device)
    teacher, plan, _ = ModelRef(networks.dataset, networks.plans, TEACHER).load(device)
    cases = cases_folder(networks.dataset, plan.settings.data_identifier)
    return TeacherTargets(teacher, plan, cases, folder, device, with_descriptors)


def scores_elsewhere(
    case: str, _: None, networks: Networks, folder: Path, with_descriptors: bool
) -> None:
    """Stores the teacher's scores of a scan."""
    _targets(networks, folder, with_descriptors).store_case(case)
