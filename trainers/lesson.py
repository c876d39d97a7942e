"""What the distillation stage may teach; each way is a file beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from screener_nnu.plans import DistillationSettings
from screener_nnu.trainers.reading import CaseReader

if TYPE_CHECKING:
    from screener_nnu.trainers.distillation import DistillationTrainer


class Lesson(ABC):
    """Targets and loss of a student.

    Args:
        trainer: of the stage, with plan, device and network.

    Attributes:
        outputs: of the student's UNet; training may add some behind them.
        score_statistics: of the scores that the student gives, see `measure_scores`; there once
            `make_ready` has run.
    """

    outputs: int = 1

    def __init__(self, trainer: DistillationTrainer) -> None:
        """Keeps the trainer."""
        self.trainer = trainer
        self.plan = trainer.plan
        self.settings = trainer.settings
        self.score_statistics: dict[str, float] = {}

    @property
    def distillation(self) -> DistillationSettings:
        """Settings of the stage."""
        return self.settings.distillation

    @property
    def device(self) -> torch.device:
        """That of the trainer."""
        device: torch.device = self.trainer.device
        return device

    @abstractmethod
    def build(self) -> nn.Module:
        """The module that is trained."""

    @abstractmethod
    def make_ready(self) -> None:
        """Work before every start; what is stored is kept."""

    @abstractmethod
    def reader(self, names: tuple[str, ...], stage: str) -> CaseReader[Any]:
        """Reads samples of some cases."""

    @abstractmethod
    def loss(self, batch: list[Any], step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `ScreenerTrainer.compute_loss`."""

    @abstractmethod
    def figure(self) -> float:
        """Pearson correlation with the teacher's scores in the bodies of validation scans."""

    @abstractmethod
    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """State dictionaries by checkpoint key; `network_weights` are those of the UNet."""

    @abstractmethod
    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Takes up what `weights` gave."""

    @property
    @abstractmethod
    def unet(self) -> nn.Module:
        """The student's UNet, which stock fine-tuning starts from, perhaps with more outputs."""

    def extra_state(self) -> dict[str, Any]:
        """More plain values for the checkpoint, which prediction needs."""
        return {"score_statistics": self.score_statistics}


def correlation(pairs: Sequence[torch.Tensor]) -> float:
    """Pearson correlation of pairs of values, (2, n) of each part."""
    return float(torch.corrcoef(torch.cat(list(pairs), dim=1).cpu().double())[0, 1])
