"""Checkpoints of trained stages: refused with a way out where they cannot be what is wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from screener_nnu.checkpoints import load_plain
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import finished_checkpoint, train_command
from screener_nnu.plans import Plan
from screener_nnu.stages import STAGES, trainer_name

#: Entries of a student that reads its condition: its head, its density, and what that is.
HEAD, DENSITY, OF_TEACHER = "reading_head_weights", "density_weights", "teacher"
#: State dictionaries that decide scores.
WEIGHTS = ("network_weights", HEAD, DENSITY)
_STATISTICS = {"mean", "std", "lowest", "highest"}
_NEEDED = {
    "density": ("channels", "score_statistics"),
    "igd": ("scales", "score_statistics"),
    "baseline": ("score_statistics",),
    "start": ("method_weights", "trained"),
    "distillation": ("score_statistics",),
}
_UNKNOWN = "{}, which this version of screener_nnu does not know: update it"


@dataclass(frozen=True)
class StageCheckpoint:
    """A file that should hold a stage; what is said about it names file, stage and way out.

    Attributes:
        path: of the checkpoint.
        stage: that is wanted.
        command: that trains it.
        chosen: the file was given by name, so that another one may be the way out.
    """

    path: Path
    stage: str
    command: str
    chosen: bool = False

    def read(self) -> dict[str, Any]:
        """Reads it to the CPU without running code of its own; its plan is a `Plan`.

        Raises:
            ScreenerError: missing, damaged, no checkpoint of this stage, of a version whose
                settings are unknown here, or with weights or statistics that are no finite numbers.
        """
        try:
            checkpoint = load_plain(self.path)
            self._check_stage(checkpoint)
            check_finite(checkpoint)
            if checkpoint.get("score_statistics"):  # a density has none before its last epoch
                check_statistics(checkpoint["score_statistics"])
            return {**checkpoint, "plan": self._plan(checkpoint["plan"])}
        except ScreenerError as error:
            raise self.refusal(str(error)) from error

    def fill(self, network: nn.Module, weights: Any) -> None:
        """Gives a network the weights that were read.

        Raises:
            ScreenerError: they are those of another network.
        """
        try:
            check_weights(weights, network.state_dict())
        except ScreenerError as error:
            raise self.refusal(str(error)) from error
        network.load_state_dict(weights)

    def check_finished(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuses what was read where it lacks the statistics that are measured at the end.

        Raises:
            ScreenerError: a run that has not finished left it.
        """
        if not checkpoint["score_statistics"]:
            raise self.refusal("it was left by a run that has not finished")

    def refusal(self, reason: str) -> ScreenerError:
        """The error that names file, reason and way out."""
        other = f"give the checkpoint_final.pth of another {self.stage} stage, or "
        return ScreenerError(
            f"{self.path} cannot be used as {self.stage} stage: {reason}; "
            f"{other if self.chosen else ''}train it anew with\n    {self.command} --restart"
        )

    def _check_stage(self, checkpoint: Mapping[str, Any]) -> None:
        plan = checkpoint.get("plan")
        if not isinstance(plan, dict) or not isinstance(plan.get("screener"), dict):
            maker = checkpoint.get("trainer_name")
            whose = f"a checkpoint of stock nnU-Net ({maker})" if maker else "no stage of ours"
            raise ScreenerError(f"it is {whose}, without a plan of screener_nnu")
        found = _stage_of(checkpoint)
        if found != self.stage:
            whose = (
                f"the {found} stage" if found else _UNKNOWN.format(checkpoint.get("trainer_name"))
            )
            raise ScreenerError(f"it is a checkpoint of {whose}")
        missing = [
            key
            for key in ("network_weights", *_NEEDED.get(self.stage, ()))
            if key not in checkpoint
        ]
        if missing:
            raise ScreenerError(f"it lacks {', '.join(missing)}")

    @staticmethod
    def _plan(values: Mapping[str, Any]) -> Plan:
        try:
            return Plan.from_dict(values)
        except ScreenerError as error:
            raise ScreenerError(f"its plan is none of this version's ({error})") from error


def finished_stage(dataset: int | str, stage: str, plans_name: str) -> StageCheckpoint:
    """The final checkpoint of a stage of a plan.

    Raises:
        ScreenerError: the stage has not finished; the message holds the command that trains it.
    """
    command = train_command(dataset, stage, plans_name)
    return StageCheckpoint(finished_checkpoint(dataset, stage, plans_name), stage, command)


def _stage_of(checkpoint: Mapping[str, Any]) -> str | None:
    """The stage that left a checkpoint with a plan of ours; None for one of a newer version."""
    trainer = checkpoint.get("trainer_name")
    stages = {trainer_name(stage): stage for stage in STAGES}
    if trainer in stages:
        return stages[trainer]
    # A student bears the stock trainer's name, for nnU-Net to start from.
    is_student = "score_statistics" in checkpoint and "channels" not in checkpoint
    return "distillation" if is_student else None


def check_finite(checkpoint: Mapping[str, Any]) -> None:
    """Refuses tensors of state dictionaries that are not finite.

    Raises:
        ScreenerError: names the first one.
    """
    for values in checkpoint.values():
        for name, value in values.items() if isinstance(values, dict) else ():
            if torch.is_tensor(value) and not torch.isfinite(value).all():
                raise ScreenerError(f"{name} holds values that are no finite numbers")


def check_weights(weights: Any, network: Mapping[str, torch.Tensor]) -> None:
    """Refuses weights that are not those of a network: other names, shapes, types or no numbers.

    Args:
        weights: what should be a state dictionary on the CPU.
        network: a state dictionary of the network, perhaps on the device `meta`.

    Raises:
        ScreenerError: names the first tensor that does not fit.
    """
    if not isinstance(weights, dict) or set(weights) != set(network):
        given = set(weights) if isinstance(weights, dict) else set()
        odd = sorted(str(key) for key in given ^ set(network))
        raise ScreenerError(f"its tensors do not fit the plan's network, first at {odd[:3]}")
    for name, expected in network.items():
        tensor = weights[name]
        plain = type(tensor) is torch.Tensor and tensor.layout == torch.strided
        if not plain or tensor.device.type != "cpu":
            raise ScreenerError(f"{name} is no plain tensor")
        if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise ScreenerError(
                f"{name} is {tuple(tensor.shape)} {tensor.dtype}, but the plan's network wants "
                f"{tuple(expected.shape)} {expected.dtype}"
            )
    check_finite({"network_weights": weights})


def check_statistics(values: Any) -> None:
    """Refuses score statistics that are not four finite numbers with a positive deviation.

    Raises:
        ScreenerError: in nats, they would be no scale.
    """
    numbers = values.values() if isinstance(values, dict) else ()
    finite = all(isinstance(n, float) and math.isfinite(n) for n in numbers)
    if not numbers or set(values) != _STATISTICS or not finite or not values["std"] > 0:
        raise ScreenerError(
            f"its score statistics are no finite {', '.join(sorted(_STATISTICS))} in nats with a "
            f"deviation above 0, but {values}"
        )
