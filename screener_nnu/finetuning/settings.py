"""Settings of the trainers of fine-tuning, kept in the plan of the labelled dataset."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from screener_nnu.errors import ScreenerError

if TYPE_CHECKING:
    from typing_extensions import Self

FINE_TUNING_TRAINER, PROBE_TRAINER = "FineTuningTrainer", "ProbeTrainer"
PROBE_TUNING_TRAINER = "ProbeTuningTrainer"
# Of a plan that was moved into a labelled dataset: where it comes from, and these settings.
PROVENANCE = "screener_finetuning"
#: How nnU-Net finds the network of a probe.
PROBED_UNET = "screener_nnu.networks.probed.ProbedUNet"


@dataclass(frozen=True)
class TrainerSettings:
    """What the settings of all trainers can do.

    Attributes:
        trainer: class that they belong to.
        word: what asks for it at the end of a start's name, `student:<word>`.
        later: settings that came later; with their defaults they stand in no plan and no name, so
            that trainings of before are found again.
    """

    trainer: ClassVar[str]
    word: ClassVar[str]
    later: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def keys(cls) -> list[str]:
        """Names of the settings."""
        return [f.name for f in fields(cls)]

    @classmethod
    def of_plan(cls, plan: Mapping[str, Any]) -> Self:
        """Settings of a plan; those it does not name have their defaults.

        Raises:
            ScreenerError: it names one that does not exist.
        """
        values = dict(plan.get(PROVENANCE, {}).get("settings", {}))
        odd = sorted(set(values) - set(cls.keys()))
        if odd:
            raise ScreenerError(f"unknown fine-tuning settings in the plan: {', '.join(odd)}")
        return cls(**values)

    def override(self, words: Sequence[str]) -> Self:
        """The same with other values.

        Args:
            words: `key=value`, values as in JSON.

        Raises:
            ScreenerError: no such setting, or a value of another kind.
        """
        changes: dict[str, Any] = {}
        for word in words:
            key, _, text = word.partition("=")
            if key not in self.keys():
                known = ", ".join(self.keys())
                raise ScreenerError(f"no fine-tuning setting '{key}'; known: {known}")
            changes[key] = _value(key, text, getattr(self, key))
        return replace(self, **changes)

    def to_plan(self) -> dict[str, Any]:
        """For the plan."""
        return self._told(self.later)

    def _told(self, silent: Sequence[str]) -> dict[str, Any]:
        """All settings but those of `silent` that have their defaults."""
        default = type(self)()
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in silent or value != getattr(default, key)
        }

    def architecture(self, planned: Mapping[str, Any]) -> dict[str, Any]:
        """The network of the plan, as the trainer trains it."""
        return dict(planned)

    @property
    def suffix(self) -> str:
        """What sets a plan with these settings apart: empty for the defaults, else a hash."""
        if self == type(self)():
            return ""
        text = json.dumps(self._told(self.later), sort_keys=True)
        return f"-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


@dataclass(frozen=True)
class FineTuningSettings(TrainerSettings):
    """How transferred weights are trained on; layers that start anew are trained as nnU-Net does.

    Attributes:
        epochs, iterations: epochs, and training iterations of each.
        learning_rate: of layers that start anew; SGD with polynomial decay, as nnU-Net.
        encoder_factor, decoder_factor: learning rate of transferred layers, as a fraction of that.
        warmup: part of the training over which a learning rate rises from 0; that of transferred
            layers starts to rise when they are no longer frozen.
        frozen: part of the training, from its start, in which transferred layers stay as they are.
        transfer_decoder: take the decoder over as well; without it, it starts anew.
        averaged: part of the training, at its end, over whose epochs the weights are averaged; 0
            keeps those of the last step.
        weight_decay: as nnU-Net's unless changed.
        mirroring: of batches and predictions. Without it left and right may be told apart, and a
            prediction takes an eighth of the time.
    """

    trainer: ClassVar[str] = FINE_TUNING_TRAINER
    word: ClassVar[str] = "tuned"
    later: ClassVar[tuple[str, ...]] = ("mirroring",)

    epochs: int = 250
    iterations: int = 250
    learning_rate: float = 1e-2
    encoder_factor: float = 0.3
    decoder_factor: float = 0.3
    warmup: float = 0.05
    frozen: float = 0.0
    transfer_decoder: bool = True
    averaged: float = 0.0
    weight_decay: float = 3e-5
    mirroring: bool = True

    def __post_init__(self) -> None:
        """Refuses what cannot be trained with.

        Raises:
            ScreenerError: a number is out of its range.
        """
        if not all(math.isfinite(value) for value in asdict(self).values()):
            raise ScreenerError("settings of FineTuningTrainer must be finite numbers")
        if min(self.epochs, self.iterations) < 1:
            raise ScreenerError("epochs and iterations must be at least 1")
        if self.learning_rate <= 0 or min(self.encoder_factor, self.decoder_factor) < 0:
            raise ScreenerError("learning_rate must be above 0, and its factors not negative")
        if self.weight_decay < 0:
            raise ScreenerError("weight_decay may not be negative")
        if min(self.warmup, self.frozen) < 0 or self.warmup + self.frozen >= 1:
            raise ScreenerError(
                "warmup and frozen are parts of the training: from 0 on, and together below 1"
            )
        if not 0 <= self.averaged <= 1:
            raise ScreenerError("averaged is a part of the training: 0 to 1")

    def to_plan(self) -> dict[str, Any]:
        """For the plan: a budget only where it was changed, since commands record their own."""
        return self._told((*self.later, "epochs", "iterations"))


@dataclass(frozen=True)
class ProbeSettings(TrainerSettings):
    """A perceptron of one hidden layer on the features of a frozen network, see `ProbeTrainer`.

    Attributes:
        hidden: its width.
        patches: drawn from each training case.
        voxels: drawn of each label of a patch, at most.
        steps, batch: of AdamW, with a cosine; voxels of a step.
        learning_rate, weight_decay: of it.
        dropout: part of the hidden layer that is left out in a step.
    """

    trainer: ClassVar[str] = PROBE_TRAINER
    word: ClassVar[str] = "probe"

    hidden: int = 64
    patches: int = 24
    voxels: int = 300
    steps: int = 1500
    batch: int = 4096
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what cannot be fitted with.

        Raises:
            ScreenerError: a number is out of its range.
        """
        counts = self.hidden, self.patches, self.voxels, self.steps, self.batch
        if min(counts) < 1:
            raise ScreenerError("hidden, patches, voxels, steps and batch must be at least 1")
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise ScreenerError("learning_rate must be above 0, and weight_decay not negative")
        if not 0 <= self.dropout < 1:
            raise ScreenerError("dropout is a part: from 0 on, and below 1")

    def architecture(self, planned: Mapping[str, Any]) -> dict[str, Any]:
        """The planned UNet with the head."""
        arguments = {**planned["arch_kwargs"], "hidden": self.hidden}
        arguments["unet"] = planned["network_class_name"]
        return {**planned, "network_class_name": PROBED_UNET, "arch_kwargs": arguments}


