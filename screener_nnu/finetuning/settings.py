"""Settings of `FineTuningTrainer`, kept in the plan of the labelled dataset."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from screener_nnu.errors import ScreenerError

FINE_TUNING_TRAINER = "FineTuningTrainer"
# Of a plan that was moved into a labelled dataset: where it comes from, and these settings.
PROVENANCE = "screener_finetuning"


@dataclass(frozen=True)
class FineTuningSettings:
    """How transferred weights are trained on; layers that start anew are trained as nnU-Net does.

    Attributes:
        epochs, iterations: epochs, and training iterations of each.
        learning_rate: of layers that start anew; SGD with polynomial decay, as nnU-Net.
        encoder_factor, decoder_factor: learning rate of transferred layers, as a fraction of that.
        warmup: part of the training over which a learning rate rises from 0; that of transferred
            layers starts to rise when they are no longer frozen.
        frozen: part of the training, from its start, in which transferred layers stay as they are.
        transfer_decoder: take the decoder over as well; without it, it starts anew.
        weight_decay: as nnU-Net's unless changed.
    """

    epochs: int = 250
    iterations: int = 250
    learning_rate: float = 1e-2
    encoder_factor: float = 0.3
    decoder_factor: float = 0.3
    warmup: float = 0.05
    frozen: float = 0.0
    transfer_decoder: bool = True
    weight_decay: float = 3e-5

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

    @classmethod
    def of_plan(cls, plan: Mapping[str, Any]) -> FineTuningSettings:
        """Settings of a plan; those it does not name have their defaults.

        Raises:
            ScreenerError: it names one that does not exist.
        """
        values = dict(plan.get(PROVENANCE, {}).get("settings", {}))
        odd = sorted(set(values) - {f.name for f in fields(cls)})
        if odd:
            raise ScreenerError(f"unknown fine-tuning settings in the plan: {', '.join(odd)}")
        return cls(**values)

    def override(self, words: Sequence[str]) -> FineTuningSettings:
        """The same with other values.

        Args:
            words: `key=value`, values as in JSON.

        Raises:
            ScreenerError: no such setting, or a value of another kind.
        """
        changes: dict[str, Any] = {}
        for word in words:
            key, _, text = word.partition("=")
            if key not in asdict(self):
                known = ", ".join(asdict(self))
                raise ScreenerError(f"no fine-tuning setting '{key}'; known: {known}")
            changes[key] = _value(key, text, getattr(self, key))
        return replace(self, **changes)

    def to_plan(self) -> dict[str, Any]:
        """For the plan: a budget only where it was changed, since commands record their own."""
        default = FineTuningSettings()
        values = asdict(self)
        for key in ("epochs", "iterations"):
            if values[key] == getattr(default, key):
                del values[key]
        return values

    @property
    def suffix(self) -> str:
        """What sets a plan with these settings apart: empty for the defaults, else a hash."""
        if self == FineTuningSettings():
            return ""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


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
