"""The check of a model file's contents, once they lie in a folder of ours with the right hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from screener_nnu.calibration.record import Calibration
from screener_nnu.calibration.store import model_identity
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import Plan, ScreenerSettings
from screener_nnu.sharing.archive import parse_json
from screener_nnu.sharing.manifest import DATASET, HISTOGRAM, Manifest, StageFile, plan_member
from screener_nnu.sharing.plan_check import check_plan, same_values
from screener_nnu.sharing.scrub import DATASET_KEYS, HISTOGRAM_KEYS
from screener_nnu.sharing.stages import teacher_stages
from screener_nnu.sharing.weights_check import read_stage


def check_contents(manifest: Manifest, places: dict[str, Path]) -> None:
    """Checks every plan and checkpoint, and that they make a whole model.

    Args:
        manifest: of the model file.
        places: where each member lies.

    Raises:
        ScreenerError: something is wrong with one of them, or a stage is missing.
    """
    plans = {
        name: check_plan(read_json(places[plan_member(name)]), name) for name in manifest.plans
    }
    for name, plan in plans.items():
        if plan.configuration_name != manifest.configuration:
            raise ScreenerError(
                f"the plan {name} is one of {plan.configuration_name}, and model.json says "
                f"{manifest.configuration}"
            )
    _check_keys(places[DATASET], DATASET_KEYS)
    if HISTOGRAM in places:
        _check_keys(places[HISTOGRAM], HISTOGRAM_KEYS)
    for file in manifest.stages:
        if file.plans_name not in plans:
            raise ScreenerError(f"the plan of {file.member} is missing")
        checkpoint = read_stage(places[file.member], file)
        trained: Plan = checkpoint["plan"]
        if file.stage == "density":
            _check_teacher(manifest, file, trained.settings)
        own = plans[file.plans_name]
        if file == manifest.last_stage and not same_values(trained.values, own.values):
            raise ScreenerError(
                f"{file.member} was trained with another plan than {file.plans_name}"
            )
        if file in manifest.calibrations:
            _check_calibration(places[file.calibration_member], checkpoint, file)
    for file in set(manifest.calibrations) - set(manifest.stages):
        raise ScreenerError(f"{file.calibration_member} belongs to no model in the file")


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object from a JSON file.

    Raises:
        ScreenerError: it holds none.
    """
    values = parse_json(path.read_bytes(), path.name)
    if not isinstance(values, dict):
        raise ScreenerError(f"{path.name} is no JSON object")
    return values


def _check_calibration(path: Path, checkpoint: dict[str, Any], file: StageFile) -> None:
    try:
        calibration = Calibration.from_dict(read_json(path))
    except ScreenerError as error:
        raise ScreenerError(f"{file.calibration_member}: {error}") from error
    if calibration.model != model_identity(checkpoint):
        raise ScreenerError(f"{file.calibration_member} belongs to other weights")


def _check_keys(path: Path, known: tuple[str, ...]) -> None:
    odd = sorted(set(read_json(path)) - set(known))
    if odd:
        raise ScreenerError(f"{path.name} may hold {', '.join(known)} only, not {odd[:5]}")


def _check_teacher(manifest: Manifest, density: StageFile, settings: ScreenerSettings) -> None:
    missing = set(teacher_stages(density.plans_name, settings)) - set(manifest.stages)
    if missing:
        names = ", ".join(sorted(file.member for file in missing))
        raise ScreenerError(f"{density.member} needs {names}, which the file lacks")
