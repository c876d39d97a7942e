"""nnU-Net's own training, from the student's weights or from scratch, with a chosen budget.

The class stays the stock `nnUNetTrainer`, or `FineTuningTrainer` where it was asked for, which
writes that name: a checkpoint names its trainer, and every nnU-Net must find it. Epochs and
iterations are attributes of the object.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screener_nnu.errors import ScreenerError
from screener_nnu.files import file_sha256, replacing
from screener_nnu.finetuning.checkpoint import STOCK_TRAINER, load_weights
from screener_nnu.finetuning.dataset import read_labelled_dataset
from screener_nnu.finetuning.fold_folder import (
    CHECKPOINTS,
    RECORD_FILE,
    SUMMARY,
    VALIDATION,
    clear_fold,
    read_record,
)
from screener_nnu.finetuning.killed_workers import named_when_killed
from screener_nnu.finetuning.splits import Fold, read_splits
from screener_nnu.inference.source_identity import source_identity
from screener_nnu.locks import only_one
from screener_nnu.paths import (
    dataset_name,
    preprocessed_folder,
    results_folder,
    trainers_shim_folder,
)
from screener_nnu.plans import VOLUMES, write_json

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

logger = logging.getLogger(__name__)

_SEARCHED = "nnUNet_extTrainer"
# At most, for each takes as long as a few iterations.
_ITERATIONS_A_CHECKPOINT = 250


@dataclass(frozen=True)
class FineTuningRun:
    """One training of one fold.

    Attributes:
        dataset: full name of the labelled dataset.
        plans_name: its plan.
        fold: index in `splits_final.json`, or `all`.
        weights: checkpoint to start from; `None` starts from scratch.
        epochs, iterations: epochs, and training iterations of each; the defaults are nnU-Net's.
        seed: of new weights, batches and augmentation; `None` leaves them to chance, as nnU-Net.
        trainer: `nnUNetTrainer` or `FineTuningTrainer`.
        configuration: that of the plan.
    """

    dataset: str
    plans_name: str
    fold: int | str
    weights: Path | None
    epochs: int = 1000
    iterations: int = 250
    seed: int | None = None
    trainer: str = STOCK_TRAINER
    configuration: str = VOLUMES

    @property
    def folder(self) -> Path:
        """Where nnU-Net writes: `nnUNetTrainer__<plans>__<configuration>/fold_X`."""
        model = f"{self.trainer}__{self.plans_name}__{self.configuration}"
        return results_folder(self.dataset) / model / f"fold_{self.fold}"

    @property
    def summary_file(self) -> Path:
        """nnU-Net's validation result."""
        return self.folder / VALIDATION / SUMMARY

    @property
    def finished(self) -> bool:
        """Whether it was trained and validated to the end.

        A full disk leaves half a summary, which nnU-Net's validation makes again.
        """
        return (self.folder / CHECKPOINTS[0]).is_file() and _is_whole(self.summary_file)

    def predict_command(self, device: str = "cuda") -> str:
        """The stock command that predicts with the result."""
        number = int(dataset_name(self.dataset)[7:10])
        suffix = "" if self.trainer == STOCK_TRAINER else f" -tr {self.trainer}"
        suffix += "" if device == "cuda" else f" -device {device}"
        return (
            f"nnUNetv2_predict -i INPUT -o OUTPUT -d {number} -c {self.configuration} "
            f"-p {self.plans_name} -f {self.fold}{suffix}"
        )


def fine_tune(run: FineTuningRun, device: str = "cuda", restart: bool = False) -> float:
    """Trains and validates; resumes what was interrupted, and leaves alone what is finished.

    Args:
        run: what to train; plan and cases must be there.
        device: `cuda`, `cpu` or `mps`.
        restart: remove this fold's training first.

    Returns:
        nnU-Net's mean validation Dice of the foreground classes.

    Raises:
        ScreenerError: the fold was begun with other settings or by somebody else, another process
            is training it, or a background process of nnU-Net was killed.
    """
    lock = run.folder.parent / f".{run.folder.name}.lock"
    with only_one(lock, "nnUNet_results", f"training {run.folder}"):
        return _fine_tune(run, device, restart)


