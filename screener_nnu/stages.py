"""The stages that are trained, as data: commands and paths know them without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from screener_nnu.errors import ScreenerError

#: Trainer of each stage, `module:class`, in the order in which they build on each other.
STAGES: dict[str, str] = {
    "descriptor": "screener_nnu.trainers.descriptor:DescriptorTrainer",
    "condition": "screener_nnu.trainers.condition:ConditionTrainer",
    "position": "screener_nnu.trainers.position:PositionTrainer",
    "density": "screener_nnu.trainers.density:DensityTrainer",
    "pretext": "screener_nnu.trainers.pmsacl:PretextTrainer",
    "igd": "screener_nnu.trainers.igd:IgdTrainer",
    "start": "screener_nnu.trainers.start:StartTrainer",
    "baseline": "screener_nnu.trainers.baseline:BaselineTrainer",
    "distillation": "screener_nnu.trainers.distillation:DistillationTrainer",
}

#: Where the settings of a plan hold the optimiser of each stage.
OPTIMISERS: dict[str, str] = {
    "descriptor": "descriptor.optimiser",
    "condition": "condition.contrast.optimiser",
    "position": "condition.position.optimiser",
    "density": "density.optimiser",
    "pretext": "pretext.optimiser",
    "igd": "igd.optimiser",
    "start": "start.optimiser",
    "baseline": "baseline.optimiser",
    "distillation": "distillation.optimiser",
}


def trainer_name(stage: str) -> str:
    """Class name of a stage's trainer, which its results folder begins with.

    Raises:
        ScreenerError: no such stage.
    """
    if stage not in STAGES:
        raise ScreenerError(f"no stage '{stage}'; known: {', '.join(STAGES)}")
    return STAGES[stage].rpartition(":")[2]


def load_object(path: str) -> Any:
    """What `module:name` stands for."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def load_named(registry: Mapping[str, str], name: str, what: str) -> Any:
    """What a name of a registry of `module:name` stands for.

    Args:
        registry: paths by name.
        name: that a plan has.
        what: the setting that holds it, for the message.

    Raises:
        ScreenerError: the name is not known; the message lists those that are.
    """
    if name not in registry:
        raise ScreenerError(f"no {what} '{name}'; known: {', '.join(registry)}")
    return load_object(registry[name])
