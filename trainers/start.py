"""The stage of starts of fine-tuning, whichever method the plan names."""

from __future__ import annotations

from typing import Any

import torch

from screener_nnu.descriptors.base import HU
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import stock_checkpoint
from screener_nnu.inference.volume import normalised
from screener_nnu.networks.outputs import split_outputs
from screener_nnu.plans import StartSettings
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.starts.base import StartMethod, build_start
from screener_nnu.trainers.crop_training import CropTrainer

_VALIDATION_CROPS = 24


class StartTrainer(CropTrainer):
    """Trains the plan's UNet by the method that `start.method` names, without labels.

    It sees what stock fine-tuning will feed it, and its checkpoint is that of a student: the whole
    UNet with one output. What else the method has stands apart, for a resumed run.
    """

    stage = "start"
    figure_name = "objective"
    higher_is_better = False
    reads = HU

    @property
    def method_settings(self) -> StartSettings:  # type: ignore[override]
        """Settings of this stage."""
        return self.settings.start

    def build_method(self) -> StartMethod:
        """The method of the plan."""
        return build_start(self.plan)

    def scaled(self, images: torch.Tensor) -> torch.Tensor:
        """As stock nnU-Net normalises them."""
        return normalised(images, self.plan)

    def share_of_rank(self) -> tuple[int, int]:
        """See `ScreenerTrainer`; some methods need several crops in a process."""
        first, own = super().share_of_rank()
        least = self.model.least_crops
        if own < least:
            raise ScreenerError(
                f"{self.method_settings.method} tells crops of a step from each other, and "
                f"start.crops_per_step={self.volumes_per_step} leaves {own} to a device: set it to "
                f"{least} a device or more"
            )
        return first, own

    @torch.no_grad()
    def validation_figure(self) -> float:
        """The method's objective on fixed crops of validation scans, with fixed draws."""
        self.model.eval()
        reader = self.reader(self.settings.split.validation, f"{self.stage} validation")
        size = self.volumes_per_step
        found = []
        for first in range(0, _VALIDATION_CROPS, size):
            images, bodies = self.images_of([reader[first + n] for n in range(size)])
            generator = torch_generator(
                self.device, self.settings.seed, f"{self.stage} validation device", first
            )
            found.append(self.losses_of(self.model, images, bodies, generator, 0))
        means = {name: float(torch.stack([f[name] for f in found]).mean()) for name in found[0]}
        self.validation_terms = means if len(means) > 1 else {}
        return sum(means.values())

    def finish(self) -> None:
        """Takes the best epoch."""
        self.keep_best_epoch()
        if self.local_rank == 0:
            self.final_figure = self.validation_figure()

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """The UNet as fine-tuning takes it, and what only the method needs."""
        network, others = self.model.start_weights()
        return {"network_weights": network, "method_weights": others}

    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Takes up both."""
        self.model.load_start_weights(checkpoint["network_weights"], checkpoint["method_weights"])

    @classmethod
    def own_settings(cls, settings: dict[str, Any]) -> Any:
        """Its own, and the size of its crops where those are of the distillation."""
        own = settings["start"]
        return own, own["crop_size"] or settings["distillation"]["crop_size"]

    def extra_state(self) -> dict[str, Any]:
        """What stock fine-tuning needs beside the weights, and what was trained of them."""
        method: StartMethod = self.model
        stock = stock_checkpoint(method.network, self.plan, self.dataset_json)
        del stock["trainer_name"]  # the stage is known by its own
        network, _ = split_outputs(stock["network_weights"], 1)
        cited = [{"type": "Pretraining-Method", "name": method.paper}] if method.paper else []
        return {**stock, "network_weights": network, "citations": cited, "trained": method.trains}
