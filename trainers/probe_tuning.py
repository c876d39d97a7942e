"""`ProbeTuningTrainer`: a head on the frozen network first, then both are trained on by nnU-Net."""

from __future__ import annotations

from typing import cast

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from screener_nnu.finetuning.settings import ProbeTuningSettings
from screener_nnu.trainers.probe import ProbeTrainer
from screener_nnu.trainers.stock_named import SteppedTrainer, risen_and_fallen


class ProbeTuningTrainer(SteppedTrainer, ProbeTrainer):
    """Fine-tuning that begins where a probe ends.

    A head that starts at random sends gradients into the network that undo what it has learned,
    before the head is of any use. So the head is fitted first; then nnU-Net's loop, loss and
    augmentation train head and network together, by SGD at a low rate.

    References:
        Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform
        Out-of-Distribution (linear probing, then fine-tuning: LP-FT), ICLR 2022,
        https://arxiv.org/abs/2202.10054.
    """

    settings_class = ProbeTuningSettings

    @property
    def tuning(self) -> ProbeTuningSettings:
        """Settings, which the plan holds."""
        return cast(ProbeTuningSettings, self.probe)

    def initialize(self) -> None:
        """Builds the network, all of which learns in the end."""
        self.initial_lr = self.tuning.tuning_rate
        super().initialize()
        self.probed.requires_grad_(True)

    @property
    def mirrors(self) -> bool:
        """As the settings say."""
        return self.tuning.mirroring

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, TuningSchedule]:
        """nnU-Net's SGD, at a rate that rises first."""
        optimiser, _ = super().configure_optimizers()
        return optimiser, TuningSchedule(self, optimiser)

    def run_training(self) -> None:
        """Fits the head, unless a training goes on, and trains all."""
        if not self.was_initialized:
            self.initialize()
        if self.current_epoch == 0:
            self.fit()
        nnUNetTrainer.run_training(self)

    def went_astray(self, reason: str) -> str:
        """What is said of weights that are no numbers."""
        return (
            f"the training went astray: {reason}. Train it anew (--restart) with a lower "
            "tuning_rate"
        )


class TuningSchedule:
    """Sets the learning rate of all layers.

    Args:
        trainer: whose settings and budget decide.
        optimiser: of all layers.
    """

    def __init__(self, trainer: ProbeTuningTrainer, optimiser: torch.optim.Optimizer) -> None:
        """Keeps both."""
        self.trainer = trainer
        self.optimiser = optimiser

    def step(self, epoch: int) -> None:
        """What nnU-Net calls before an epoch."""
        self.set_step(epoch * self.trainer.num_iterations_per_epoch)

    def set_step(self, step: int) -> None:
        """The learning rate of an iteration, counted from the start of the training."""
        settings = self.trainer.tuning
        total = self.trainer.num_epochs * self.trainer.num_iterations_per_epoch
        factor = risen_and_fallen(step, total, round(settings.tuning_warmup * total))
        for group in self.optimiser.param_groups:
            group["lr"] = settings.tuning_rate * factor
