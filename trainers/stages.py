"""The stages by name, in the order in which they build on each other."""

from __future__ import annotations

from screener_nnu.errors import ScreenerError
from screener_nnu.paths import STAGE_TRAINERS
from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.condition import ConditionTrainer
from screener_nnu.trainers.density import DensityTrainer
from screener_nnu.trainers.descriptor import DescriptorTrainer
from screener_nnu.trainers.distillation import DistillationTrainer
from screener_nnu.trainers.position import PositionTrainer

STAGES: dict[str, type[ScreenerTrainer]] = {
    trainer.stage: trainer
    for trainer in (
        DescriptorTrainer,
        ConditionTrainer,
        PositionTrainer,
        DensityTrainer,
        DistillationTrainer,
    )
}
assert {name: trainer.__name__ for name, trainer in STAGES.items()} == STAGE_TRAINERS


def trainer_of(stage: str) -> type[ScreenerTrainer]:
    """The trainer of a stage; `ScreenerError` lists the known ones."""
    if stage not in STAGES:
        raise ScreenerError(f"no stage '{stage}'; known: {', '.join(STAGES)}")
    return STAGES[stage]
