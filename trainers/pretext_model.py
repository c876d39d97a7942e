"""Heads of the image-level pre-training; they are trained with the encoder and then thrown away."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from screener_nnu.descriptors.image_encoder import ImageEncoder
from screener_nnu.pretext_settings import MethodSettings

#: Width of the hidden layer of the heads, and of the embedding.
HIDDEN, EMBEDDING = 512, 128


class Embedded(NamedTuple):
    """What the network says of views.

    Attributes:
        features: (N, width), the encoder's own.
        projection: (N, 128), not normalised: the distance to a centre needs its length; empty
            where nothing reads it.
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
        method: says which heads there are: distributed training waits for all that it sees.
        directions: that a head tells apart by the difference of two patches' features; 0 for none.
    """

    def __init__(self, encoder: ImageEncoder, method: MethodSettings, directions: int) -> None:
        """Builds the heads."""
        super().__init__()
        self.encoder = encoder
        self.of_projection = method.classify == "projection"
        self.projector = mlp(encoder.width, EMBEDDING) if method.projects else None
        read = EMBEDDING if self.of_projection else encoder.width
        classifies = method.classify != "none"
        self.classifier = nn.Linear(read, method.classes) if classifies else None
        self.position = mlp(encoder.width, directions) if directions else None

    def forward(
        self, views: torch.Tensor, pairs: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> Embedded:
        """Embeds views (N, C, D, H, W), and tells the directions of pairs of patches (P, ...)."""
        features = self.encoder(views)
        with torch.autocast(features.device.type, enabled=False):
            none = features.new_zeros(0)
            projection = none if self.projector is None else self.projector(features)
            read = projection if self.of_projection else features
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
