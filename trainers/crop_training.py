"""Stages that learn from crops by a method of their plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from screener_nnu.crop_methods import CropMethod
from screener_nnu.descriptors.base import ImageKind
from screener_nnu.networks.unet import method_precision
from screener_nnu.sampling.mirroring import mirrored
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.image_reading import ImageReader, ImageSample, image_reader, on_grid

_FIRST_IMAGES = 8


class CropTrainer(ScreenerTrainer):
    """Trains a `CropMethod` on crops with some body in them.

    A stage says which method, and what its images look like: `build_method`, `scaled`. Settings of
    the stage have `optimiser`, `crops_per_step` and `mirror`.

    Attributes:
        reads: which image of a case it sees.
    """

    samples_setting = "crops_per_step"
    reads: ImageKind
    method_settings: Any

    def build_method(self) -> CropMethod:
        """The method with its first weights."""
        raise NotImplementedError

    def scaled(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, D, H, W), as they are read, as the method sees them."""
        raise NotImplementedError

    @property
    def optimiser_settings(self) -> Any:
        """Of this stage."""
        return self.method_settings.optimiser

    @property
    def volumes_per_step(self) -> int:
        """Crops of a step."""
        return int(self.method_settings.crops_per_step)

    def build_model(self) -> nn.Module:
        """The networks of the method."""
        method = self.build_method()
        self.in_turns = bool(method.parts(self.optimiser_settings.steps))
        return method

    def parameter_groups(self) -> list[Any]:
        """Each part of a method that learns in turns, with the rates that it has for itself."""
        if not self.in_turns:
            return super().parameter_groups()
        rates = self.model.rates()
        return [
            {"params": list(parameters), **rates.get(name, {})}
            for name, parameters in self.model.parts(self.optimiser_settings.steps).items()
        ]

    def reader(self, names: Sequence[str], stage: str) -> ImageReader:
        """Reads crops of some cases."""
        size = self.model.size
        return image_reader(self.plan, self.cases_folder, names, stage, size, reads=self.reads)

    def _names(self) -> tuple[str, ...]:
        split = self.settings.split
        return split.presumed_normal if self.model.normal_only else split.train

    def training_batches(self, first_step: int) -> Iterator[list[ImageSample]]:
        """Crops of this process."""
        return self.batches(self.reader(self._names(), self.stage), first_step)

    def prepare(self) -> None:
        """Gives a method the images that it starts from; all processes take the first one's."""
        if not self.model.starts_from_data:
            return
        reader = self.reader(self._names(), f"{self.stage} start")
        samples = [reader[index] for index in range(_FIRST_IMAGES)]
        self.model.start_from(*self.images_of(samples))
        if self.is_ddp:
            for value in self.model.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def compute_loss(
        self, batch: list[ImageSample], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Sum of the method's losses of the part that is trained in this step."""
        generator = torch_generator(
            self.device, self.settings.seed, f"{self.stage} device", step, self.local_rank
        )
        images, bodies = self.images_of(batch)
        if self.method_settings.mirror and self.model.mirrors:
            images, bodies = mirrored((images, bodies), generator)
        steps = self.optimiser_settings.steps
        if self.in_turns:
            self._free(self.model.part_of(step, steps))
        losses = self.losses_of(self.network, images, bodies, generator, step)
        terms = {name: loss.detach() for name, loss in losses.items()}
        return torch.stack(list(losses.values())).sum(), terms

    def images_of(self, samples: Sequence[ImageSample]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, C, *size) as the method sees them, and body masks (B, 1, *size)."""
        images, bodies = on_grid(samples, self.model.size, self.device)
        return self.scaled(images), bodies

    def losses_of(
        self,
        network: nn.Module,
        images: torch.Tensor,
        bodies: torch.Tensor,
        generator: torch.Generator,
        step: int,
    ) -> dict[str, torch.Tensor]:
        """Losses of the method, or of its distributed wrapper, by name."""
        allowed = self.settings.low_precision_cpu
        with method_precision(self.model.mixed_precision, self.device, allowed):
            losses: dict[str, torch.Tensor] = network(
                images, bodies, generator, step, self.optimiser_settings.steps
            )
        return losses

    def _free(self, part: str) -> None:
        """Lets gradients reach one part alone; AdamW leaves alone what has none."""
        for name, parameters in self.model.parts(self.optimiser_settings.steps).items():
            for parameter in parameters:
                parameter.requires_grad_(name == part)

    def on_train_epoch_end(self, train_outputs: list[dict[str, torch.Tensor]]) -> None:
        """Logs means; a term that steps of other parts do not have has the mean of those with it.

        Every process has the same terms then.
        """
        names = dict.fromkeys(name for output in train_outputs for name in output)
        known = {
            name: torch.stack([o[name].float() for o in train_outputs if name in o]).mean()
            for name in names
        }
        super().on_train_epoch_end([{**known, **output} for output in train_outputs])
