"""Settings of interpolated Gaussian descriptors: an auto-encoder of normal images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from screener_nnu.optimiser_settings import OptimiserSettings
from screener_nnu.setting_values import (
    Count,
    CountOrNone,
    Fraction,
    NotNegative,
    OneOf,
    Positive,
    SizeOrNone,
    Within,
)

#: Where the encoder comes from: the network of `pretext.backbone` as it is, or the trained stage.
BACKBONE, PRETRAINED = "backbone", "pretext"
#: Models of two sizes of images.
GLOBAL, LOCAL = "global", "local"


@dataclass(frozen=True)
class IgdSettings:
    """An auto-encoder with a Gaussian in its latent space (IGD), which takes images as normal.

    Defaults without a note are those of Chen et al. (AAAI 2022) and their code.

    Attributes:
        optimiser: of Adam with polynomial decay; the paper trains 256 epochs.
        betas: of Adam.
        decay: power of the polynomial.
        start: `backbone`, the network of `pretext.backbone` with `pretext.weights`, or `pretext`,
            the encoder that the stage of that name has trained.
        pretext_plans: plan whose `pretext` stage gives the encoder; empty for this plan.
        local_pretext_plans: the same for the local model alone, as a stage trained on patches is;
            empty for the encoder of the global one.
        freeze: whether encoders stay as they are.
        models: `both`, or the `global` or `local` one alone.
        image_size: voxels of an image of the global model; by default the plan's crop, of pictures
            that are resized to one size the whole.
        patch: edge of an image of the local model; 0 for 32 of pictures, of volumes 24, or 16 where
            the image is smaller than 48, as far as the image has room for it.
        images_per_step: of the global model, of which the local one sees patches; theirs is 16.
        patches: of an image and step, in the body first; 0 for all that overlap by half.
        latent: numbers that an image becomes.
        width: channels of the decoder's first map.
        rho: weight of the absolute difference in the reconstruction error, against similarity.
        global_xi, local_xi: weight of the reconstruction error in the score of an image, against
            the distance from the centre.
        kappa: scale of the Gaussian's width.
        reestimate_every: epochs between two measurements of centre and width.
        critic: whether images between two others have to look like others.
        critic_weight: of that.
        keep: `best` keeps the epoch with the highest mean AUROC on synthetic anomalies of
            validation scans, `last` the last one, as published.
    """

    optimiser: OptimiserSettings = OptimiserSettings(
        steps=400,
        steps_per_epoch=20,
        warmup_steps=0,
        learning_rate=1e-4,
        weight_decay=1e-6,
        eps=1e-8,
        clip_norm=12.0,
    )
    betas: tuple[Fraction, Fraction] = (0.0, 0.9)
    decay: NotNegative = 0.9
    start: Annotated[str, OneOf(BACKBONE, PRETRAINED)] = BACKBONE
    pretext_plans: str = ""
    local_pretext_plans: str = ""
    freeze: bool = True
    models: Annotated[str, OneOf("both", GLOBAL, LOCAL)] = "both"
    image_size: SizeOrNone = ()
    patch: CountOrNone = 0
    images_per_step: Annotated[int, Within(at_least=2)] = 4
    patches: CountOrNone = 16
    latent: Count = 128
    width: Count = 512
    rho: Fraction = 0.15
    global_xi: Fraction = 0.1
    local_xi: Fraction = 0.9
    kappa: Positive = 1.0
    reestimate_every: Count = 10
    critic: bool = True
    critic_weight: NotNegative = 0.1
    keep: Annotated[str, OneOf("best", "last")] = "last"

    @property
    def names(self) -> tuple[str, ...]:
        """The models that there are."""
        return (GLOBAL, LOCAL) if self.models == "both" else (self.models,)

    def xi(self, name: str) -> float:
        """Weight of the reconstruction error in the score of an image by a model."""
        return self.global_xi if name == GLOBAL else self.local_xi

    def sources(self, own: str) -> dict[str, str]:
        """Plan whose `pretext` stage gives the encoder of each model; none without that stage.

        Args:
            own: name of the plan that has these settings.
        """
        if self.start != PRETRAINED:
            return {}
        of_all = self.pretext_plans or own
        plans = {GLOBAL: of_all, LOCAL: self.local_pretext_plans or of_all}
        return {name: plans[name] for name in self.names}

    def patch_size(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Voxels (z, y, x) of an image of the local model.

        Args:
            size: of an image of the global model.

        Raises:
            ValueError: a patch is larger than that.

        Example:
            >>> IgdSettings().patch_size((1, 128, 96)), IgdSettings().patch_size((40, 40, 40))
            ((1, 32, 32), (16, 16, 16))
        """
        flat = size[0] == 1
        shortest = min(size[1:] if flat else size)
        edge = self.patch or min(shortest, 32 if flat else 24 if shortest >= 48 else 16)
        patch = (1 if flat else edge, edge, edge)
        if any(p > n for p, n in zip(patch, size, strict=True)):
            raise ValueError(
                f"a patch of {list(patch)} voxels is larger than an image of {list(size)}: set "
                "igd.patch, its edge, or igd.models=global"
            )
        return patch
