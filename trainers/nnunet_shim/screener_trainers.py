"""Lets stock nnU-Net find the trainers: name this folder in `nnUNet_extTrainer`."""

from screener_nnu.trainers.condition import ConditionTrainer
from screener_nnu.trainers.density import DensityTrainer
from screener_nnu.trainers.descriptor import DescriptorTrainer
from screener_nnu.trainers.distillation import DistillationTrainer
from screener_nnu.trainers.finetuning import FineTuningTrainer
from screener_nnu.trainers.position import PositionTrainer

__all__ = [
    "ConditionTrainer",
    "DensityTrainer",
    "DescriptorTrainer",
    "DistillationTrainer",
    "FineTuningTrainer",
    "PositionTrainer",
]
