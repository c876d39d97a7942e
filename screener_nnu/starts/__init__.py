"""Starts of fine-tuning by name, each in a file of its own; nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screener_nnu.errors import ScreenerError
from screener_nnu.paths import finished_checkpoint, stage_folder, train_command
from screener_nnu.plans import Plan, Shape
from screener_nnu.stages import load_named

if TYPE_CHECKING:
    from pathlib import Path

    from screener_nnu.starts.base import StartMethod

#: Name of the stage, and what names of starts begin with where stages and detectors stand, too.
START = "start"
PREFIX = f"{START}_"

#: Method, `module:class`, by the name that a plan and `--init` use.
METHODS: dict[str, str] = {
    "masked_autoencoder": "screener_nnu.starts.masked_autoencoder:MaskedAutoEncoder",
    "disruptive_autoencoder": "screener_nnu.starts.disruptive_autoencoder:DisruptiveAutoEncoder",
    "contextual_position": "screener_nnu.starts.contextual_position:ContextualPosition",
    "swin_tasks": "screener_nnu.starts.swin_tasks:SwinTasks",
    "denoising": "screener_nnu.starts.denoising:Denoising",
    "tissue": "screener_nnu.starts.tissue:Tissue",
}

#: Where a method's own settings stand in a plan, for messages.
OPTIONS = "screener.start.options"


def method_class(name: str) -> type[StartMethod]:
    """The method of a name.

    Raises:
        ScreenerError: the name is not known.
    """
    method: type[StartMethod] = load_named(METHODS, name, "start.method")
    return method


def crop_size(plan: Plan) -> Shape:
    """Voxels (z, y, x) of the crops that a plan's start learns from."""
    settings = plan.settings
    return settings.start.crop_size or settings.distillation.crop_size  # type: ignore[return-value]


def overrides_of(name: str) -> list[str]:
    """Settings in which the plan of a start differs from the one that it is made from."""
    return [f"{START}.options={{}}", f"{START}.method={name}"]


def start_plans(plans_name: str, name: str) -> str:
    """Name of the plan that a start is trained under.

    Example:
        >>> start_plans("ScreenerPlans", "tissue")
        'ScreenerPlans_start_tissue'
    """
    return f"{plans_name}_{PREFIX}{name}"


def trained_start(dataset: int | str, plans_name: str, name: str) -> Path:
    """The checkpoint of a start.

    Args:
        dataset: pre-trained data set.
        plans_name: the plan that the start's own plan is made from.
        name: one of `METHODS`.

    Raises:
        ScreenerError: it is not trained; the message holds the command that trains it.
    """
    own = start_plans(plans_name, name)
    path = stage_folder(dataset, START, own) / "checkpoint_final.pth"
    if not path.is_file():
        raise ScreenerError(
            f"the start {name} of {plans_name} has not been trained ({path} is missing); run\n"
            f"    {train_command(dataset, PREFIX + name, plans_name)}"
        )
    return finished_checkpoint(dataset, START, own)