@dataclass(frozen=True)
class ProbeTuningSettings(ProbeSettings):
    """A probe whose network and head are then trained on together, see `ProbeTuningTrainer`.

    Attributes:
        tuning_rate: learning rate of SGD; polynomial decay, as nnU-Net.
        tuning_warmup: part of the training over which it rises from 0.
        mirroring: see `FineTuningSettings`.
    """

    trainer: ClassVar[str] = PROBE_TUNING_TRAINER
    word: ClassVar[str] = "lpft"

    tuning_rate: float = 1e-3
    tuning_warmup: float = 0.05
    mirroring: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be trained with.

        Raises:
            ScreenerError: a number is out of its range.
        """
        super().__post_init__()
        if not 0 < self.tuning_rate < math.inf:
            raise ScreenerError("tuning_rate must be above 0")
        if not 0 <= self.tuning_warmup < 1:
            raise ScreenerError("tuning_warmup is a part of the training: from 0 on, and below 1")


#: Settings by the word that asks for their trainer.
SETTINGS: dict[str, type[TrainerSettings]] = {
    one.word: one for one in (FineTuningSettings, ProbeSettings, ProbeTuningSettings)
}


def _value(key: str, text: str, present: Any) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(present, float) and number:
        return float(value)
    if type(value) is type(present):
        return value
    kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(present)]
    raise ScreenerError(f"{key}={text}: {key} is {kind}")
