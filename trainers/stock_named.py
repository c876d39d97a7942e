"""nnU-Net's trainer whose checkpoints carry the stock trainer's name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from screener_nnu.checkpoints import write_checkpoint
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import STOCK_TRAINER, read_checkpoint, unwrap
from screener_nnu.stage_checkpoint import check_finite

_POWER = 0.9


class StockNamedTrainer(nnUNetTrainer):
    """Writes checkpoints that stock nnU-Net predicts with; what trains them stays with us."""

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint under the stock trainer's name, whole or not at all."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        scaler = self.grad_scaler
        checkpoint = {
            "network_weights": unwrap(self.network).state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None if scaler is None else scaler.state_dict(),
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": STOCK_TRAINER,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            **self.more_values(),
        }
        try:
            check_finite({"network_weights": checkpoint["network_weights"]})
        except ScreenerError as error:
            raise ScreenerError(self.went_astray(str(error))) from error
        write_checkpoint(checkpoint, Path(filename))

    def more_values(self) -> dict[str, Any]:
        """Further entries of a checkpoint."""
        return {}

    def went_astray(self, reason: str) -> str:
        """What is said of weights that are no numbers."""
        return f"the training went astray: {reason}"

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Takes up a training where its checkpoint left it."""
        checkpoint = filename_or_checkpoint
        if not isinstance(checkpoint, dict):  # says more than nnU-Net of a damaged one
            checkpoint = read_checkpoint(Path(checkpoint))
        super().load_checkpoint(filename_or_checkpoint)
        self.take_up(checkpoint)

    def take_up(self, checkpoint: dict[str, Any]) -> None:
        """Reads what `more_values` has added."""


class SteppedTrainer(StockNamedTrainer):
    """Learning rates change with each iteration, not with each epoch; mirroring is a setting.

    `configure_optimizers` of a subclass gives a `StepSchedule`.
    """

    _step_of_epoch = 0

    @property
    def mirrors(self) -> bool:
        """Whether batches and predictions are mirrored, as nnU-Net does."""
        raise NotImplementedError

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802 - nnU-Net's
        """nnU-Net's augmentation, mirrored only if the settings say so."""
        *others, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.mirrors:
            axes = self.inference_allowed_mirroring_axes = None
        return *others, axes

    def on_train_epoch_start(self) -> None:
        """Counts the iterations of the epoch."""
        super().on_train_epoch_start()
        self._step_of_epoch = 0

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One iteration of nnU-Net with the learning rates of this step."""
        step = self.current_epoch * self.num_iterations_per_epoch + self._step_of_epoch
        self.lr_scheduler.set_step(step)
        self._step_of_epoch += 1
        return super().train_step(batch)


class StepSchedule(ABC):
    """Sets the learning rates of iterations; has no state, so that a resumed training needs none.

    Args:
        trainer: whose settings and budget decide.
        optimiser: whose rates are set.
    """

    def __init__(self, trainer: Any, optimiser: torch.optim.Optimizer) -> None:
        """Keeps both."""
        self.trainer = trainer
        self.optimiser = optimiser

    @property
    def total(self) -> int:
        """Iterations of the training."""
        return int(self.trainer.num_epochs * self.trainer.num_iterations_per_epoch)

    def step(self, epoch: int) -> None:
        """What nnU-Net calls before an epoch."""
        self.set_step(epoch * self.trainer.num_iterations_per_epoch)

    @abstractmethod
    def set_step(self, step: int) -> None:
        """Learning rates of an iteration, counted from the start of the training."""


def risen_and_fallen(step: int, total: int, warm: int, begin: int = 0) -> float:
    """Factor on a learning rate: nnU-Net's polynomial decay, after a rise over `warm` iterations.

    Args:
        step, total: iteration, from 0 on, and number of iterations.
        warm: iterations of the rise.
        begin: iteration that it begins at.

    Example:
        >>> [round(risen_and_fallen(step, 10, 1), 3) for step in (0, 1, 9)]
        [0.5, 0.91, 0.126]
    """
    return min(1.0, (step - begin + 1) / (warm + 1)) * (1 - step / total) ** _POWER
