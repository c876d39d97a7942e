"""The stage of the condition `ape`: where in a body a voxel lies, read off the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from screener_nnu.conditions import TRAINED_BY
from screener_nnu.conditions.ape import POSITION_CHANNELS, unit_position
from screener_nnu.conditions.learned import masked_input, unmasked_input
from screener_nnu.errors import ScreenerError
from screener_nnu.losses.position import PositionLoss, distance_errors, number_of_pairs
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import PositionSettings
from screener_nnu.sampling.crops import draw_positives, sample_features, to_crop
from screener_nnu.sampling.masks import block_masks
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.trainers.pairs import PairTrainer, boxes_of
from screener_nnu.trainers.reading import PairSample

_VALIDATION_PAIRS = 24


@dataclass(frozen=True)
class Voxels:
    """Body voxels of one pair of crops; the first `shared` rows of both crops are the same.

    Attributes:
        stored: coordinates (n, 3) and (m, 3) in stored voxels.
        shared: voxels that were drawn from the overlap.
    """

    stored: tuple[torch.Tensor, torch.Tensor]
    shared: int


class PositionTrainer(PairTrainer):
    """Learns three coordinates of a voxel whose distances (mm) are those in the body.

    An output in [0, 1] stands for a fixed `extent_mm`, not a learned one: distances are in mm, so
    nothing is left to learn. With 2 m, a whole body fits in whichever way the network turns it, and
    a trunk stays where the sigmoid is nearly linear.
    """

    stage = "position"
    figure_name = "error of distances (mm)"
    higher_is_better = False
    reads_both_bodies = True

    @property
    def pairs(self) -> PositionSettings:
        """Settings of this stage."""
        return self.settings.condition.position

    @classmethod
    def own_settings(cls, settings: dict[str, Any]) -> Any:
        """What this stage reads of the condition's settings."""
        return settings["condition"]["position"]

    def stage_settings_check(self) -> None:
        """Only the condition `ape` is made of positions."""
        kind = self.settings.condition.kind
        if TRAINED_BY.get(kind) != self.stage:
            needed = TRAINED_BY.get(kind)
            instead = f"is trained by the {needed} stage" if needed else "needs no training"
            raise ScreenerError(
                f"condition '{kind}' {instead}; positions are learned for a plan with "
                "-o condition.kind=ape"
            )

    def build_model(self) -> nn.Module:
        """UNet of the plan: image * mask and mask in, three coordinates out."""
        self.loss = PositionLoss()
        seed, width = self.settings.seed, self.pairs.width
        unet = build_unet(self.plan, self.plan.channels + 1, POSITION_CHANNELS, seed, width)
        if self._do_i_compile():
            unet.compile()
        return unet

    def compute_loss(
        self, batch: list[PairSample], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean over the volumes of the loss on voxels of both crops."""
        voxels, inputs = [], []
        for sample, generator in zip(batch, self.sample_generators(step), strict=True):
            voxels.append(self._draw(sample, generator))
            images = self.jittered(self.resized([sample]), boxes_of([sample]), generator)
            masks = block_masks(2, self.settings.crop_size, self.pairs.masks, generator)
            inputs.append(masked_input(images, masks))
        maps = self._positions(torch.cat(inputs), self.network).split(2)
        results = []
        for sample, drawn, pair in zip(batch, voxels, maps, strict=True):
            embedded, places = self._at(sample, drawn, *pair)
            results.append(self.loss(*embedded, *places, drawn.shared))
        terms = {key: torch.stack([t[key] for _, t in results]).mean() for key in results[0][1]}
        return torch.stack([loss for loss, _ in results]).mean(), terms

    def _draw(self, sample: PairSample, generator: torch.Generator) -> Voxels:
        """Voxels that both crops show, and others of each crop by itself."""
        count, (first, second) = self.pairs.positives, sample.boxes
        assert sample.second_body is not None
        bodies = [b.to(self.device, non_blocking=True) for b in (sample.body, sample.second_body)]
        shared = draw_positives(bodies[0], first, second, count, generator)
        own = [
            draw_positives(body, box, box, count, generator)
            for body, box in zip(bodies, sample.boxes, strict=True)
        ]
        return Voxels((torch.cat([shared, own[0]]), torch.cat([shared, own[1]])), len(shared))

    def _positions(self, inputs: torch.Tensor, network: nn.Module) -> torch.Tensor:
        """(B, 3, D, H, W) in mm."""
        with self.autocast():
            outputs = network(inputs)
        return unit_position(outputs) * self.pairs.extent_mm

    def _at(
        self, sample: PairSample, voxels: Voxels, *maps: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Embeddings and places in the volume, both in mm, of the voxels of each crop."""
        spacing = torch.tensor(
            self.settings.preprocessing.storage_spacing, device=self.device, dtype=torch.float32
        )
        size = self.settings.crop_size
        views = list(zip(voxels.stored, sample.boxes, maps, strict=True))
        embedded = [sample_features(m, to_crop(p, box, size)) for p, box, m in views]
        return embedded, [p * spacing for p, _, _ in views]

    @torch.no_grad()
    def validation_figure(self) -> float:
        """Mean absolute error (mm) of pairwise distances on fixed pairs of validation scans.

        Crops are neither jittered nor masked, as where the condition is used. Lower is better.
        """
        self.model.eval()
        reader = self._reader(self.settings.split.validation, f"{self.stage} validation")
        errors = []
        for index in range(_VALIDATION_PAIRS):
            generator = torch_generator(
                self.device, self.settings.seed, f"{self.stage} validation", index
            )
            sample = reader[index]
            images = self.resized([sample])
            maps = self._positions(unmasked_input(images), self.model)
            embedded, places = self._at(sample, self._draw(sample, generator), *maps)
            matrix = distance_errors(torch.cat(embedded), torch.cat(places))
            errors.append(matrix.abs().sum() / number_of_pairs(matrix))
        return float(torch.stack(errors).mean())
