"""nnU-Net's three folders, and where things lie in them."""

from __future__ import annotations

import json
import logging
import os
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import CONFIGURATIONS, DEFAULT_PLANS_NAME, VOLUMES
from screener_nnu.stages import STAGES, trainer_name

logger = logging.getLogger(__name__)

FINGERPRINT_FILE = "screener_fingerprint.json"
# Three digits and a name, as nnU-Net takes them apart.
_NAME = re.compile(r"Dataset\d{3}_[^/\\]+")
# Files and folders are named after a plan, and nnU-Net takes those of `__` apart.
_PLANS_NAME = re.compile(r"(?!\.)(?!.*__)[^/\\\x00-\x1f]+")
_NEW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def trainers_shim_folder() -> Path:
    """Folder for the environment variable `nnUNet_extTrainer`: stock nnU-Net finds our trainers."""
    spec = find_spec("screener_nnu.trainers.nnunet_shim")
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def set_default_folders() -> None:
    """Sets nnU-Net's folder variables that are unset or empty to folders under `~/screener_nnu`.

    The others become absolute paths, with `~` as the home folder.
    """
    unset = [name for name in _VARIABLES if not os.environ.get(name, "").strip()]
    for name in unset:
        os.environ[name] = str(Path.home() / "screener_nnu" / name)
    if unset:
        logger.info("%s unset: using %s", ", ".join(unset), Path.home() / "screener_nnu")
    for name in _VARIABLES:
        # A `~` in quotes reaches us as it is; nnU-Net would make a folder of that name.
        os.environ[name] = os.path.abspath(os.path.expanduser(os.environ[name]))


def _root(variable: str) -> Path:
    value = os.environ.get(variable, "")
    if not os.path.isabs(value):
        set_default_folders()
    return Path(os.environ[variable])


def dataset_folders(number: int) -> list[Path]:
    """Folders `DatasetXXX_*` of a number, raw, preprocessed and results, in this order."""
    prefix = f"Dataset{number:03d}_"
    roots = [_root(variable) for variable in _VARIABLES]
    return [
        folder
        for root in roots
        if root.is_dir()
        for folder in sorted(root.iterdir())
        if folder.name.startswith(prefix) and folder.is_dir()
    ]


def raw_root() -> Path:
    """`$nnUNet_raw`, the folder of all raw data sets."""
    return _root("nnUNet_raw")


def preprocessed_root() -> Path:
    """`$nnUNet_preprocessed`, the folder of all preprocessed data sets."""
    return _root("nnUNet_preprocessed")


def dataset_name(dataset: int | str) -> str:
    """Full name `DatasetXXX_Name` of a dataset given by name or number.

    Raises:
        ScreenerError: no such name, or no folder, or several, of that number.
    """
    text = str(dataset)
    if _NAME.fullmatch(text):
        return text
    if not (text.isascii() and text.isdigit()):
        raise ScreenerError(
            f"{text!a} is neither a dataset number nor a name DatasetXXX_Name, such as "
            "Dataset501_HeadNeckCT"
        )
    found = {folder.name for folder in dataset_folders(int(text))}
    if not found:
        places = ", ".join(str(_root(variable)) for variable in _VARIABLES)
        raise ScreenerError(f"no dataset {text}: looked for Dataset{int(text):03d}_* in {places}")
    if len(found) > 1:
        raise ScreenerError(
            f"dataset number {text} is taken more than once ({', '.join(sorted(found))}): give the "
            "full name, and another number to the other one"
        )
    return found.pop()


def new_dataset_name(number: int, name: str) -> str:
    """Full name of a dataset that is to be made, or that has been by an earlier run.

    Raises:
        ScreenerError: no such number, letters that folders should not have, or a number that
            another dataset has.
    """
    if not 1 <= number <= 999:
        raise ScreenerError(f"{number} is no number of a dataset: they go from 1 to 999")
    if not _NEW_NAME.fullmatch(name):
        raise ScreenerError(f"{name!a} is no name of a dataset: use letters, digits, '_' and '-'")
    full = f"Dataset{number:03d}_{name}"
    others = {folder.name for folder in dataset_folders(number)} - {full}
    if others:
        raise ScreenerError(
            f"number {number} is taken by {', '.join(sorted(others))}: choose another one"
        )
    return full


def raw_folder(dataset: int | str) -> Path:
    """`$nnUNet_raw/DatasetXXX_Name`."""
    return _root("nnUNet_raw") / dataset_name(dataset)


def preprocessed_folder(dataset: int | str) -> Path:
    """`$nnUNet_preprocessed/DatasetXXX_Name`."""
    return _root("nnUNet_preprocessed") / dataset_name(dataset)


