"""Trained stages from their checkpoints, put together to teacher and student."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from screener_nnu.conditions import TRAINED_BY, Condition, build_condition
from screener_nnu.conditions.ape import POSITION_CHANNELS
from screener_nnu.densities import new_density
from screener_nnu.descriptors import DENSE, OF_THE_PLAN, descriptor_class
from screener_nnu.descriptors.base import EQUALISED
from screener_nnu.detectors import ModelRef
from screener_nnu.detectors.base import LoadedDetector
from screener_nnu.errors import ScreenerError
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import DensitySettings, ScreenerSettings
from screener_nnu.scoring.student import Student
from screener_nnu.scoring.teacher import FeatureExtractor, Teacher
from screener_nnu.stage_checkpoint import StageCheckpoint, finished_stage

UNTRAINED = "untrained"


def load_features(
    dataset: str, plan: dict[str, Any], settings: DensitySettings
) -> FeatureExtractor:
    """Descriptor and condition that a density stage builds on.

    Each comes from the plan that the settings name (their own plan by default) with the settings of
    its checkpoint. The name `untrained` stands for the network with its initial weights, the
    control of every comparison.

    Raises:
        ScreenerError: a stage is missing; the message holds the command that trains it.
    """
    own = ScreenerSettings.from_dict(plan["screener"])
    descriptor = _load_descriptor(dataset, plan, own, settings)
    condition = _load_condition(dataset, plan, own, settings.condition_plans)
    return FeatureExtractor(descriptor, condition, settings.pooling, own.low_precision_cpu)


def _load_descriptor(
    dataset: str, plan: dict[str, Any], own: ScreenerSettings, settings: DensitySettings
) -> nn.Module:
    """The plan's UNet, levels of it, or a network that came from elsewhere."""
    unet: list[nn.Module] = []
    if settings.descriptor in OF_THE_PLAN:
        source = settings.descriptor_plans or plan["plans_name"]
        if source == UNTRAINED:
            unet = [stage_unet(plan, own, "descriptor", own.seed)]
        else:
            unet = [_trained_unet(dataset, "descriptor", source)[0]]
    if settings.descriptor == DENSE:
        return unet[0]
    kind: Any = descriptor_class(settings.descriptor)
    options = kind.options(settings.descriptor_options, "screener.density.descriptor_options")
    descriptor = kind(*unet, **options)
    descriptor.check_spacing(own.preprocessing.spacing)
    if descriptor.reads != EQUALISED:
        raise ScreenerError(
            f"the network of the descriptor reads {descriptor.reads}, and a density gives it the "
            "equalised image in [0, 1]: export it with that as its input"
        )
    return descriptor


def _load_condition(
    dataset: str, plan: dict[str, Any], own: ScreenerSettings, source: str
) -> Condition:
    kind = own.condition.kind
    if kind not in TRAINED_BY:
        return build_condition(kind)
    stage = TRAINED_BY[kind]
    if source == UNTRAINED:
        network, settings = stage_unet(plan, own, stage, own.seed + 1), own
    else:
        network, settings = _trained_unet(dataset, stage, source or plan["plans_name"])
    if stage == "position":
        return build_condition(kind, network=network)
    channels = settings.condition.contrast.channels
    return build_condition(kind, network=network, channels=channels)


def stage_unet(
    plan: dict[str, Any], settings: ScreenerSettings, stage: str, seed: int | None = None
) -> nn.Module:
    """The network of a self-supervised stage."""
    if stage == "descriptor":
        return build_unet(plan, 1, settings.descriptor.channels, seed)
    if stage == "condition":
        return build_unet(plan, 2, settings.condition.contrast.channels, seed)
    return build_unet(plan, 2, POSITION_CHANNELS, seed, settings.condition.position.width)


def _trained_unet(dataset: str, stage: str, plans_name: str) -> tuple[nn.Module, ScreenerSettings]:
    """The network of a finished stage, and the settings that it was trained with."""
    file = finished_stage(dataset, stage, plans_name)
    checkpoint = file.read()
    trained = ScreenerSettings.from_dict(checkpoint["plan"]["screener"])
    network = stage_unet(checkpoint["plan"], trained, stage)
    file.fill(network, checkpoint["network_weights"])
    return network, trained


def load_teacher(model: ModelRef, device: torch.device) -> LoadedDetector:
    """Descriptor, condition and density of a model whose last stage is a density."""
    dataset = str(model.dataset)
    file = StageCheckpoint(model.file, model.stage, model.train_command)
    checkpoint = file.read()
    plan = checkpoint["plan"]
    settings = ScreenerSettings.from_dict(plan["screener"]).density
    features = load_features(dataset, plan, settings)
    if checkpoint.get("features") not in (None, features.identity()):
        raise ScreenerError(
            f"descriptor or condition were trained anew after the density of {model.plans}; run\n"
            f"    {model.train_command} --restart"
        )
    if not checkpoint["score_statistics"]:
        raise file.refusal("it was left by a run that has not finished")
    channels, cond_channels = checkpoint["channels"]
    density = new_density(settings, channels, cond_channels)
    density.resize_to(checkpoint["network_weights"])
    file.fill(density, checkpoint["network_weights"])
    teacher = Teacher(features, density).to(device).eval()
    return LoadedDetector(teacher, plan, checkpoint["score_statistics"])


def load_student(model: ModelRef, device: torch.device) -> LoadedDetector:
    """A distilled student, with its teacher's score statistics."""
    chosen = model.checkpoint is not None
    file = StageCheckpoint(model.file, model.stage, model.train_command, chosen=chosen)
    checkpoint = file.read()
    plan = checkpoint["plan"]
    statistics = checkpoint["score_statistics"]
    network = build_unet(plan, 1, 1)
    file.fill(network, checkpoint["network_weights"])
    low_precision_cpu = ScreenerSettings.from_dict(plan["screener"]).low_precision_cpu
    student = Student(network, statistics["mean"], statistics["std"], low_precision_cpu)
    return LoadedDetector(student.to(device).eval(), plan, statistics)
