"""Trained stages from their checkpoints, put together to teacher and student."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from screener_nnu import conditions, descriptors
from screener_nnu.conditions import Condition, build_condition
from screener_nnu.conditions.ape import POSITION_CHANNELS
from screener_nnu.densities import new_density
from screener_nnu.descriptors import DENSE, PRETEXT, UNTRAINED, descriptor_class, descriptor_of
from screener_nnu.descriptors.image_encoder import ImageEncoder, build_image_encoder
from screener_nnu.detectors import ModelRef
from screener_nnu.detectors.base import LoadedDetector
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.reading_student import StudentParts, read_entry
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import Plan, ScreenerSettings
from screener_nnu.scoring.reading_student import ReadingStudent
from screener_nnu.scoring.student import Student
from screener_nnu.scoring.teacher import FeatureExtractor, Teacher
from screener_nnu.stage_checkpoint import (
    DENSITY,
    HEAD,
    OF_TEACHER,
    StageCheckpoint,
    finished_stage,
)


def trained_stages(density_plans: str, settings: ScreenerSettings) -> list[tuple[str, str]]:
    """The trained stages of a teacher and their plans, in the order of training.

    Args:
        density_plans: plan of the density.
        settings: that the density was trained with.
    """
    density, kind = settings.density, settings.condition.kind
    stages = []
    if density.descriptor in descriptors.TRAINED_BY:
        stage = descriptors.TRAINED_BY[density.descriptor]
        stages.append((stage, density.descriptor_plans or density_plans))
    if kind in conditions.TRAINED_BY:
        stages.append((conditions.TRAINED_BY[kind], density.condition_plans or density_plans))
    trained = [(stage, plans) for stage, plans in stages if plans != UNTRAINED]
    return [*trained, ("density", density_plans)]


def load_features(dataset: str, plan: Plan) -> FeatureExtractor:
    """Descriptor and condition that the density stage of a plan builds on.

    Each comes from the plan that the settings name (this one by default) with the settings of its
    checkpoint. The name `untrained` stands for the network with its initial weights, the
    control of every comparison.

    Raises:
        ScreenerError: a stage is missing; the message holds the command that trains it.
    """
    descriptor, condition = _load_descriptor(dataset, plan), _load_condition(dataset, plan)
    own = plan.settings
    return FeatureExtractor(descriptor, condition, own.density.pooling, own.low_precision_cpu)


def _load_descriptor(dataset: str, plan: Plan) -> nn.Module:
    """The plan's UNet, levels of it, an image encoder, or a network that came from elsewhere."""
    settings = plan.settings.density
    source, seed = settings.descriptor_plans or plan.name, plan.settings.seed
    own: list[Any] = []
    if settings.descriptor == PRETEXT:
        encoder, pretrained = (
            (build_image_encoder(plan, seed), plan)
            if source == UNTRAINED
            else load_image_encoder(dataset, source)
        )
        own = [encoder, pretrained.settings.pretext]
    elif settings.descriptor in descriptors.TRAINED_BY:
        if source == UNTRAINED:
            own = [stage_unet(plan, "descriptor", seed)]
        else:
            own = [_trained_unet(dataset, "descriptor", source)[0]]
    name = descriptor_of(settings)
    if name == DENSE:
        unet: nn.Module = own[0]
        return unet
    kind: Any = descriptor_class(name)
    options = kind.options(settings.descriptor_options, "screener.density.descriptor_options")
    descriptor = kind(*own, **options)
    descriptor.check_images(plan.settings.preprocessing)
    return descriptor


def _load_condition(dataset: str, plan: Plan) -> Condition:
    kind, source = plan.settings.condition.kind, plan.settings.density.condition_plans
    if kind not in conditions.TRAINED_BY:
        return build_condition(kind)
    stage = conditions.TRAINED_BY[kind]
    if source == UNTRAINED:
        network, trained = stage_unet(plan, stage, plan.settings.seed + 1), plan
    else:
        network, trained = _trained_unet(dataset, stage, source or plan.name)
    if stage == "position":
        return build_condition(kind, network=network)
    channels = trained.settings.condition.contrast.channels
    return build_condition(kind, network=network, channels=channels)


