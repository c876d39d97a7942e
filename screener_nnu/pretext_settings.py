"""Settings of the image-level pre-training: its methods by name, patches, views and backbone."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

from screener_nnu.errors import ScreenerError
from screener_nnu.optimiser_settings import OptimiserSettings
from screener_nnu.setting_values import (
    Count,
    CountOrNone,
    Fraction,
    NotNegative,
    OneOf,
    Positive,
    PositiveRange,
    Rising,
    SizeOrNone,
    Within,
    parse,
)

#: Backbone that is the encoder of the plan's UNet; other names are timm's.
UNET = "unet"
#: What the vector of a UNet's encoder is made of: all of its stages, or the deepest one.
ALL_STAGES, DEEPEST = "levels", "deepest"
#: Weights of a backbone that come with an installed package, and the backbone of timm they are of.
PACKAGE, PACKAGED_ARCHITECTURE = "package", "tf_efficientnet_lite0"


@dataclass(frozen=True)
class MethodSettings:
    """What sets one method of image-level pre-training apart from another.

    Attributes:
        shift: how the images of a class are changed, a name of `synthetic.shifts.SHIFTS`; class 0
            is the image as it is.
        classes: number of classes, that of unchanged images included; 1 for a shift of `none`.
        contrast: which views a view is drawn to: `pairs`, the other view of the same changed image
            (NT-Xent), `classes`, all views of its class (SupCon), or `none`, no such loss.
        centring: `none`: embeddings are compared as seen from the origin; otherwise from centres:
            `initial`, the means of the classes under the initial network, `random` or
            `equidistant` directions, or `reestimated`, means that are measured anew.
        reestimate_every: epochs between two measurements of `reestimated` centres.
        centre_weight: of the squared distance to the own class's centre.
        centred: `projection`, the embedding of the projector, or `features`, the backbone's own.
        alpha: views of one class repel each other with the temperature times alpha.
        temperature: of the contrast.
        classify: what a linear layer tells the classes from: `features`, `projection` or `none`.
        position: whether a head tells how two neighbouring patches lie; needs `patch`.
        weak_views: whether views are cropped, mirrored and jittered.
        elastic: weight of the squared distance of all weights to the initial ones.
    """

    shift: str = "medmix"
    classes: Count = 4
    contrast: Annotated[str, OneOf("pairs", "classes", "none")] = "pairs"
    centring: Annotated[str, OneOf("none", "initial", "random", "equidistant", "reestimated")] = (
        "none"
    )
    reestimate_every: Count = 5
    centre_weight: NotNegative = 1.0
    centred: Annotated[str, OneOf("projection", "features")] = "projection"
    alpha: Positive = 1.0
    temperature: Positive = 0.2
    classify: Annotated[str, OneOf("features", "projection", "none")] = "none"
    position: bool = False
    weak_views: bool = True
    elastic: NotNegative = 0.0

    @property
    def has_centres(self) -> bool:
        """Whether distances to centres, or directions seen from them, count."""
        return self.centring != "none" and (self.centre_weight > 0 or self.contrast != "none")

    @property
    def projects(self) -> bool:
        """Whether anything reads the embedding of the projector."""
        centred = self.has_centres and self.centred == "projection"
        return self.contrast != "none" or self.classify == "projection" or centred

    def __post_init__(self) -> None:
        """Refuses what leaves nothing to learn, or contradicts itself."""
        if (self.shift == "none") != (self.classes == 1):
            raise ValueError(
                f"a shift '{self.shift}' of {self.classes} classes: one class has the shift none, "
                "and the others need one"
            )
        centres = self.has_centres and self.centre_weight > 0
        if self.contrast == "none" and self.classify == "none" and not centres:
            raise ValueError("neither contrast nor classify nor centring is left to learn from")
        if self.classify != "none" and self.classes == 1:
            raise ValueError("one class alone cannot be told from others: set classify=none")


_PMSACL = MethodSettings(centring="initial", alpha=2.0, classify="features")

#: Method by name. A plan names one and may change single settings of it.
METHODS: dict[str, MethodSettings] = {
    # Tian et al. 2021, arXiv 2109.01303.
    "pmsacl": _PMSACL,
    # The same without the temperature rule.
    "msacl": replace(_PMSACL, alpha=1.0),
    # Tian et al., CCD, MICCAI 2021: changes of natural images, no centres; its task of positions is
    # `options.position`, of a local model.
    "ccd": MethodSettings(shift="permutation", classify="features"),
    # Chen et al., ICML 2020, arXiv 2002.05709.
    "simclr": MethodSettings(shift="none", classes=1),
    # Khosla et al., NeurIPS 2020, arXiv 2004.11362, on the classes of MedMix.
    "supcon": MethodSettings(contrast="classes"),
    # Gidaris et al., ICLR 2018, arXiv 1803.07728; as a detector Golan and El-Yaniv, NeurIPS 2018.
    "rotnet": MethodSettings(shift="rotation", contrast="none", classify="features"),
    # Tack et al., NeurIPS 2020, arXiv 2007.08176.
    "csi": MethodSettings(shift="rotation", classify="features", temperature=0.5),
    # Sohn et al., ICLR 2021, arXiv 2011.02578: turned images are instances of their own.
    "droc": MethodSettings(shift="rotation"),
    # Li et al., CVPR 2021, arXiv 2104.04015.
    "cutpaste": MethodSettings(shift="cutpaste", classes=2, contrast="none", classify="features"),
    # Reiss et al., CVPR 2021, arXiv 2010.05903.
    "panda": MethodSettings(
        shift="none",
        classes=1,
        contrast="none",
        centring="initial",
        centred="features",
        weak_views=False,
        elastic=1e-2,
    ),
}


@dataclass(frozen=True)
class MedMixSettings:
    """Pasted patches; lengths are parts of the image, values lie in [0, 1].

    Attributes:
        area: part of a picture that a patch covers.
        aspect: a patch's height over its width, and the inverse, at most.
        edge: edges of a patch in a volume, as parts of the crop's.
        probability: of each of the four deformations of a patch.
        least_body: part of a patch that lies in the body, where it is taken from and where it goes.
    """

    area: Annotated[tuple[float, float], Rising()] = (0.02, 0.15)
    aspect: Annotated[float, Within(at_least=1)] = 1 / 0.3
    edge: Annotated[tuple[float, float], Rising()] = (0.15, 0.45)
    probability: Fraction = 0.25
    least_body: Fraction = 0.5

    def __post_init__(self) -> None:
        """Refuses patches that are larger than the image, or nothing."""
        for name in ("area", "edge"):
            low, high = getattr(self, name)
            if not 0 < low <= high < 1:
                raise ValueError(f"{name} must lie above 0 and below 1, but is [{low}, {high}]")


@dataclass(frozen=True)
class ViewSettings:
    """Weak views: what leaves the class of an image as it is.

    Attributes:
        crop_scale: part of a picture's area that a crop covers; it is resized to the whole.
        crop_edge: edges of a crop of a volume, as multiples of the image's; beyond the image lies
            its border.
        flip: probability of mirroring, of a volume along each axis in plane.
        jitter: probability of changing the colours of a picture; volumes have the plan's `jitter`.
        brightness, contrast, saturation, hue: how much, see `sampling.views`.
        grey: probability that a colour picture loses its colours.
        blur: probability of a Gaussian blur of a picture.
        blur_sigma: of it, in pixels.
    """

    crop_scale: PositiveRange = (0.5, 1.0)
    crop_edge: PositiveRange = (0.67, 1.33)
    flip: Fraction = 0.5
    jitter: Fraction = 0.8
    brightness: Fraction = 0.4
    contrast: Fraction = 0.4
    saturation: Fraction = 0.4
    hue: Annotated[float, Within(at_least=0, at_most=0.5)] = 0.1
    grey: Fraction = 0.2
    blur: Fraction = 0.5
    blur_sigma: PositiveRange = (0.1, 2.0)

    def __post_init__(self) -> None:
        """Refuses crops of pictures that are larger than they are."""
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale must be at most 1, but is {list(self.crop_scale)}")


@dataclass(frozen=True)
class PretextSettings:
    """Image-level pre-training: PMSACL and its relatives, which take their images as normal.

    Attributes:
        optimiser: its schedule and rates; `sgd` has no use for `eps`.
        algorithm: `sgd`, stochastic gradient descent with `momentum`, as published, or `adamw`,
            with which the encoder of a UNet, whose maps are normalised image by image, learns from
            random weights.
        momentum: of `sgd`.
        method: a name of `METHODS`.
        options: settings of the method that differ from those of its name, see `MethodSettings`.
        backbone: `unet`, the encoder of the plan's UNet, or the name of a network of timm, for
            pictures.
        weights: of that network: `package`, the ImageNet weights of the installed package, a file,
            or empty for random ones.
        pooled: of a UNet's encoder: `levels`, mean and maximum of the maps of all stages, or
            `deepest`, the mean of the last one, as published; of networks of pictures it is that.
        crop_size: voxels of an image; by default the plan's crop, of pictures the whole.
        patch: edge of the local model's patches in voxels, each of which is an image by itself; 0
            for the global model.
        images_per_step: each gives two views of each class.
        medmix, views: of the images.
        relabel_after_crop: give an image the class of the patches that are left in its view.
    """

    optimiser: OptimiserSettings = OptimiserSettings(
        steps=400, steps_per_epoch=50, warmup_steps=20, learning_rate=2e-3, eps=1e-8
    )
    algorithm: Annotated[str, OneOf("sgd", "adamw")] = "adamw"
    momentum: Annotated[float, Within(at_least=0, below=1)] = 0.9
    method: str = "pmsacl"
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    backbone: str = UNET
    weights: str = ""
    pooled: Annotated[str, OneOf(ALL_STAGES, DEEPEST)] = ALL_STAGES
    crop_size: SizeOrNone = ()
    patch: CountOrNone = 0
    images_per_step: Annotated[int, Within(at_least=2)] = 4
    medmix: MedMixSettings = MedMixSettings()
    views: ViewSettings = ViewSettings()
    relabel_after_crop: bool = False

    def image_size(self, crop_size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Voxels (z, y, x) of an image, in a plan whose crop of self-supervision has `crop_size`.

        Example:
            >>> PretextSettings(patch=32).image_size((1, 96, 96))
            (1, 32, 32)
        """
        if self.patch:
            return (1 if crop_size[0] == 1 else self.patch, self.patch, self.patch)
        return self.crop_size or crop_size  # type: ignore[return-value]

    def resolved(self) -> MethodSettings:
        """The method of the name with the options of the plan.

        Raises:
            ScreenerError: no such method, or an option that it does not have or take.
        """
        if self.method not in METHODS:
            raise ScreenerError(f"no pretext.method '{self.method}'; known: {', '.join(METHODS)}")
        named = METHODS[self.method]
        values = {f.name: getattr(named, f.name) for f in fields(named)} | self.options
        method: MethodSettings = parse(MethodSettings, values, "screener.pretext.options")
        if method.position and not self.patch:
            raise ScreenerError(
                "pretext.options.position tells how two patches lie: set pretext.patch, their edge"
            )
        return method