def results_folder(dataset: int | str) -> Path:
    """`$nnUNet_results/DatasetXXX_Name`."""
    return _root("nnUNet_results") / dataset_name(dataset)


def plan_file(dataset: int | str, plans_name: str) -> Path:
    """The plan `<plans_name>.json` of a preprocessed dataset.

    Raises:
        ScreenerError: no file can have that name.
    """
    if not _PLANS_NAME.fullmatch(plans_name):
        raise ScreenerError(
            f"{plans_name!a} is no name of a plan: it becomes part of file names, so leave out "
            "'/', '__' and a dot in front"
        )
    return preprocessed_folder(dataset) / f"{plans_name}.json"


def cases_folder(dataset: int | str, data_identifier: str) -> Path:
    """The cases of self-supervision, apart from those of stock nnU-Net."""
    return preprocessed_folder(dataset) / data_identifier


def stage_folder(
    dataset: int | str, stage: str, plans_name: str, configuration: str | None = None
) -> Path:
    """Results of a stage, laid out as nnU-Net does: `Trainer__plans__configuration/fold_all`.

    Args:
        dataset: number or name.
        stage: name of the stage.
        plans_name: its plan.
        configuration: that of the plan, where the plan is not in its place yet.
    """
    configuration = configuration or configuration_of(dataset, plans_name)
    name = f"{trainer_name(stage)}__{plans_name}__{configuration}"
    return results_folder(dataset) / name / "fold_all"


def configuration_of(dataset: int | str, plans_name: str) -> str:
    """Of a plan: `2d` of pictures, else `3d_fullres`, which an absent plan has as well."""
    path = plan_file(dataset, plans_name)
    try:
        state = path.stat()
        return _configuration_in(path, state.st_mtime_ns, state.st_size)
    except (OSError, ValueError, AttributeError, TypeError):
        return VOLUMES


@lru_cache(maxsize=256)
def _configuration_in(path: Path, changed_ns: int, size: int) -> str:
    """Of the plan in a file as it was at a time."""
    known = json.loads(path.read_text(encoding="utf-8")).get("configurations", {})
    return next((name for name in CONFIGURATIONS if name in known), VOLUMES)


def begun_stages(dataset: int | str, plans_name: str) -> list[str]:
    """Stages of a plan that have trained at least one epoch."""
    folders = {stage: stage_folder(dataset, stage, plans_name) for stage in STAGES}
    return [stage for stage, folder in folders.items() if any(folder.glob("checkpoint_*.pth"))]


#: In both folders of an installed model: where it came from.
MODEL_MARKER = "screener_model.json"


def finished_checkpoint(dataset: int | str, stage: str, plans_name: str) -> Path:
    """Final checkpoint of a stage.

    Raises:
        ScreenerError: the stage has not finished; the message holds the command that trains it.
    """
    path = stage_folder(dataset, stage, plans_name) / "checkpoint_final.pth"
    if not path.is_file():
        if (preprocessed_folder(dataset) / MODEL_MARKER).is_file():
            raise ScreenerError(
                f"{dataset_name(dataset)} was installed from a model file that does not hold the "
                f"{stage} stage of {plans_name}: name the detector and the plan that it holds (see "
                f"MODEL_CARD.md in {path.parents[2]}), or ask for a file with that stage"
            )
        _refuse_missing_plan(dataset, plans_name)
        raise ScreenerError(
            f"the {stage} stage of {plans_name} has not been trained ({path} is missing); run\n"
            f"    {train_command(dataset, stage, plans_name)}"
        )
    return path


def _refuse_missing_plan(dataset: int | str, plans_name: str) -> None:
    """Says that there is nothing to train where the name of a plan was mistyped.

    Raises:
        ScreenerError: there are plans, but none of that name; they are named.
    """
    path = plan_file(dataset, plans_name)
    found = path.parent.glob("*.json") if path.parent.is_dir() else ()
    known = sorted(other.stem for other in found if _is_plan(other))
    if known and plans_name not in known:
        raise ScreenerError(f"there is no plan {path}: give one of {', '.join(known)} (-p)")


def _is_plan(path: Path) -> bool:
    try:
        return '"screener"' in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def train_command(dataset: int | str, stage: str, plans_name: str) -> str:
    """The command line that trains a stage."""
    number = int(dataset_name(dataset)[7:10])
    plans = "" if plans_name == DEFAULT_PLANS_NAME else f" -p {plans_name}"
    return f"screener_train {number} {configuration_of(dataset, plans_name)} {stage}{plans}"