def _fine_tune(run: FineTuningRun, device: str, restart: bool) -> float:
    resume = begin_or_resume(run, restart)
    if run.finished:
        logger.info("%s is finished already; --restart trains it anew", run.folder)
        return mean_dice(run.summary_file)
    _use_cores(device)
    with named_when_killed(f"the training in {run.folder}", run.folder):
        trainer = make_trainer(run, device, resume)
        if not (run.folder / CHECKPOINTS[0]).is_file():
            trainer.run_training()
        trainer.perform_actual_validation()
    return mean_dice(run.summary_file)


def begin_or_resume(run: FineTuningRun, restart: bool = False) -> bool:
    """Whether the fold holds a training to go on with; records the settings of a new one.

    Raises:
        ScreenerError: it was begun with another budget or other weights, or by somebody else.
    """
    if restart:
        clear_fold(run.folder, preprocessed_folder(run.dataset) / "gt_segmentations")
    read_record(run.folder)  # refuses the training of somebody else
    if not any((run.folder / name).is_file() for name in CHECKPOINTS):
        write_json(run.folder / RECORD_FILE, _record(run))
        return False
    check_settings(run)
    return True


def check_settings(run: FineTuningRun) -> None:
    """Checks that what is in the folder of a run was trained as the run says.

    Raises:
        ScreenerError: it was begun with another budget, other weights, cases or another seed, or by
            somebody else.
    """
    odd = _differences(read_record(run.folder), _record(run))
    if odd:
        raise ScreenerError(
            f"{run.folder} was trained with other settings ({'; '.join(odd)}); ask for the same, "
            "or train anew with --restart"
        )


def make_trainer(run: FineTuningRun, device: str, resume: bool) -> nnUNetTrainer:
    """The stock trainer with its budget set and its weights loaded, ready to run."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    from screener_nnu.networks.layout import for_training

    _seed_everything(run.seed)
    with _own_trainers():
        trainer = get_trainer_from_args(
            run.dataset,
            run.configuration,
            run.fold,  # type: ignore[arg-type]
            run.trainer,
            run.plans_name,
            continue_training=resume,
            device=torch.device(device),
        )
    # Before `initialize`, which makes the schedule of the learning rate from them.
    trainer.num_epochs = run.epochs
    trainer.num_iterations_per_epoch = run.iterations
    trainer.num_val_iterations_per_epoch = max(1, run.iterations // 5)
    # Killed, it repeats an epoch of nnU-Net's own length at most, and a twentieth of the whole.
    trainer.save_every = max(1, min(run.epochs // 20, _ITERATIONS_A_CHECKPOINT // run.iterations))
    _save_whole_files_only(trainer)
    trainer.initialize()
    for_training(trainer.network, trainer.device)
    if resume:
        try:
            maybe_load_checkpoint(trainer, continue_training=True, validation_only=False)
        except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ScreenerError(
                f"the training in {run.folder} cannot go on, since its checkpoint is damaged "
                f"({reason}): train it anew with --restart"
            ) from error
    elif run.weights is not None:
        load_weights(trainer.network, run.weights)
    # Once more: whatever the start, the first batch is the same.
    _seed_everything(run.seed, trainer.current_epoch)
    return trainer


@contextmanager
def _own_trainers() -> Iterator[None]:
    """Lets nnU-Net's search find our trainers, too."""
    before = os.environ.get(_SEARCHED)
    os.environ[_SEARCHED] = os.pathsep.join(filter(None, [before, str(trainers_shim_folder())]))
    try:
        yield
    finally:
        del os.environ[_SEARCHED]
        if before is not None:
            os.environ[_SEARCHED] = before


def _is_whole(summary_file: Path) -> bool:
    try:
        mean_dice(summary_file)
    except (OSError, ScreenerError):
        return False
    return True


def mean_dice(summary_file: Path) -> float:
    """Mean Dice of the foreground in nnU-Net's `summary.json`.

    Raises:
        ScreenerError: the file is damaged.
    """
    try:
        return float(json.loads(summary_file.read_text())["foreground_mean"]["Dice"])
    except (ValueError, KeyError, TypeError) as error:
        raise ScreenerError(
            f"{summary_file} cannot be read ({error}): delete it, and the validation is done again"
        ) from error


