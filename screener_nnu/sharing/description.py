"""What `model.json` tells of a model: settings, training figures and versions."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from screener_nnu.plans import Plan

_PACKAGES = (
    "screener_nnu",
    "nnunetv2",
    "dynamic_network_architectures",
    "torch",
    "nflows",
    "numpy",
)


def package_versions() -> dict[str, str]:
    """Versions on this machine, which need not be those of the training."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def main_settings(plan: Plan) -> dict[str, Any]:
    """The settings that tell models apart; the plan in the file holds all of them."""
    settings, architecture = plan.settings, plan.architecture
    return {
        "preset": settings.preset,
        "modality": settings.preprocessing.modality,
        "configuration": plan.configuration_name,
        "spacing_mm": list(settings.preprocessing.spacing),
        "crop_voxels": list(settings.crop_size),
        "equalisation": settings.preprocessing.equalisation,
        "descriptor_loss": settings.descriptor.loss,
        "condition": settings.condition.kind,
        "density": settings.density.kind,
        "network": architecture["network_class_name"].rpartition(".")[2],
        "features_per_stage": list(architecture["arch_kwargs"]["features_per_stage"]),
        "seed": settings.seed,
    }


def training_figures(stage: str, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """How a stage trained: steps, epochs, loss, and its figure beside the untrained network's."""
    from screener_nnu.trainers.stages import trainer_of

    log = checkpoint["logging"]
    values = log["values"]
    return {
        "figure": trainer_of(stage).figure_name,
        "untrained": _number(log["reference"]) if values["figures"] else None,
        "trained": _kept_figure(stage, checkpoint),
        "best": _number(checkpoint["best_figure"]),
        "loss": _last(values["train_losses"]),
        "epochs": len(values["figures"]),
        "steps": checkpoint["global_step"],
    }


def _kept_figure(stage: str, checkpoint: Mapping[str, Any]) -> float | None:
    """The figure of the weights in the checkpoint, which some stages take from their best epoch."""
    # Not of the settings: an older plan does not say, and its density kept the last epoch.
    keep = checkpoint["plan"].values["screener"]["density"].get("keep")
    if not checkpoint["logging"]["values"]["figures"]:
        return _number(checkpoint["logging"]["reference"])  # fitted, and measured then
    if stage in ("igd", "baseline"):
        keep = getattr(checkpoint["plan"].settings, stage).keep
    chosen = ("density", "igd", "baseline")
    if stage in ("pretext", "start") or (stage in chosen and keep == "best"):
        return _number(checkpoint["best_figure"])
    return _last(checkpoint["logging"]["values"]["figures"])


def _last(values: list[float]) -> float | None:
    return _number(values[-1]) if values else None


def _number(value: float | None) -> float | None:
    """JSON has no infinity and nothing that is not a number."""
    return None if value is None or not math.isfinite(value) else float(value)
