"""The one interface of all detectors of other groups."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from screener_nnu.baselines import OPTIONS, image_size, method_class
from screener_nnu.crop_methods import CropMethod
from screener_nnu.plans import Plan

# Seeds of the networks of a plan differ.
_OWN_SEED = 5


class BaselineMethod(CropMethod):
    """A method whose images lie in [-1, 1], and which scores their voxels.

    Attributes:
        smoothing: standard deviation, in voxels of the plan, of the Gaussian that its maps are
            smoothed with, or that of each axis.
        advice: what helps where its training goes astray or its scores do not differ; a sentence.
        builds_on_meta: whether it can be built of names and shapes alone; another method says in
            `least_numbers` how large it is.
        resembles: kinds of synthetic anomalies that it learns from in much the same form; they are
            left out of the figure that chooses the epoch.
    """

    normal_only = True
    advice: ClassVar[str] = ""
    smoothing: ClassVar[float | tuple[float, float, float]] = 0.0
    builds_on_meta: ClassVar[bool] = True
    resembles: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def least_numbers(cls, options: Mapping[str, Any]) -> int:
        """Numbers that its weights have at least, without building it.

        Args:
            options: all of its own settings.
        """
        return 0

    @abstractmethod
    def score(self, images: Tensor) -> Tensor:
        """Scores (B, D, H, W) of images (B, C, D, H, W) in evaluation mode, higher is odder."""


def build_method(plan: Plan, empty: bool = False) -> BaselineMethod:
    """The method of a plan with the first weights of its seed.

    Args:
        plan: that names it.
        empty: weights will be filled in.

    Raises:
        ScreenerError: no such method, or options that it does not have or take.
    """
    baseline, seed = plan.settings.baseline, plan.settings.seed + _OWN_SEED
    kind = method_class(baseline.method)
    method: BaselineMethod = kind.built(
        plan, image_size(plan), baseline.options, OPTIONS, seed, empty
    )
    return method
