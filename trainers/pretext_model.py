"""Heads of the image-level pre-training; they are trained with the encoder and then thrown away."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from screener_nnu.descriptors.image_encoder import ImageEncoder

#: Width of the hidden layer of the heads, and of the embedding.
HIDDEN, EMBEDDING = 512, 128


class Embedded(NamedTuple):
    """What the network says of views.

    Attributes:
        features: (N, width), the encoder's own.
        projection: (N, 128), not normalised: the distance to a centre needs its length.
        logits: (N, classes); empty without a classifier.
        directions: (P, directions) of pairs of patches; empty without pairs.
    """

    features: torch.Tensor
    projection: torch.Tensor
    logits: torch.Tensor
    directions: torch.Tensor


class PretextModel(nn.Module):
    """Encoder and heads as one module, so that distributed training sees one forward.

    Args:
        encoder: images to vectors.
        classes: that a linear layer tells apart; 0 for none.
        of_projection: whether it reads the embedding in place of the features.
        directions: that a head tells apart by the difference of two patches' features; 0 for none.
    """

    def __init__(
        self, encoder: ImageEncoder, classes: int, of_projection: bool, directions: int
    ) -> None:
        """Builds the heads."""
        super().__init__()
        self.encoder = encoder
        self.of_projection = of_projection
        self.projector = mlp(encoder.width, EMBEDDING)
        read = EMBEDDING if of_projection else encoder.width
        self.classifier = nn.Linear(read, classes) if classes else None
        self.position = mlp(encoder.width, directions) if directions else None

    def forward(
        self, views: torch.Tensor, pairs: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> Embedded:
        """Embeds views (N, C, D, H, W), and tells the directions of pairs of patches (P, ...)."""
        features = self.encoder(views)
        with torch.autocast(features.device.type, enabled=False):
            projection = self.projector(features)
            read = projection if self.of_projection else features
            none = features.new_zeros(0)
            logits = none if self.classifier is None else self.classifier(read)
        directions = none
        if pairs is not None and self.position is not None:
            first, second = self.encoder(torch.cat(pairs)).chunk(2)
            with torch.autocast(features.device.type, enabled=False):
                directions = self.position(first - second)
        return Embedded(features, projection, logits, directions)

    def heads(self) -> dict[str, torch.Tensor]:
        """State dictionary of all but the encoder."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("encoder.")}


def mlp(width: int, outputs: int) -> nn.Sequential:
    """Two layers with a ReLU between them, as the contrastive heads of SimCLR have."""
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))