def stage_unet(plan: Plan, stage: str, seed: int | None = None) -> nn.Module:
    """The network of a self-supervised stage."""
    settings = plan.settings
    if stage == "descriptor":
        return build_unet(plan, plan.channels, settings.descriptor.channels, seed)
    masked = plan.channels + 1
    if stage == "condition":
        return build_unet(plan, masked, settings.condition.contrast.channels, seed)
    return build_unet(plan, masked, POSITION_CHANNELS, seed, settings.condition.position.width)


def load_image_encoder(dataset: str, plans_name: str) -> tuple[ImageEncoder, Plan]:
    """The encoder of a finished `pretext` stage, and the plan that it was trained with.

    Raises:
        ScreenerError: the stage is missing or damaged; the message holds the way out.
    """
    file = finished_stage(dataset, "pretext", plans_name)
    checkpoint = file.read()
    encoder = build_image_encoder(checkpoint["plan"], 0, empty=True)
    file.fill(encoder.network, checkpoint["network_weights"])
    return encoder, checkpoint["plan"]


def _trained_unet(dataset: str, stage: str, plans_name: str) -> tuple[nn.Module, Plan]:
    """The network of a finished stage, and the plan that it was trained with."""
    file = finished_stage(dataset, stage, plans_name)
    checkpoint = file.read()
    network = stage_unet(checkpoint["plan"], stage)
    file.fill(network, checkpoint["network_weights"])
    return network, checkpoint["plan"]


def load_teacher(model: ModelRef, device: torch.device) -> LoadedDetector:
    """Descriptor, condition and density of a model whose last stage is a density."""
    dataset = str(model.dataset)
    file = StageCheckpoint(model.file, model.stage, model.train_command)
    checkpoint = file.read()
    plan: Plan = checkpoint["plan"]
    features = load_features(dataset, plan)
    if checkpoint.get("features") not in (None, features.identity()):
        raise ScreenerError(
            f"descriptor or condition were trained anew after the density of {model.plans}; run\n"
            f"    {model.train_command} --restart"
        )
    file.check_finished(checkpoint)
    channels, cond_channels = checkpoint["channels"]
    density = new_density(plan.settings.density, channels, cond_channels)
    density.resize_to(checkpoint["network_weights"])
    file.fill(density, checkpoint["network_weights"])
    teacher = Teacher(features, density).to(device).eval()
    return LoadedDetector(teacher, plan, checkpoint["score_statistics"])


def load_student(model: ModelRef, device: torch.device) -> LoadedDetector:
    """A distilled student, with its teacher's score statistics."""
    chosen = model.checkpoint is not None
    file = StageCheckpoint(model.file, model.stage, model.train_command, chosen=chosen)
    checkpoint = file.read()
    plan: Plan = checkpoint["plan"]
    statistics = checkpoint["score_statistics"]
    if plan.settings.distillation.reads_condition:
        student: nn.Module = _reading_student(file, checkpoint, plan)
        return LoadedDetector(student.to(device).eval(), plan, statistics)
    network = build_unet(plan, plan.channels, 1)
    file.fill(network, checkpoint["network_weights"])
    low_precision_cpu = plan.settings.low_precision_cpu
    student = Student(network, statistics["mean"], statistics["std"], low_precision_cpu)
    return LoadedDetector(student.to(device).eval(), plan, statistics)


def _reading_student(
    file: StageCheckpoint, checkpoint: dict[str, Any], plan: Plan
) -> ReadingStudent:
    lacks = [key for key in (OF_TEACHER, HEAD, DENSITY) if key not in checkpoint]
    if lacks:
        raise file.refusal(f"it lacks {lacks[0]}, which a student that reads its condition has")
    try:
        parts = StudentParts(plan, *read_entry(checkpoint[OF_TEACHER]))
    except ScreenerError as error:
        raise file.refusal(str(error)) from error
    weights = checkpoint[HEAD], checkpoint[DENSITY]
    density = parts.density(weights[1])
    file.fill(parts.unet, checkpoint["network_weights"])
    file.fill(parts.head, weights[0])
    file.fill(density, weights[1])
    return parts.joined(density, plan)
