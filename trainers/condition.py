"""Stage 2: the masking-invariant condition."""

from __future__ import annotations

import torch

from screener_nnu.conditions.learned import masked_input
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import ContrastSettings
from screener_nnu.sampling.masks import block_masks
from screener_nnu.trainers.contrast import ContrastTrainer


class ConditionTrainer(ContrastTrainer):
    """Learns c: what stays the same of a voxel whichever blocks of the crop are hidden."""

    stage = "condition"
    in_channels = 2

    @property
    def contrast(self) -> ContrastSettings:
        """Settings of the condition's network."""
        return self.settings.condition.contrast

    def stage_settings_check(self) -> None:
        """Only the masking-invariant condition is trained."""
        kind = self.settings.condition.kind
        if kind != "masking_invariant":
            raise ScreenerError(
                f"condition '{kind}' needs no training: go on with the density stage"
            )
        super().stage_settings_check()

    def network_input(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Each view is masked by itself; the mask is the second channel."""
        masks = block_masks(
            len(images), self.settings.crop_size, self.settings.condition.masks, generator
        )
        return masked_input(images, masks)
