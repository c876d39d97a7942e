"""Stage 2: the masking-invariant condition."""

from __future__ import annotations

from typing import Any

import torch

from screener_nnu.conditions import TRAINED_BY
from screener_nnu.conditions.learned import masked_input
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import ContrastSettings
from screener_nnu.sampling.masks import block_masks
from screener_nnu.trainers.contrast import ContrastTrainer


class ConditionTrainer(ContrastTrainer):
    """Learns c: what stays the same of a voxel whichever blocks of the crop are hidden."""

    stage = "condition"
    mask_channels = 1

    @property
    def contrast(self) -> ContrastSettings:
        """Settings of the condition's network."""
        return self.settings.condition.contrast

    @classmethod
    def own_settings(cls, settings: dict[str, Any]) -> Any:
        """What this stage reads of the condition's settings."""
        return [settings["condition"][key] for key in ("contrast", "masks")]

    def stage_settings_check(self) -> None:
        """Only the masking-invariant condition is trained here."""
        kind = self.settings.condition.kind
        needed = TRAINED_BY.get(kind, "density")
        if needed != self.stage:
            reason = "needs no training" if needed == "density" else "has a stage of its own"
            raise ScreenerError(f"condition '{kind}' {reason}: go on with the {needed} stage")

    def network_input(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Each view is masked by itself; the mask is the last channel."""
        masks = block_masks(
            len(images), self.settings.crop_size, self.settings.condition.masks, generator
        )
        return masked_input(images, masks)
