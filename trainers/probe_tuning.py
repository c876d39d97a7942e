"""`ProbeTuningTrainer`: a head on the frozen network first, then both are trained on by nnU-Net."""

from __future__ import annotations

from typing import cast

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from screener_nnu.finetuning.settings import ProbeTuningSettings
from screener_nnu.trainers.probe import ProbeTrainer
from screener_nnu.trainers.stock_named import SteppedTrainer, StepSchedule, risen_and_fallen


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
        if self.current_epoch == 0:
            self.fit()
        nnUNetTrainer.run_training(self)

    def went_astray(self, reason: str) -> str:
        """What is said of weights that are no numbers."""
        return (
            f"the training went astray: {reason}. Train it anew (--restart) with a lower "
            "tuning_rate"
        )


class TuningSchedule(StepSchedule):
    """One rate for all layers."""

    def set_step(self, step: int) -> None:
        """See `StepSchedule`."""
        settings = self.trainer.tuning
        warm = round(settings.tuning_warmup * self.total)
        rate = settings.tuning_rate * risen_and_fallen(step, self.total, warm)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
