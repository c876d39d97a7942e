"""Stage 1: the dense self-supervised descriptor."""

from __future__ import annotations

from screener_nnu.plans import ContrastSettings
from screener_nnu.trainers.contrast import ContrastTrainer


class DescriptorTrainer(ContrastTrainer):
    """Learns y: the same for a voxel in two jittered crops, different from other voxels."""

    stage = "descriptor"

    @property
    def contrast(self) -> ContrastSettings:
        """Settings of the descriptor."""
        return self.settings.descriptor