def _record(run: FineTuningRun) -> dict[str, Any]:
    values = asdict(run)
    values["weights"] = None if run.weights is None else str(run.weights.resolve())
    values["weights_sha256"] = None if run.weights is None else file_hash(run.weights)
    fold = _fold(run)
    values["cases"] = None if fold is None else _cases(fold)
    values["data"] = _data(run, fold)
    return values


def _fold(run: FineTuningRun) -> Fold | None:
    """The run's fold; None where it trains on all cases, or where there is no such fold."""
    folds = read_splits(preprocessed_folder(run.dataset)) if isinstance(run.fold, int) else []
    return folds[int(run.fold)] if folds and int(run.fold) < len(folds) else None


def _cases(fold: Fold) -> str:
    """Cases of a fold in a few words, which differ when the split was written anew."""
    train, val = (sorted(fold[part]) for part in ("train", "val"))
    digest = hashlib.sha256(json.dumps([train, val]).encode()).hexdigest()[:8]
    return f"{len(train)} training and {len(val)} validation cases ({digest})"


def _data(run: FineTuningRun, fold: Fold | None) -> str | None:
    """A hash of images and labels of the run; None where the raw dataset is not there."""
    try:
        dataset = read_labelled_dataset(run.dataset, kind=None)
    except ScreenerError:
        return None
    names = dataset.cases if fold is None else sorted({*fold["train"], *fold["val"]})
    groups = (dataset.images, dataset.labels)
    files = [group[name] for name in names for group in groups if name in group]
    identities = [_identity(file) if file.is_file() else "" for file in files]
    digest = hashlib.sha256(json.dumps(identities).encode())
    return digest.hexdigest()[:16]


def _differences(begun: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Settings that a training was not begun with; the same weights may lie elsewhere now."""
    # Trainings of earlier versions did not record all that is compared now.
    later = {"weights_sha256", "cases", "trainer", "data", "configuration"} - set(begun)
    compared = {key: value for key, value in record.items() if key not in later}
    if record["weights"] and begun.get("weights_sha256") == record["weights_sha256"]:
        del compared["weights"]
    return [f"{k}: {begun.get(k)}, now {v}" for k, v in compared.items() if begun.get(k) != v]


def _once(read: Callable[[Path], str]) -> Callable[[Path], str]:
    """Reads each file once a process as long as it does not change."""

    @lru_cache(maxsize=100_000)
    def of_state(path: str, modified: int, size: int) -> str:
        return read(Path(path))

    def of_file(path: Path) -> str:
        status = path.stat()
        return of_state(str(path.resolve()), status.st_mtime_ns, status.st_size)

    return of_file


#: SHA-256 of a file.
file_hash = _once(file_sha256)
_identity = _once(source_identity)


def _seed_everything(seed: int | None, epoch: int = 0) -> None:
    """Seeds Python, NumPy and torch from (seed, epoch); `None` leaves them alone."""
    if seed is None:
        return
    import numpy as np
    import torch

    word = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    random.seed(word)
    np.random.seed(word)
    torch.manual_seed(word)


def _save_whole_files_only(trainer: nnUNetTrainer) -> None:
    """Lets the trainer replace a checkpoint in one step: killed meanwhile, the old one stays.

    An attribute of the object, so that the class, and with it the checkpoint, stays stock.
    """
    save = trainer.save_checkpoint

    def save_and_replace(filename: str) -> None:
        if not trainer.disable_checkpointing:
            with replacing(Path(filename)) as temporary:
                save(str(temporary))

    trainer.save_checkpoint = save_and_replace  # type: ignore[method-assign]


def _use_cores(device: str) -> None:
    """Spreads the cores as nnU-Net's own command does; augmentation gives way to a CPU network."""
    import torch

    cores = os.cpu_count() or 1
    if device == "cuda":
        torch.set_num_threads(1)
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = True
    elif device == "cpu":
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(cores)
        # On few cores, workers compete with the network: measured no faster, and slow to start.
        workers = 0 if cores <= 4 else min(4, cores // 4)
        os.environ.setdefault("nnUNet_n_proc_DA", str(workers))
