"""Trains a stage of a plan: fresh, resumed or left alone when finished."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from screener_nnu.calibration.run import calibrate_trained
from screener_nnu.calibration.store import FILE as CALIBRATION_FILE
from screener_nnu.checkpoints import load_plain
from screener_nnu.detectors import ModelRef, detectors_of
from screener_nnu.devices import make_deterministic
from screener_nnu.errors import ScreenerError, StoppedError
from screener_nnu.files import remove_half_written
from screener_nnu.locks import only_one
from screener_nnu.paths import dataset_name, plan_file, preprocessed_folder, stage_folder
from screener_nnu.plans import Plan, read_plan
from screener_nnu.stage_checkpoint import finished_stage
from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.processes import any_process, first_alone, train_on_gpus
from screener_nnu.trainers.stages import trainer_of
from screener_nnu.trainers.state import OTHER_UPSTREAM
from screener_nnu.trainers.stopping import stopping_on_sigterm

logger = logging.getLogger(__name__)

#: What the training of a stage writes into its folder, by itself and through nnU-Net.
_WRITTEN = (
    *(f"checkpoint_{which}.pth" for which in ("latest", "best", "final")),
    "training_log_[0-9]*.txt",
    "progress.png",
    "debug.json",
    CALIBRATION_FILE,
    ".*.tmp",
)


def train_stage(
    dataset: int | str,
    stage: str,
    plans_name: str,
    device: torch.device,
    restart: bool = False,
    num_gpus: int = 1,
    deterministic: bool = False,
) -> None:
    """Trains one stage; a finished one is left alone, a killed one goes on.

    Args:
        dataset: number or name.
        stage: its name.
        plans_name: of the plan.
        device: to train on; of processes that have joined (see `processes`) that of this one.
        restart: forget an earlier run.
        num_gpus: starts so many processes, each on a GPU of this machine.
        deterministic: computes the same from the same on GPUs, too.

    Raises:
        ScreenerError: no plan, no cases, an earlier stage missing, or other settings in the folder.
        StoppedError: SIGTERM came, and the training ended between two steps.
    """
    trainer = trainer_of(stage)
    folder = stage_folder(dataset, stage, plans_name)

    with ExitStack() as held:
        lock = only_one(folder.parent / "running.lock", "nnUNet_results", f"training {folder}")
        first_alone(lambda: held.enter_context(lock))
        first_alone(partial(_remove_half_files, folder))
        if first_alone(partial(_is_left_alone, dataset, stage, plans_name, device, restart)):
            return
        going_on = first_alone(partial(_resumable, folder))
        train = partial(_train, dataset_name(dataset), stage, plans_name, going_on, deterministic)
        if not trainer.takes_steps(read_plan(plan_file(dataset, plans_name)).settings):
            first_alone(partial(train, device))  # in one pass
        elif num_gpus > 1:
            train_on_gpus(num_gpus, train)
        else:
            train(device)


def _remove_half_files(folder: Path) -> None:
    """What a killed run was writing; the lock says that no other run writes."""
    remove_half_written(folder, r"checkpoint_\w+\.pth|progress\.png|.+\.json")


def _forget(folder: Path) -> None:
    """Removes what a training of a stage writes, and names what else lies there."""
    written = [path for pattern in _WRITTEN for path in folder.glob(pattern) if path.is_file()]
    for path in written:
        path.unlink()
    kept = sorted(path.name for path in folder.iterdir())
    if kept:
        logger.info("--restart leaves what no training writes: %s (%s)", ", ".join(kept), folder)


def _is_left_alone(
    dataset: int | str, stage: str, plans_name: str, device: torch.device, restart: bool
) -> bool:
    """Whether the stage is finished; what a killed run left open after its end is done then."""
    folder = stage_folder(dataset, stage, plans_name)
    if restart and folder.is_dir():
        _forget(folder)
    if not (folder / "checkpoint_final.pth").is_file():
        return False
    _refuse_other_settings(dataset, stage, plans_name, device)
    logger.info("%s of %s is finished (%s); --restart trains it anew", stage, plans_name, folder)
    _calibrate_again(dataset, stage, plans_name, device)
    return True


def _calibrate_again(dataset: int | str, stage: str, plans_name: str, device: torch.device) -> None:
    """Calibrates what a killed run trained and did not calibrate."""
    settings = read_plan(plan_file(dataset, plans_name)).settings
    if settings.split.validation:
        for name in detectors_of(stage):
            model = ModelRef(dataset_name(dataset), plans_name, name)
            calibrate_trained(model, device, settings.calibration.max_scans)


def _train(
    dataset: str,
    stage: str,
    plans_name: str,
    checkpoint: Path | None,
    deterministic: bool,
    device: torch.device,
) -> None:
    """Trains in this process, from a checkpoint on where there is one."""
    if deterministic:
        make_deterministic()
    trainer = new_trainer(dataset, stage, plans_name, device, checkpoint is not None)
    if checkpoint is not None:
        trainer.load_checkpoint(str(checkpoint))
        logger.info(
            "going on in epoch %d of %d, after step %d",
            trainer.current_epoch + 1,
            trainer.num_epochs,
            trainer.global_step,
        )
    with stopping_on_sigterm() as trainer.stop:
        trainer.run_training()
        asked = trainer.stop.received
    if any_process(asked, device) if trainer.is_ddp else asked:
        raise StoppedError(f"the {stage} stage is finished; the same command goes on after it")


def new_trainer(
    dataset: int | str, stage: str, plans_name: str, device: torch.device, resumed: bool = False
) -> ScreenerTrainer:
    """The trainer of a stage of a plan, as nnU-Net's own command makes it.

    Args:
        dataset: number or name.
        stage: name of the stage.
        plans_name: its plan.
        device: to train on.
        resumed: whether a checkpoint will be loaded.
    """
    plan = read_plan(plan_file(dataset, plans_name))
    description = json.loads((preprocessed_folder(dataset) / "dataset.json").read_text())
    values = {**plan.to_dict(), "continue_training": resumed}
    # As nnU-Net's own command does: crops of a stage are nearly all of one size.
    steady = torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = device.type == "cuda" and not steady
    return trainer_of(stage)(values, plan.configuration_name, "all", description, device)


def _resumable(folder: Path) -> Path | None:
    """Where a killed run goes on: the latest checkpoint or, where a crash tore it, the best one.

    A stage draws as a function of the step, so that it ends alike from either.
    """
    found = [folder / f"checkpoint_{name}.pth" for name in ("latest", "best")]
    found = [path for path in found if path.is_file()]
    for path in found:
        try:
            load_plain(path)
        except ScreenerError as error:
            logger.warning("%s is not used: %s", path, error)
        else:
            return path
    return found[0] if found else None  # what loads it says what to do


def _refuse_other_settings(
    dataset: int | str, stage: str, plans_name: str, device: torch.device
) -> None:
    plan = read_plan(plan_file(dataset, plans_name))
    trained = finished_stage(dataset, stage, plans_name).read()
    trainer = trainer_of(stage)
    folder = stage_folder(dataset, stage, plans_name)
    now = _upstream_now(trainer, dataset, plan)
    if now is not None and trained.get("upstream", now) != now:
        raise ScreenerError(OTHER_UPSTREAM.format(folder=folder))
    if trainer.relevant_settings(trained["plan"]) != trainer.relevant_settings(plan):
        raise ScreenerError(
            f"the {stage} stage of {plans_name} was trained with other settings than the plan's: "
            "add --restart to train it anew, or write the plan under another name with -p"
        )


def _upstream_now(trainer: type[ScreenerTrainer], dataset: int | str, plan: Plan) -> str | None:
    """None where an earlier stage is missing: a model that was installed may come without."""
    try:
        return trainer.upstream(dataset_name(dataset), plan)
    except ScreenerError:
        return None
