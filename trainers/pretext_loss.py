"""The terms of image-level pre-training: what a method asks of the views of a step."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F

from screener_nnu.losses.pmsacl import ClassContrast, centred, centring_loss
from screener_nnu.pretext_settings import MethodSettings
from screener_nnu.trainers.pretext_centres import Centres
from screener_nnu.trainers.pretext_model import Embedded
from screener_nnu.trainers.pretext_views import Drawn
from screener_nnu.trainers.processes import gather_rows


class PretextLoss:
    """Sums the terms that a method has.

    References:
        Tian et al. 2021, equation 1 (https://arxiv.org/abs/2109.01303).

    Args:
        method: which terms, and their weights.
        centres: of the classes.
    """

    def __init__(self, method: MethodSettings, centres: Centres) -> None:
        """Builds the contrast, where there is one."""
        self.method, self.centres = method, centres
        self.contrast = (
            None
            if method.contrast == "none"
            else ClassContrast(method.temperature, method.alpha, method.contrast)
        )

    def centred_rows(self, found: Embedded) -> torch.Tensor:
        """What has centres: embeddings or features, (N, D), float32."""
        of_features = self.method.centred == "features"
        return (found.features if of_features else found.projection).float()

    def __call__(
        self,
        found: Embedded,
        classes: torch.Tensor,
        drawn: Drawn,
        directions: torch.Tensor | None = None,
        moved: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss and terms, with figures for the log beside them.

        Args:
            found: what the network says of N views.
            classes: (N,), which the classifier is to tell.
            drawn: how the views were made.
            directions: (P,), where the neighbours of P patches lie.
            moved: squared distance of the weights to the first ones.
        """
        method, centres = self.method, self.centres.values
        rows = self.centred_rows(found)
        terms: dict[str, torch.Tensor] = {}
        if centres is not None and method.centre_weight:
            terms["centre"] = method.centre_weight * centring_loss(rows, centres, classes)
        if self.contrast is not None:
            terms["contrast"] = self._contrast(found.projection, drawn)
        if len(found.logits):
            terms["classes"] = F.cross_entropy(found.logits.float(), classes)
        if len(found.directions) and directions is not None:
            terms["position"] = F.cross_entropy(found.directions.float(), directions)
        if moved is not None:
            terms["elastic"] = method.elastic * moved
        logged = {key: value.detach() for key, value in terms.items()}
        if drawn.pasted is not None:
            logged["pasted"] = drawn.pasted
        if centres is not None:
            logged |= self.centres.distances(rows.detach(), classes)
        return torch.stack(list(terms.values())).sum(), logged

    def _contrast(self, z: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Of the views of all processes."""
        assert self.contrast is not None
        seen_from = self.centres.values if self.method.centred == "projection" else None
        labels, sources = drawn.labels, drawn.sources
        u = centred(z.float(), seen_from, labels)  # a crop changes no pair
        if dist.is_initialized() and dist.get_world_size() > 1:
            ranks, own = dist.get_world_size(), len(u)
            u, labels = gather_rows(u), labels.repeat(ranks)
            # Views of two processes are of different images; there are fewer sources than views, so
            # that these numbers do not meet.
            rank = torch.arange(ranks, device=u.device).repeat_interleave(own)
            sources = sources.repeat(ranks) + rank * own
        loss: torch.Tensor = self.contrast(u, sources, labels)[0]
        return loss
