"""Image-level pre-training on images that are taken as normal: PMSACL and its relatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from screener_nnu.descriptors.image_encoder import build_image_encoder
from screener_nnu.devices import small_tensor
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import OptimiserSettings, PretextSettings, Shape
from screener_nnu.pretext_settings import PACKAGE, UNET
from screener_nnu.sampling.crops import resize_boxes
from screener_nnu.sampling.neighbours import directions_of
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.synthetic.shifts import shift_of
from screener_nnu.trainers.base import ScreenerTrainer, schedule_factor
from screener_nnu.trainers.image_reading import ImageReader, ImageSample, image_reader, on_grid
from screener_nnu.trainers.pretext_centres import Centres
from screener_nnu.trainers.pretext_figure import changed_images_auroc
from screener_nnu.trainers.pretext_loss import PretextLoss
from screener_nnu.trainers.pretext_model import EMBEDDING, PretextModel
from screener_nnu.trainers.pretext_views import ClassViews, Images

# The schedule ends there, as a part of the rate.
_LAST_RATE = 1e-3


class PretextTrainer(ScreenerTrainer):
    """Learns one vector of an image, in which changed images lie apart from unchanged ones.

    Each image of a step is changed in every way of its method (class 0 is the image as it is), and
    two weak views are made of each. The loss is the sum of a contrast of views, the squared
    distance to the centre of the class, the cross-entropy of a classifier, and that of the position
    of two patches, as far as the method has them.

    References:
        Tian et al., "Self-supervised Pseudo Multi-class Pre-training for Unsupervised Anomaly
        Detection and Segmentation in Medical Images" (PMSACL), equations 1 to 9,
        https://arxiv.org/abs/2109.01303.
    """

    stage = "pretext"
    figure_name = "AUROC of changed images"
    samples_setting = "images_per_step"

    @property
    def pretext(self) -> PretextSettings:
        """Settings of this stage."""
        return self.settings.pretext

    @property
    def optimiser_settings(self) -> OptimiserSettings:
        """Of this stage."""
        return self.pretext.optimiser

    @property
    def volumes_per_step(self) -> int:
        """Images of a step."""
        return self.pretext.images_per_step

    @property
    def image_size(self) -> Shape:
        """Voxels of an image on the plan's grid."""
        return self.pretext.image_size(self.settings.crop_size)

    def stage_settings_check(self) -> None:
        """Resolves the method, and refuses a single image."""
        self.method = self.pretext.resolved()
        shift_of(self.method.shift, self.method.classes)
        names = self.settings.split.presumed_normal
        if len(names) == 1:
            raise ScreenerError(
                f"{self.plan.name} has one image to train on ({names[0]}), and images are told "
                "from others, or get patches of others: plan more images"
            )

    def build_model(self) -> nn.Module:
        """Encoder and heads of the method."""
        method = self.method
        encoder = build_image_encoder(self.plan, self.settings.seed)
        if self._do_i_compile():
            encoder.compile()
        self.views = ClassViews(self.plan, method)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed + 1)
            directions = len(directions_of(self.image_size)) if method.position else 0
            model = PretextModel(encoder, method, directions)
        width = encoder.width if method.centred == "features" else EMBEDDING
        self.centres = Centres(method, width, self.settings.seed, self.device)
        self.loss = PretextLoss(method, self.centres)
        return model

    def initialize(self) -> None:
        """Keeps the first weights, where later ones are held near them."""
        super().initialize()
        held = self._elastic_parameters() if self.method.elastic else []
        self.first_weights = [p.detach().clone() for p in held]
        origin = self.pretext.weights or "random initialisation"
        named = "the encoder of the plan's UNet" if self.pretext.backbone == UNET else "timm's"
        if self.pretext.weights == PACKAGE:
            origin = "ImageNet weights of the installed package"
        self.print_to_log_file(f"backbone {self.pretext.backbone} ({named}): {origin}")

    def _elastic_parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.encoder.parameters() if p.requires_grad]

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """AdamW as of every stage, or stochastic gradient descent; cosine decay a step."""
        settings = self.optimiser_settings
        if self.pretext.algorithm == "adamw":
            return super().configure_optimizers()
        optimiser = torch.optim.SGD(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=settings.learning_rate,
            momentum=self.pretext.momentum,
            weight_decay=settings.weight_decay,
        )
        factor = lambda step: max(_LAST_RATE, schedule_factor(settings, step))  # noqa: E731
        return optimiser, LambdaLR(optimiser, factor)

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """The encoder's whole network, and the heads and centres that only training needs."""
        model: PretextModel = self.model
        return {
            "network_weights": model.encoder.network.state_dict(),
            "head_weights": {**model.heads(), **self.centres.state_dict()},
        }

    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Takes up all of them."""
        model: PretextModel = self.model
        model.encoder.network.load_state_dict(checkpoint["network_weights"])
        heads = dict(checkpoint["head_weights"])
        self.centres.load_state_dict(heads)
        model.load_state_dict({**model.state_dict(), **heads})

    def reader(self, names: tuple[str, ...], stage: str) -> ImageReader:
        """Reads images of some cases, with patches beside them where their places are learned."""
        pairs = self.method.position
        return image_reader(self.plan, self.cases_folder, names, stage, self.image_size, pairs)

    def training_batches(self, first_step: int) -> Iterator[list[ImageSample]]:
        """Images of this process."""
        reader = self.reader(self.settings.split.presumed_normal, self.stage)
        return self.batches(reader, first_step)

    def share_of_rank(self) -> tuple[int, int]:
        """See `ScreenerTrainer`; patches come from other images of a process, so it needs two."""
        first, own = super().share_of_rank()
        if own < 2:
            raise ScreenerError(
                f"{self.volumes_per_step} images a step leave {own} to a device, and patches come "
                "from other images than their own: set pretext.images_per_step to two a device or "
                "more"
            )
        return first, own

    def images(self, batch: list[ImageSample]) -> Images:
        """A batch on the device, on the plan's grid."""
        size = self.image_size
        images, bodies = on_grid(batch, size, self.device)
        patches, directions = None, None
        if self.method.position:
            beside = [s.neighbour.to(self.device, non_blocking=True) for s in batch]
            patches = resize_boxes(beside, size)
            directions = small_tensor([s.direction for s in batch], self.device)
        return Images(images, bodies[:, 0], patches, directions)

    def fixed_batches(self, names: tuple[str, ...], use: str, count: int) -> Iterator[Images]:
        """At least `count` images of some cases, the same ones every time for one use."""
        reader, size = self.reader(names, f"{self.stage} {use}"), self.volumes_per_step
        for first in range(0, count, size):
            yield self.images([reader[index] for index in range(first, first + size)])

    @classmethod
    def own_settings(cls, settings: dict[str, Any]) -> Any:
        """Its own, and the width of the UNet's last layer, which moves the first weights."""
        return settings["pretext"], settings["descriptor"]["channels"]

    def prepare(self) -> None:
        """Measures the centres of the classes, once, before anything is trained."""
        self._measure_centres(0)

    def on_train_epoch_start(self) -> None:
        """Measures the centres anew where the method says so."""
        super().on_train_epoch_start()
        again = self.method.centring == "reestimated" and self.begins_epoch and self.current_epoch
        if again and self.current_epoch % self.method.reestimate_every == 0:
            self._measure_centres(self.current_epoch)

    @torch.no_grad()
    def _measure_centres(self, epoch: int) -> None:
        """Means of the classes over images of the training set, of all processes alike."""
        if not self.centres.measured:
            return
        names = self.settings.split.presumed_normal
        size = self.volumes_per_step
        count = Centres.images(len(names), self.optimiser_settings.steps * size)
        with self.centres.measuring(self.model):
            for number, batch in enumerate(self.fixed_batches(names, "centres", count)):
                generator = torch_generator(
                    self.device, self.settings.seed, f"{self.stage} centres", epoch, number * size
                )
                views, classes, _ = self.views.draw(batch, generator)
                with self.autocast():
                    found = self.model(views)
                self.centres.add(self.loss.centred_rows(found), classes)
        if self.is_ddp:
            dist.broadcast(self.centres.values, 0)

    def compute_loss(
        self, batch: list[ImageSample], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The sum of the method's terms on two views of every class of each image."""
        generator = torch_generator(
            self.device, self.settings.seed, f"{self.stage} device", step, self.local_rank
        )
        images = self.images(batch)
        views, classes, drawn = self.views.draw(images, generator)
        pairs = self.views.pairs(images, generator) if self.method.position else None
        with self.autocast():
            found = self.network(views, pairs)
        moved = self._moved() if self.method.elastic else None
        return self.loss(found, classes, drawn, images.directions, moved)

    def _moved(self) -> torch.Tensor:
        """Squared distance of the weights to the first ones."""
        own = self._elastic_parameters()
        moved = [((p - q) ** 2).sum() for p, q in zip(own, self.first_weights, strict=True)]
        return torch.stack(moved).sum()

    def validation_figure(self) -> float:
        """AUROC of changed held-out images against the same images unchanged.

        Scored by the classifier's 1 - p(unchanged); of methods without a classifier by the distance
        of the features to the nearest ones of training images. It needs no label.
        """
        figure, terms = changed_images_auroc(self)
        self.validation_terms = terms
        return figure

    def finish(self) -> None:
        """Takes the best epoch."""
        self.keep_best_epoch()
        if self.local_rank == 0:
            self.final_figure = self.validation_figure()
