"""The stage of interpolated Gaussian descriptors: an auto-encoder of images taken as normal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from screener_nnu.detectors import IGD
from screener_nnu.errors import ScreenerError
from screener_nnu.files import file_sha256
from screener_nnu.inference.igd import build_igd, first_encoders, image_sizes
from screener_nnu.losses.igd import reconstruction_loss
from screener_nnu.networks.igd import AutoEncoders, Critics, Decoded
from screener_nnu.paths import finished_checkpoint
from screener_nnu.plans import IgdSettings, OptimiserSettings, Plan
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.scoring.igd import IgdDetector, Scale
from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.critic import CriticTraining
from screener_nnu.trainers.igd_images import IgdImages
from screener_nnu.trainers.image_check import ImageCheck
from screener_nnu.trainers.image_reading import ImageSample
from screener_nnu.trainers.image_scales import image_scales, map_medians
from screener_nnu.trainers.score_statistics import measure_tiled_scores

# Shares of a mixture are drawn up to it: more would be the other way round.
_MOST_MIXED = 0.5
_VALIDATION_IMAGES = 8
# Seeds of the networks of a plan differ.
_CRITIC_SEED = 4


class IgdTrainer(ScreenerTrainer):
    """Learns to reconstruct normal images, whose latent vectors are drawn to one centre.

    What it learns from is taken as normal: the plan's normal cases, or all training cases where
    none are named. One step trains the model of whole images and that of patches of them.
    Networks compute in mixed precision, losses in float32.

    References:
        Chen et al., Deep one-class classification via interpolated Gaussian descriptor, AAAI 2022.
    """

    stage = "igd"
    figure_name = "AUROC on synthetic anomalies"
    samples_setting = "images_per_step"

    @property
    def igd(self) -> IgdSettings:
        """Settings of this stage."""
        return self.settings.igd

    @property
    def optimiser_settings(self) -> OptimiserSettings:
        """Of this stage."""
        return self.igd.optimiser

    @property
    def volumes_per_step(self) -> int:
        """Images of a step."""
        return self.igd.images_per_step

    def stage_settings_check(self) -> None:
        """Images must have room for patches and for the windows that compare them."""
        image_sizes(self.plan)

    def build_model(self) -> nn.Module:
        """The auto-encoders; critics stand beside them."""
        self._check_share()
        models = build_igd(self.plan, first_encoders(self.plan.dataset, self.plan))
        self.similarities = IgdDetector(models, self.igd).similarities
        self.scales: dict[str, Scale] = {}
        self.score_statistics: dict[str, float] = {}
        self.images = IgdImages(self.plan, self.cases_folder, self.device)
        cases = CaseFolder(self.cases_folder)
        self.check = ImageCheck(cases, self.plan, self.images.size)
        return models

    def _check_share(self) -> None:
        own = self.share_of_rank()[1]
        if self.igd.critic and own < 2:
            raise ScreenerError(
                f"{own} image a step on a device has no other one to be mixed with: set "
                "igd.images_per_step to 2 for each device at least"
            )

    def initialize(self) -> None:
        """Adds the critics with an optimiser of their own."""
        super().initialize()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed + _CRITIC_SEED)
            critics = Critics.of(self.model, self.plan.channels).to(self.device)
        ranks = None if not self.is_ddp else self.local_rank
        self.critic = CriticTraining(critics, self._adam(critics), self.autocast, ranks)

    def _adam(self, network: nn.Module) -> torch.optim.Adam:
        steps = self.optimiser_settings
        return torch.optim.Adam(
            [p for p in network.parameters() if p.requires_grad],
            lr=steps.learning_rate,
            betas=self.igd.betas,
            eps=steps.eps,
            weight_decay=steps.weight_decay,
        )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """Adam; warm-up and polynomial decay a step."""
        steps, decay = self.optimiser_settings, self.igd.decay
        optimiser = self._adam(self.network)
        return optimiser, LambdaLR(optimiser, lambda step: polynomial_factor(steps, step, decay))

    def check_cases(self) -> None:
        """Refuses a single normal case, around which there is nothing to learn."""
        super().check_cases()
        count = len(self.settings.split.presumed_normal)
        if count < 2:
            raise ScreenerError(
                f"{self.plan.name} has {count} normal case to train on, and the {self.stage} stage "
                "needs 2 at least: plan with more"
            )

    def make_ready(self) -> None:
        """Paints synthetic anomalies."""
        if self.local_rank == 0:
            self.check.prepare()

    def training_batches(self, first_step: int) -> Iterator[list[ImageSample]]:
        """Images of this process."""
        reader = self.images.reader(self.settings.split.presumed_normal, self.stage)
        return self.batches(reader, first_step)

    def compute_loss(
        self, batch: list[ImageSample], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Reconstruction, distance to the centre, and what the critic sees, of all models."""
        generator = torch_generator(
            self.device, self.settings.seed, f"{self.stage} device", step, self.local_rank
        )
        images = self.images.of_models(batch, generator)
        shares = {
            name: _MOST_MIXED * torch.rand(len(one), generator=generator, device=self.device)
            for name, one in images.items()
        }
        shares = shares if self.igd.critic else {}
        with self.autocast():
            decoded: dict[str, Decoded] = self.network(images, shares)
        losses: list[torch.Tensor] = []
        terms: dict[str, torch.Tensor] = {}
        for name, of_model in decoded.items():
            parts = self._losses(name, images[name], of_model)
            losses.append(torch.stack([part.mean() for part in parts.values()]).sum())
            terms |= {f"{name} {key}": part.detach().mean() for key, part in parts.items()}
        self.critic.keep(images, decoded, shares)
        return torch.stack(losses).sum(), terms

    def _losses(self, name: str, images: torch.Tensor, decoded: Decoded) -> dict[str, torch.Tensor]:
        """Losses (B,) of a model by name."""
        similarity = self.similarities[name]
        parts = {
            "L_rec": reconstruction_loss(images, decoded.images, self.igd.rho, similarity),
            "L_gac": 1 - self.model[name].normality(decoded.z),
        }
        if decoded.mixed is not None:
            guesses = self.critic.guesses(name, decoded.mixed)
            parts["L_adv"] = self.igd.critic_weight * guesses.square()
        return parts

    def train_step(self, batch: list[ImageSample]) -> dict[str, torch.Tensor]:
        """One step of the auto-encoders, then one of the critics on what they made."""
        rate = self.optimizer.param_groups[0]["lr"]
        values = super().train_step(batch)
        return {**values, **self.critic.step(rate, self.grad_scaler)}

    def prepare(self) -> None:
        """Puts the Gaussians around what the first networks make of normal images."""
        self.place_centres()

    def on_train_epoch_start(self) -> None:
        """Puts the Gaussians anew every few epochs; networks are in training mode afterwards."""
        again = self.begins_epoch and self.current_epoch
        if again and self.current_epoch % self.igd.reestimate_every == 0:
            self.place_centres()
        super().on_train_epoch_start()

    @torch.no_grad()
    def place_centres(self) -> None:
        """Measures centre and width of the Gaussians on training images, in evaluation mode."""
        models: AutoEncoders = self.model
        was_training = models.training
        models.eval()
        latents: dict[str, list[torch.Tensor]] = {name: [] for name in models}
        for images in self.images.some_of_models(self.settings.split.presumed_normal):
            with self.autocast():
                for name, one in images.items():
                    latents[name].append(models.named(name).encode(one))
        for name, z in latents.items():
            model = models.named(name)
            model.place(torch.cat(z), self.igd.kappa)
            if self.is_ddp:
                for value in (model.centre, model.spread):
                    torch.distributed.broadcast(value, 0)
        models.train(was_training)

    def _detector(self, scales: dict[str, Scale] | None = None) -> IgdDetector:
        precision = self.settings.low_precision_cpu
        return IgdDetector(self.model, self.igd, scales, precision)

    def validation_figure(self) -> float:
        """Mean AUROC over the kinds of synthetic anomalies in validation scans."""
        self.model.eval()
        reader = self.images.reader(self.settings.split.validation, f"{self.stage} validation")
        samples = [reader[index] for index in range(_VALIDATION_IMAGES)]
        scales = map_medians(self._detector(), *self.images.whole(samples))
        detector = self._detector(scales)
        figures = self.check.auroc(detector.combined_map, self.device)
        self.validation_terms = figures
        return figures["mean"]

    def finish(self) -> None:
        """Takes the epoch to keep, and measures scales and statistics of its scores."""
        if self.igd.keep == "best":
            self.keep_best_epoch()
        if self.local_rank != 0:  # the first process writes the checkpoint
            return
        self.final_figure = self.validation_figure()
        split, folder = self.settings.split, self.cases_folder
        self.scales = image_scales(self._detector(), folder, split.validation)
        self.score_statistics = measure_tiled_scores(
            self._detector(self.scales), folder, split.train, self.plan, self.device
        )

    def calibrate(self) -> None:
        """Measures on validation scans what the scores of this detector mean."""
        self.calibrate_as(IGD)

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """The auto-encoders, and apart from them the critics, which only training needs."""
        own = {"network_weights": self.model.state_dict()}
        return {**own, "critic_weights": self.critic.critics.state_dict()}

    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Takes up both, and the optimiser of the critics."""
        super().load_weights(checkpoint)
        self.critic.critics.load_state_dict(checkpoint["critic_weights"])
        self.critic.optimiser.load_state_dict(checkpoint["critic_optimizer_state"])

    def extra_state(self) -> dict[str, Any]:
        """The optimiser of the critics, and what prediction needs beside the weights."""
        return {
            "critic_optimizer_state": self.critic.optimiser.state_dict(),
            "scales": {name: list(scale) for name, scale in self.scales.items()},
            "score_statistics": self.score_statistics,
        }

    @classmethod
    def own_settings(cls, settings: dict[str, Any]) -> Any:
        """Its own, and which network the encoder is."""
        pretext = settings["pretext"]
        encoder = [pretext[key] for key in ("backbone", "weights", "pooled")]
        # The decoder of a UNet lies in the checkpoint, too.
        return settings["igd"], encoder, settings["descriptor"]["channels"]

    @classmethod
    def upstream(cls, dataset: str, plan: Plan) -> str:
        """Hash of the `pretext` stages that gave the encoders; empty without one."""
        sources = dict.fromkeys(plan.settings.igd.sources(plan.name).values())
        files = (finished_checkpoint(dataset, "pretext", source) for source in sources)
        return " ".join(file_sha256(file)[:12] for file in files)


def polynomial_factor(settings: OptimiserSettings, step: int, power: float) -> float:
    """Factor on the learning rate: linear over the warm-up, then (1 - part of the rest)^power."""
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    rest = max(1, settings.steps - settings.warmup_steps)
    return (1 - min(1.0, (step - settings.warmup_steps) / rest)) ** power
