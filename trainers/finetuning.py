"""`FineTuningTrainer`: nnU-Net's trainer for weights that have learned something already.

Its models are stock ones: nnU-Net predicts with them where screener_nnu was never installed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from screener_nnu.finetuning.checkpoint import SEGMENTATION_HEADS, unwrap
from screener_nnu.finetuning.settings import FineTuningSettings
from screener_nnu.trainers.stock_named import SteppedTrainer, StepSchedule, risen_and_fallen

HEADS, DECODER, ENCODER = "heads", "decoder", "encoder"


class FineTuningTrainer(SteppedTrainer):
    """Warm-up, lower rates for transferred layers, freezing, averaging; see `FineTuningSettings`.

    Whether weights were transferred is seen by comparing the network with its random start, so that
    the trainer also serves `nnUNetv2_train -pretrained_weights`. A network that was not given any
    is trained as nnU-Net does, but for the warm-up.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        """Takes nnU-Net's arguments; the plan holds the settings."""
        super().__init__(plans, configuration, fold, dataset_json, device)  # type: ignore[arg-type]
        self.fine_tuning = FineTuningSettings.of_plan(plans)
        self.num_epochs = self.fine_tuning.epochs
        self.num_iterations_per_epoch = self.fine_tuning.iterations
        self.initial_lr = self.fine_tuning.learning_rate
        self.weight_decay = self.fine_tuning.weight_decay
        self.transferred = False
        self._random: dict[str, torch.Tensor] = {}
        self._average: AveragedModel | None = None

    @property
    def mirrors(self) -> bool:
        """As the settings say."""
        return self.fine_tuning.mirroring

    def initialize(self) -> None:
        """Builds the network, and remembers its random weights."""
        super().initialize()
        self._random = {
            name: value.detach().cpu().clone()
            for name, value in unwrap(self.network).named_parameters()
            if part_of(name) != HEADS
        }

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PartSchedule]:
        """nnU-Net's SGD with a group for each part of the network."""
        parts: dict[str, list[nn.Parameter]] = {HEADS: [], DECODER: [], ENCODER: []}
        for name, value in self.network.named_parameters():
            parts[part_of(name)].append(value)
        # The heads come first: nnU-Net logs the learning rate of the first group.
        groups = [{"params": values, "part": part} for part, values in parts.items()]
        optimiser = torch.optim.SGD(
            groups, self.initial_lr, weight_decay=self.weight_decay, momentum=0.99, nesterov=True
        )
        return optimiser, PartSchedule(self, optimiser)

    def on_train_start(self) -> None:
        """Looks what was transferred before the first epoch."""
        super().on_train_start()
        if self.current_epoch == 0:
            self.take_over()
        self._random = {}

    def take_over(self) -> None:
        """Finds out whether there are transferred weights; resets the decoder if asked for."""
        network = unwrap(self.network)
        own = {name: value.detach().cpu() for name, value in network.named_parameters()}
        self.transferred = any(not torch.equal(own[n], v) for n, v in self._random.items())
        if self.transferred and not self.fine_tuning.transfer_decoder:
            self._reset_decoder(network)

    def _reset_decoder(self, network: nn.Module) -> None:
        with torch.no_grad():
            for name, value in network.named_parameters():
                if part_of(name) == DECODER:
                    value.copy_(self._random[name])

    def on_epoch_end(self) -> None:
        """Adds weights of one of the last epochs to their mean, before a checkpoint is written."""
        if self.current_epoch >= round((1 - self.fine_tuning.averaged) * self.num_epochs):
            if self._average is None:
                self._average = AveragedModel(unwrap(self.network))
            self._average.update_parameters(unwrap(self.network))
        super().on_epoch_end()

    def on_train_end(self) -> None:
        """Takes the mean, if there is one; the final checkpoint holds it."""
        if self._average is not None:
            unwrap(self.network).load_state_dict(self._average.module.state_dict())
            self._average = None
        super().on_train_end()

    def more_values(self) -> dict[str, Any]:
        """Whether there were weights to start from, and the mean of the last epochs so far."""
        mean = {} if self._average is None else {"average": self._average.state_dict()}
        return {"transferred": self.transferred, **mean}

    def went_astray(self, reason: str) -> str:
        """What is said of weights that are no numbers."""
        return (
            f"the fine-tuning went astray in epoch {self.current_epoch + 1}: {reason}. Train it "
            "anew (--restart) with a lower learning_rate; the last sound checkpoint stays in "
            f"{self.output_folder}"
        )

    def take_up(self, checkpoint: dict[str, Any]) -> None:
        """Whether there were weights to start from, and the mean so far."""
        self.transferred = bool(checkpoint.get("transferred", True))
        if "average" in checkpoint:
            self._average = AveragedModel(unwrap(self.network))
            self._average.load_state_dict(checkpoint["average"])


class PartSchedule(StepSchedule):
    """A rate for each part: the optimiser has a `part` in each group."""

    def set_step(self, step: int) -> None:
        """See `StepSchedule`."""
        settings, transferred = self.trainer.fine_tuning, self.trainer.transferred
        total = self.total
        for group in self.optimiser.param_groups:
            part = group["part"] if transferred else HEADS
            if part == DECODER and not settings.transfer_decoder:
                part = HEADS
            group["lr"] = part_learning_rate(settings, part, step, total)
            if part != HEADS and step == round(settings.frozen * total) > 0:
                # What they would have done while they were frozen is no longer of use.
                for value in group["params"]:
                    self.optimiser.state.pop(value, None)


def part_learning_rate(settings: FineTuningSettings, part: str, step: int, total: int) -> float:
    """Learning rate of a part of the network.

    Args:
        settings: see there.
        part: `encoder` or `decoder`, transferred; `heads` for all that starts anew.
        step, total: iteration, from 0 on, and number of iterations.
    """
    factors = {HEADS: 1.0, DECODER: settings.decoder_factor, ENCODER: settings.encoder_factor}
    begin = 0 if part == HEADS else round(settings.frozen * total)
    if step < begin:
        return 0.0
    warm = round(settings.warmup * total)
    return settings.learning_rate * factors[part] * risen_and_fallen(step, total, warm, begin)


def part_of(name: str) -> str:
    """Part of nnU-Net's UNet that a parameter belongs to."""
    if SEGMENTATION_HEADS in name:
        return HEADS
    return ENCODER if "encoder." in name else DECODER
