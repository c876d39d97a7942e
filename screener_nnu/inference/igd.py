"""Interpolated Gaussian descriptors: built for a plan, and read from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from screener_nnu.descriptors.image_encoder import build_image_encoder
from screener_nnu.detectors import ModelRef
from screener_nnu.detectors.base import LoadedDetector
from screener_nnu.errors import ScreenerError
from screener_nnu.igd_settings import GLOBAL, LOCAL
from screener_nnu.inference.models import load_image_encoder
from screener_nnu.losses.igd import Similarity
from screener_nnu.networks.igd import AutoEncoders, GaussianAutoEncoder
from screener_nnu.plans import Plan, Shape
from screener_nnu.pretext_settings import UNET
from screener_nnu.scoring.igd import IgdDetector, Scale
from screener_nnu.stage_checkpoint import StageCheckpoint

# Seeds of the stages of a plan differ; this is added for what is not the encoder.
_OWN_SEED = 3


def image_sizes(plan: Plan) -> dict[str, Shape]:
    """Voxels (z, y, x) of the images of each model of a plan.

    Raises:
        ScreenerError: patches are larger than images, or images too small to be compared.
    """
    settings = plan.settings
    whole = settings.image_size(settings.igd.image_size)
    try:
        sizes = {
            name: whole if name == GLOBAL else settings.igd.patch_size(whole)
            for name in settings.igd.names
        }
        for name, size in sizes.items():
            Similarity.of(size, name == LOCAL)
    except ValueError as error:
        raise ScreenerError(f"the igd settings of {plan.name} do not fit: {error}") from error
    return sizes


def first_encoders(dataset: str, plan: Plan) -> dict[str, nn.Module]:
    """The encoder that each model begins with.

    Raises:
        ScreenerError: a `pretext` stage is missing, or trained another network than the plan's.
    """
    sources = plan.settings.igd.sources(plan.name)
    if not sources:
        encoder = build_image_encoder(plan, plan.settings.seed)
        return {name: deepcopy(encoder) for name in plan.settings.igd.names}
    return {name: _trained_encoder(dataset, plan, source) for name, source in sources.items()}


def _trained_encoder(dataset: str, plan: Plan, source: str) -> nn.Module:
    encoder, trained = load_image_encoder(dataset, source)
    own, other = (
        (p.settings.pretext.backbone, p.settings.pretext.weights, _network(p))
        for p in (plan, trained)
    )
    if own != other:
        raise ScreenerError(
            f"the pretext stage of {source} trained another network ({_words(trained)}) than "
            f"{plan.name} names ({_words(plan)}): make the plan from {source} with --from_plans, "
            "or train its own pretext stage"
        )
    return encoder


def _network(plan: Plan) -> Any:
    """What decides about the tensors of the plan's UNet, where that is the backbone."""
    settings = plan.settings
    if settings.pretext.backbone != UNET:
        return None
    return plan.architecture, settings.pretext.pooled, settings.descriptor.channels


def _words(plan: Plan) -> str:
    pretext = plan.settings.pretext
    named = ("backbone", "weights", "pooled")
    return ", ".join(f"pretext.{key}={getattr(pretext, key)}" for key in named)


def build_igd(plan: Plan, encoders: Mapping[str, nn.Module]) -> AutoEncoders:
    """The auto-encoders of a plan around given encoders.

    Args:
        plan: whose settings say which there are.
        encoders: by model.

    Raises:
        ScreenerError: see `image_sizes`.
    """
    settings, sizes = plan.settings.igd, image_sizes(plan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.settings.seed + _OWN_SEED)
        models = {
            name: GaussianAutoEncoder(
                encoders[name],
                plan.channels,
                size,
                settings.latent,
                settings.width,
                encoded_size(plan, size),
                settings.freeze,
            )
            for name, size in sizes.items()
        }
    return AutoEncoders(models)


def encoded_size(plan: Plan, size: Shape) -> Shape:
    """Size that images are resized to for an encoder.

    The deepest map of a UNet, which it normalises by its own mean, needs two voxels an axis; others
    take images as they are.
    """
    if plan.settings.pretext.backbone != UNET:
        return size
    pairs = zip(size, plan.divisor, strict=True)
    z, y, x = (-(-max(n, 2 * d) // d) * d if d > 1 else n for n, d in pairs)
    return z, y, x


def load_igd(model: ModelRef, device: torch.device) -> LoadedDetector:
    """The trained auto-encoders of a plan with the scales of their scores.

    Raises:
        ScreenerError: the stage is missing, damaged or has not finished; the message holds the way
            out.
    """
    file = StageCheckpoint(model.file, model.stage, model.train_command)
    checkpoint = file.read()
    file.check_finished(checkpoint)
    plan: Plan = checkpoint["plan"]
    networks = empty_igd(plan)
    file.fill(networks, checkpoint["network_weights"])
    scales = {name: Scale(*values) for name, values in checkpoint["scales"].items()}
    settings = plan.settings
    detector = IgdDetector(networks, settings.igd, scales, settings.low_precision_cpu)
    detector = detector.to(device).eval()
    return LoadedDetector(detector, plan, checkpoint["score_statistics"])


def empty_igd(plan: Plan) -> AutoEncoders:
    """The auto-encoders of a plan, whose weights will be filled in."""
    names = plan.settings.igd.names
    return build_igd(plan, {name: build_image_encoder(plan, 0, empty=True) for name in names})
