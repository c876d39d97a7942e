"""The trainer of a stage by its name."""

from __future__ import annotations

from screener_nnu.stages import STAGES, load_object, trainer_name
from screener_nnu.trainers.base import ScreenerTrainer


def trainer_of(stage: str) -> type[ScreenerTrainer]:
    """The trainer of a stage; `ScreenerError` lists the known ones."""
    trainer_name(stage)
    trainer: type[ScreenerTrainer] = load_object(STAGES[stage])
    return trainer
