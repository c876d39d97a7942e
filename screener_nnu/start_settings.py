"""Settings of the stage `start`: what fine-tuning may start from, trained without labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from screener_nnu.optimiser_settings import OptimiserSettings
from screener_nnu.setting_values import Count, SizeOrNone


@dataclass(frozen=True)
class StartSettings:
    """A self-supervised method, which trains the plan's UNet on what fine-tuning will feed it.

    Attributes:
        optimiser: of AdamW.
        method: a name of `starts.METHODS`.
        options: settings of this method alone, see its class in `starts`.
        crop_size: voxels of a crop; by default those of the distillation.
        crops_per_step: crops of a step.
        mirror: mirror crops along every axis.
    """

    optimiser: OptimiserSettings = OptimiserSettings(
        steps=1200, steps_per_epoch=50, warmup_steps=60, learning_rate=1e-3, eps=1e-8
    )
    method: str = "masked_autoencoder"
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    crop_size: SizeOrNone = ()
    crops_per_step: Count = 4
    mirror: bool = True
