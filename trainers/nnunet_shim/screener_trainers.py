"""Lets stock nnU-Net find the trainers: name this folder in `nnUNet_extTrainer`."""

from screener_nnu.stages import STAGES, load_object, trainer_name
from screener_nnu.trainers.finetuning import FineTuningTrainer
from screener_nnu.trainers.probe import ProbeTrainer
from screener_nnu.trainers.probe_tuning import ProbeTuningTrainer

globals().update({trainer_name(stage): load_object(path) for stage, path in STAGES.items()})

__all__ = ["FineTuningTrainer", "ProbeTrainer", "ProbeTuningTrainer", *map(trainer_name, STAGES)]
