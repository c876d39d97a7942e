"""Detectors of other groups by name, each in a file of its own; nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screener_nnu.plans import Plan, Shape
from screener_nnu.stages import load_named

if TYPE_CHECKING:
    from screener_nnu.baselines.base import BaselineMethod

#: Method, `module:class`, by the name that a plan uses and its detector has.
METHODS: dict[str, str] = {
    "autoencoder": "screener_nnu.baselines.autoencoder:AutoEncoderMethod",
    "vae": "screener_nnu.baselines.autoencoder:VariationalMethod",
    "denoising": "screener_nnu.baselines.denoising:DenoisingMethod",
    "diffusion": "screener_nnu.baselines.diffusion:DiffusionMethod",
    "fanogan": "screener_nnu.baselines.fanogan:FAnoGanMethod",
    "cflow": "screener_nnu.baselines.cflow:CflowMethod",
    "msflow": "screener_nnu.baselines.msflow:MsFlowMethod",
    "mood": "screener_nnu.baselines.mood:MoodMethod",
    "draem": "screener_nnu.baselines.draem:DraemMethod",
    "cutpaste_segmentation": (
        "screener_nnu.baselines.cutpaste_segmentation:CutPasteSegmentationMethod"
    ),
    "medmix_segmentation": "screener_nnu.baselines.medmix_segmentation:MedMixSegmentationMethod",
}

#: Where a method's own settings stand in a plan, for messages.
OPTIONS = "screener.baseline.options"


def method_class(name: str) -> type[BaselineMethod]:
    """The method of a name.

    Raises:
        ScreenerError: the name is not known.
    """
    method: type[BaselineMethod] = load_named(METHODS, name, "baseline.method")
    return method


def image_size(plan: Plan) -> Shape:
    """Voxels (z, y, x) of the images of a plan's method.

    A size that nobody wrote is rounded up to what the network takes: air fills the images up.
    """
    settings = plan.settings
    size = settings.image_size(settings.baseline.crop_size)
    if settings.baseline.crop_size:
        return size
    own = method_class(settings.baseline.method).default_size(plan) or size
    z, y, x = (-(-n // d) * d for n, d in zip(own, plan.divisor, strict=True))
    return z, y, x
