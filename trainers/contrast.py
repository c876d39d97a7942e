"""What the descriptor and the learned condition have in common: matching voxels of two crops."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from screener_nnu.losses import build_loss
from screener_nnu.networks.heads import build_head
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import ContrastSettings
from screener_nnu.sampling.crops import draw_positives, sample_features, to_crop
from screener_nnu.sampling.orientation import draw_orientations, match_oriented
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.trainers.pairs import PairTrainer, boxes_of
from screener_nnu.trainers.processes import gather_rows
from screener_nnu.trainers.reading import PairSample

_VALIDATION_PAIRS = 24
_CANDIDATES = 1024


class ContrastModel(nn.Module):
    """UNet and training head as one module, so that distributed training sees one forward.

    Args:
        unet: (B, C, D, H, W) -> (B, d, D, H, W).
        head: (N, d) -> (N, width).
    """

    def __init__(self, unet: nn.Module, head: nn.Module) -> None:
        """Joins the two."""
        super().__init__()
        self.unet = unet
        self.head = head

    def forward(self, images: torch.Tensor, points: list[torch.Tensor]) -> torch.Tensor:
        """Head outputs (N, width) at crop coordinates `points`, one (n, 3) tensor a crop."""
        return self.head(features_at(self.unet(images), points))


def features_at(maps: torch.Tensor, points: list[torch.Tensor]) -> torch.Tensor:
    """Features (N, d) of maps (B, d, D, H, W) at one list entry of coordinates a crop."""
    sampled = [sample_features(m, p) for m, p in zip(maps, points, strict=True)]
    return torch.cat(sampled)


class ContrastTrainer(PairTrainer):
    """A dense self-supervised stage; subclasses say which settings and what the network sees."""

    figure_name = f"top-1 of {_CANDIDATES}"
    mask_channels: ClassVar[int] = 0

    @property
    def contrast(self) -> ContrastSettings:
        """Settings of this stage."""
        raise NotImplementedError

    @property
    def pairs(self) -> ContrastSettings:
        """The same."""
        return self.contrast

    @property
    def draws(self) -> int:
        """Of this stage; its figure is measured on pairs as they come."""
        return self.contrast.pair_draws

    @property
    def in_channels(self) -> int:
        """Of the network: those of the image, and of a mask."""
        return self.plan.channels + self.mask_channels

    def network_input(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(B, in_channels, D, H, W) from jittered crops (B, C, D, H, W)."""
        return images

    def build_model(self) -> nn.Module:
        """UNet of the plan and the head of the loss."""
        settings = self.contrast
        unet = build_unet(self.plan, self.in_channels, settings.channels, self.settings.seed)
        if self._do_i_compile():
            unet.compile()
        self.loss = build_loss(settings)
        return ContrastModel(
            unet, build_head(settings.loss, settings.channels, settings.head_width)
        )

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """The plain UNet, and the head that only training needs."""
        return {
            "network_weights": self.model.unet.state_dict(),
            "head_weights": self.model.head.state_dict(),
        }

    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Takes up both."""
        self.model.unet.load_state_dict(checkpoint["network_weights"])
        self.model.head.load_state_dict(checkpoint["head_weights"])

    def compute_loss(
        self, batch: list[PairSample], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The dense loss on matching voxels of all pairs."""
        drawn = [
            self._views(sample, self.contrast.positives, generator, self._orientations(generator))
            for sample, generator in zip(batch, self.sample_generators(step), strict=True)
        ]
        images = torch.cat([views[k : k + 1] for k in (0, 1) for views, _ in drawn])
        points = [matching[k] for k in (0, 1) for _, matching in drawn]
        with self.autocast():
            z = self.network(images, points)
        first, second = z.float().chunk(2)
        if self.is_ddp:
            first, second = gather_rows(first), gather_rows(second)
        return self.loss(first, second)

    def _orientations(self, generator: torch.Generator) -> torch.Tensor | None:
        """Orientations (2, 3, 3) of the crops of a pair; none where all are upright."""
        flips, degrees = self.contrast.flip_probability, self.contrast.rotation_degrees
        return draw_orientations(2, flips, degrees, generator) if flips or degrees else None

    def _views(
        self,
        sample: PairSample,
        positives: int,
        generator: torch.Generator,
        orientations: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Network input (2, C, D, H, W) of a pair, and matching points (n, 3) in both crops."""
        boxes = boxes_of([sample])
        if orientations is None:
            images = self.resized([sample])
            shared = self._shared(sample, positives, generator)
            points = [to_crop(shared, box, self.settings.crop_size) for box in boxes]
        else:
            orientations, points = self._matched(sample, positives, generator, orientations)
            images = self.resized([sample], orientations)
        images = self.jittered(images, boxes, generator)
        return self.network_input(images, generator), points

    def _shared(self, sample: PairSample, count: int, generator: torch.Generator) -> torch.Tensor:
        body = sample.body.to(self.device, non_blocking=True)
        return draw_positives(body, sample.boxes[0], sample.boxes[1], count, generator)

    def _matched(
        self,
        sample: PairSample,
        positives: int,
        generator: torch.Generator,
        orientations: torch.Tensor,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Orientations (2, 3, 3) that a pair gets, and its matching points in oriented crops."""
        size, spacing = self.settings.crop_size, self.settings.preprocessing.storage_spacing
        # All of them, in random order: some leave the crops that are turned.
        shared = self._shared(sample, sample.body.numel(), generator)
        *points, chosen = match_oriented(shared, sample.boxes, size, orientations, spacing)
        return chosen, [one[:positives] for one in points]

    @torch.no_grad()
    def validation_figure(self) -> float:
        """Share of voxels whose most similar voxel among 1024 of the other view is the match.

        Measured on the UNet's output, by cosine similarity, on fixed pairs of validation scans.
        """
        reader = self._reader(self.settings.split.validation, f"{self.stage} validation")
        unet = self.model.unet
        unet.eval()
        hits = []
        for index in range(_VALIDATION_PAIRS):
            generator = torch_generator(
                self.device, self.settings.seed, f"{self.stage} validation", index
            )
            images, points = self._views(reader[index], _CANDIDATES, generator)
            if not len(points[0]):
                continue  # a body so small that the two crops share none of it
            with self.autocast():
                maps = unet(images)
            first, second = (
                nn.functional.normalize(features_at(m[None], [p]), dim=1)
                for m, p in zip(maps.float(), points, strict=True)
            )
            best = (first @ second.T).argmax(1)
            hits.append((best == torch.arange(len(best), device=self.device)).float())
        return float(torch.cat(hits).mean())
