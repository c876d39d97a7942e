"""What a stage's run keeps: its checkpoint, and which settings a resumed run must share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.nn.parallel import DistributedDataParallel

from screener_nnu.checkpoints import write_checkpoint
from screener_nnu.errors import ScreenerError
from screener_nnu.networks.layout import laid_out_plainly
from screener_nnu.paths import train_command
from screener_nnu.plans import Plan
from screener_nnu.stage_checkpoint import StageCheckpoint, check_finite
from screener_nnu.stages import STAGES

OTHER_UPSTREAM = (
    "{folder} was trained on stages that were trained anew since then; add --restart to start anew"
)


class StageState(nnUNetTrainer):
    """The part of `ScreenerTrainer` that writes and reads checkpoints."""

    stage: ClassVar[str]
    current_epoch: int
    plan: Plan
    upstream_identity: str
    global_step: int
    best_figure: float | None

    @property
    def model(self) -> Any:
        """What `build_model` made, without its distributed wrapper."""
        network: Any = self.network
        return network.module if isinstance(network, DistributedDataParallel) else network

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """State dictionaries by checkpoint key; `network_weights` must be among them."""
        return {"network_weights": self.model.state_dict()}

    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Takes up what `weights` gave."""
        self.model.load_state_dict(checkpoint["network_weights"])

    @classmethod
    def upstream(cls, dataset: str, plan: Plan) -> str:
        """Hash of the trained stages that this one builds on, as they are now; empty for none."""
        return ""

    def extra_state(self) -> dict[str, Any]:
        """More plain values for the checkpoint."""
        return {}

    def save_checkpoint(self, filename: str) -> None:
        """Writes everything that resuming and prediction need, as plain values and tensors."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        arguments = {k: v for k, v in self.my_init_kwargs.items() if k != "device"}
        weights = self.weights()
        checkpoint = {
            **weights,
            "optimizer_state": self.optimizer.state_dict(),
            "lr_scheduler_state": self.lr_scheduler.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler else None,
            "rng_state": torch.get_rng_state(),
            "logging": self.logger.get_checkpoint(),
            "best_figure": self.best_figure,
            "current_epoch": self.current_epoch + 1,
            "global_step": self.global_step,
            "plan": self.plan.to_dict(),
            "init_args": arguments,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": None,
            "upstream": self.upstream_identity,
            **self.extra_state(),
        }
        for key in weights:
            checkpoint[key] = laid_out_plainly(checkpoint[key])
        self.check_weights()
        write_checkpoint(_plain(checkpoint), Path(filename))

    def check_weights(self) -> None:
        """Stops a training whose weights are spoilt, before they are measured or written.

        Raises:
            ScreenerError: a weight is no finite number; the checkpoint of an earlier epoch stays.
        """
        try:
            check_finite(self.weights())
        except ScreenerError as error:
            raise self.diverged(str(error), self.global_step) from error

    def diverged(self, reason: str, step: int) -> ScreenerError:
        """The error of a training that went astray, at the latest in a step (from 1 on)."""
        return ScreenerError(
            f"the {self.stage} stage went astray at step {step}: {reason}. Train it anew "
            "(--restart) with a lower optimiser.learning_rate of this stage, or in full precision "
            "(-o low_precision_cpu=false on a processor, -device cpu in place of a GPU). The last "
            f"sound checkpoint, if an epoch had ended, stays in {self.output_folder}"
        )

    def own_checkpoint(self, name: str) -> StageCheckpoint:
        """A checkpoint of this run by its name in the results folder, or by its path."""
        command = train_command(self.plan.dataset, self.stage, self.plan.name)
        return StageCheckpoint(Path(self.output_folder) / name, self.stage, command)

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Takes up a run where its checkpoint, a file or what was read of one, left it."""
        if not self.was_initialized:
            self.initialize()
        checkpoint = filename_or_checkpoint
        if not isinstance(checkpoint, dict):
            # To the CPU: on a GPU, AdamW would wait for its step counts in every step.
            checkpoint = self.own_checkpoint(checkpoint).read()
        if self.relevant_settings(checkpoint["plan"]) != self.relevant_settings(self.plan):
            raise ScreenerError(
                f"{self.output_folder} was trained with other settings than the plan's; add "
                "--restart to start anew, or give the changed plan another name with -p"
            )
        if checkpoint.get("upstream", self.upstream_identity) != self.upstream_identity:
            raise ScreenerError(OTHER_UPSTREAM.format(folder=self.output_folder))
        try:
            self.load_weights(checkpoint)
        except RuntimeError as error:
            if "loading state_dict" not in str(error):  # of tensors that do not fit
                raise
            raise ScreenerError(
                f"{self.output_folder} holds other networks than those of the plan, perhaps of "
                "another version of this software; add --restart to start anew"
            ) from error
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        self.lr_scheduler.load_state_dict(checkpoint["lr_scheduler_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"]:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
        torch.set_rng_state(checkpoint["rng_state"].cpu())
        self.logger.load_checkpoint(checkpoint["logging"])
        self.best_figure = checkpoint["best_figure"]
        self.current_epoch = checkpoint["current_epoch"]
        self.global_step = checkpoint["global_step"]

    @classmethod
    def relevant_settings(cls, plan: Plan) -> list[Any]:
        """What of a plan changes this stage's result."""
        unimportant = {
            *STAGES,
            "reasons",
            "left_out",
            "workers",
            "inference",
            "calibration",
            "preset",
            "memory_gb",
        }
        settings = plan.settings.to_dict()
        common = {k: v for k, v in settings.items() if k not in unimportant}
        return json.loads(json.dumps([common, cls.own_settings(settings), plan.architecture]))

    @classmethod
    def own_settings(cls, settings: dict[str, Any]) -> Any:
        """The part of `ScreenerSettings`, as plain values, that only this stage reads."""
        return settings[cls.stage]


def _plain(value: Any) -> Any:
    """Tuples of plain values stay; NumPy scalars become Python's, so that loading runs no code."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    return value.item() if hasattr(value, "item") and not torch.is_tensor(value) else value
