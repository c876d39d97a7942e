"""Detectors of other groups, read from a checkpoint."""

from __future__ import annotations

import torch

from screener_nnu.baselines.base import build_method
from screener_nnu.detectors import ModelRef
from screener_nnu.detectors.base import LoadedDetector
from screener_nnu.plans import Plan
from screener_nnu.scoring.baseline import BaselineDetector
from screener_nnu.stage_checkpoint import StageCheckpoint


def load_baseline(model: ModelRef, device: torch.device) -> LoadedDetector:
    """The trained method of a plan.

    Raises:
        ScreenerError: the stage is missing, damaged or has not finished; the message holds the way
            out.
    """
    file = StageCheckpoint(model.file, model.stage, model.train_command)
    checkpoint = file.read()
    file.check_finished(checkpoint)
    plan: Plan = checkpoint["plan"]
    method = build_method(plan, empty=True)
    file.fill(method, checkpoint["network_weights"])
    detector = BaselineDetector(method, plan).to(device).eval()
    return LoadedDetector(detector, plan, checkpoint["score_statistics"])
