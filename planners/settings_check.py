"""What a plan asks of any stage, checked when the first one starts and not hours later."""

from __future__ import annotations

from screener_nnu.baselines import OPTIONS, image_size, method_class
from screener_nnu.conditions import CONDITIONS
from screener_nnu.densities import DENSITIES
from screener_nnu.descriptors import DENSE, DESCRIPTORS, descriptor_class, descriptor_of
from screener_nnu.errors import ScreenerError
from screener_nnu.losses import LOSSES
from screener_nnu.plans import RARITY, DensitySettings, Plan, Shape
from screener_nnu.pretext_settings import UNET
from screener_nnu.starts import OPTIONS as START_OPTIONS
from screener_nnu.starts import crop_size as start_crop
from screener_nnu.starts import method_class as start_class

_CROP = "pretext.crop_size"


def check_settings(plan: Plan) -> None:
    """Refuses names that nothing stands for, and settings that do not fit each other.

    Raises:
        ScreenerError: names the setting and what is allowed.
    """
    settings = plan.settings
    for key, name, known in (
        ("descriptor.loss", settings.descriptor.loss, LOSSES),
        ("condition.contrast.loss", settings.condition.contrast.loss, LOSSES),
        ("condition.kind", settings.condition.kind, CONDITIONS),
        ("density.kind", settings.density.kind, DENSITIES),
        ("density.descriptor", settings.density.descriptor, DESCRIPTORS),
    ):
        if name not in known:
            raise ScreenerError(f"{key} must be one of {', '.join(known)}, but is '{name}'")
    DENSITIES[settings.density.kind].options(settings.density)
    settings.pretext.resolved()
    method_class(settings.baseline.method).options(settings.baseline.options, OPTIONS)
    _check_crop(image_size(plan), plan.divisor, "baseline.crop_size")
    start_class(settings.start.method).options(settings.start.options, START_OPTIONS)
    _check_descriptor(settings.density)
    _check_crop(settings.crop_size, plan.divisor, "crop_size")
    _check_crop(settings.distillation.crop_size, plan.divisor, "distillation.crop_size")
    _check_crop(start_crop(plan), plan.divisor, "start.crop_size")
    size = settings.pretext.image_size(settings.crop_size)
    if (size[0] == 1) != (settings.crop_size[0] == 1):
        raise ScreenerError(
            f"{_CROP} {list(size)} must have one slice of pictures, and more of scans"
        )
    if settings.pretext.backbone == UNET:
        _check_crop(size, plan.divisor, "pretext.patch" if settings.pretext.patch else _CROP)
    if settings.distillation.target == RARITY and settings.distillation.descriptor_weight:
        raise ScreenerError(f"{RARITY} has no descriptors: set distillation.descriptor_weight=0")


def _check_descriptor(density: DensitySettings) -> None:
    where = "screener.density.descriptor_options"
    name = descriptor_of(density)
    if name != DENSE:
        descriptor_class(name).options(density.descriptor_options, where)
    elif density.descriptor_options:
        raise ScreenerError(f"{where} belong to no descriptor: name one in density.descriptor")


def _check_crop(size: Shape, divisor: Shape, name: str) -> None:
    if any(n % d for n, d in zip(size, divisor, strict=True)):
        raise ScreenerError(
            f"{name} {list(size)} must be a multiple of {list(divisor)}, the network's strides"
        )
