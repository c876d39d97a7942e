"""What a trained detector costs: training, time to score, size."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from screener_nnu.checkpoints import read_checkpoint
from screener_nnu.descriptors import PRETEXT
from screener_nnu.detectors import IGD, ModelRef
from screener_nnu.detectors.base import LoadedDetector
from screener_nnu.inference.models import trained_stages
from screener_nnu.inference.volume import score_map
from screener_nnu.paths import finished_checkpoint, plan_file
from screener_nnu.plans import TEACHER, read_plan, write_json
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.trainers.stage_logger import training_seconds

_TIMED_SCANS = 3


@dataclass(frozen=True)
class Costs:
    """Costs of a detector.

    Attributes:
        seconds: to score a prepared scan, the median of a few, on the device and its processors.
        megabytes: of weights and of what was fitted.
        parameters: of all its networks, whoever trained them.
        training_seconds: of all trained stages that it is made of, alone or shared; None where one
            of them, of an earlier version, does not say.
        steps: optimiser steps by stage and plan, in the order of training; 0 of what is fitted.
    """

    seconds: float
    megabytes: float
    parameters: int
    training_seconds: float | None
    steps: dict[str, int]


def costs_of(
    model: ModelRef,
    loaded: LoadedDetector,
    cases: CaseFolder,
    names: Sequence[str],
    device: torch.device,
    kept: Path,
) -> Costs:
    """Measures a detector on a few prepared scans, once.

    Args:
        model: which it is.
        loaded: on the device.
        cases: folder of the scans.
        names: of scans; the first three are scored.
        device: of the detector.
        kept: file of the seconds that were measured.
    """
    if not kept.is_file():
        write_json(kept, {"seconds": _seconds(loaded, cases, names, device)})
    steps, spent = {}, []
    for stage, plans in made_of(model):
        checkpoint = read_checkpoint(finished_checkpoint(model.dataset, stage, plans))
        steps[f"{stage} of {plans}"] = int(checkpoint.get("global_step", 0))
        spent.append(training_seconds(checkpoint["logging"]["values"]))
    known = [one for one in spent if one is not None]
    return Costs(
        json.loads(kept.read_text(encoding="utf-8"))["seconds"],
        sum(v.numel() * v.element_size() for v in loaded.module.state_dict().values()) / 1e6,
        sum(p.numel() for p in loaded.module.parameters()),
        sum(known) if len(known) == len(spent) else None,
        steps,
    )


def _seconds(
    loaded: LoadedDetector, cases: CaseFolder, names: Sequence[str], device: torch.device
) -> float:
    spent = []
    for case in names[:_TIMED_SCANS]:
        images = cases.read(case, "hu"), cases.read(case, "equalised")
        begun = time.perf_counter()
        score_map(loaded.module, *images, loaded.plan, device, cases.read(case, "body"))
        spent.append(time.perf_counter() - begun)
    return float(np.median(spent))


def made_of(model: ModelRef) -> list[tuple[str, str]]:
    """Trained stages that a detector is made of, each with its plan, wherever they come from."""
    settings = read_plan(plan_file(model.dataset, model.trained_plans)).settings
    own = [(model.stage, model.trained_plans)]
    if model.stage == "density":
        return trained_stages(model.trained_plans, settings)
    if model.stage == IGD:
        sources = dict.fromkeys(settings.igd.sources(model.trained_plans).values())
        return [*((PRETEXT, plans) for plans in sources), *own]
    if model.stage == "distillation" and settings.distillation.target == TEACHER:
        teacher = settings.distillation.density_plans or model.plans
        of_teacher = read_plan(plan_file(model.dataset, teacher)).settings
        return [*trained_stages(teacher, of_teacher), *own]
    return own
