"""Settings of the stage `baseline`: detectors of other groups, trained on the same plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from screener_nnu.optimiser_settings import OptimiserSettings
from screener_nnu.setting_values import Count, OneOf, SizeOrNone


@dataclass(frozen=True)
class BaselineSettings:
    """A method of others, which learns from crops of the plan and scores images of their size.

    Attributes:
        optimiser: of AdamW; a method may have rates of its own among its options.
        method: a name of `baselines.METHODS`.
        options: settings of this method alone, see its class in `baselines`.
        image: what it sees: `hu`, linear in the window of the plan, or the `equalised` image.
        crop_size: voxels of a crop; by default the plan's, of pictures of one size the whole.
        crops_per_step: crops of a step.
        mirror: mirror crops along every axis.
        keep: `best` keeps the epoch with the highest mean AUROC on synthetic anomalies of
            validation scans, `last` the last one.
    """

    optimiser: OptimiserSettings = OptimiserSettings(
        steps=1200, steps_per_epoch=50, warmup_steps=60, learning_rate=1e-3, eps=1e-8
    )
    method: str = "autoencoder"
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    image: Annotated[str, OneOf("hu", "equalised")] = "hu"
    crop_size: SizeOrNone = ()
    crops_per_step: Count = 4
    mirror: bool = True
    keep: Annotated[str, OneOf("best", "last")] = "best"
