"""The one interface of all methods that learn from crops: a loss of images of one size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from screener_nnu.densities.base import NoSettings
from screener_nnu.plans import Plan, Shape
from screener_nnu.setting_values import parse


class CropMethod(nn.Module, ABC):
    """Networks with a loss of images (B, C, D, H, W) of one size.

    All parameters that need a gradient are trained by one AdamW, in one part or, where `parts` says
    so, in turns.

    Attributes:
        Settings: class of its own settings, the `options` of its stage in a plan; its fields are
            arguments of the method.
        mixed_precision: whether its networks may compute in it.
        normal_only: whether it takes what it learns from as normal.
        mirrors: whether its crops may be mirrored; without it a plan's setting does nothing.
        starts_from_data: whether it takes first values from images, see `start_from`.
        size: of images, (z, y, x).

    Args:
        plan: whose architecture and channels its networks have.
        size: of images.
    """

    Settings: ClassVar[type] = NoSettings
    mixed_precision: ClassVar[bool] = True
    normal_only: ClassVar[bool] = False
    mirrors: ClassVar[bool] = True
    starts_from_data: ClassVar[bool] = False

    def __init__(self, plan: Plan, size: Shape) -> None:
        """Keeps the size; a subclass builds its networks."""
        super().__init__()
        self.size = size

    @classmethod
    def options(cls, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Its own settings, those of a plan over the defaults.

        Args:
            values: of the plan.
            where: they stand, for messages.

        Raises:
            ScreenerError: a setting is unknown, of another type or outside its limits.
        """
        return asdict(parse(cls.Settings, dict(values), where))

    @classmethod
    def default_size(cls, plan: Plan) -> Shape | None:
        """Size of images where a plan does not say, not yet rounded up; None for the stage's."""
        return None

    @classmethod
    def built(
        cls,
        plan: Plan,
        size: Shape,
        options: Mapping[str, Any],
        where: str,
        seed: int,
        empty: bool = False,
    ) -> Any:
        """The method with the first weights of a seed.

        Args:
            plan, size: see the class.
            options, where: see `options`.
            seed: of the weights.
            empty: weights will be filled in, so that none are looked for elsewhere.

        Raises:
            ScreenerError: see `options`, or the images are too small for it.
        """
        own = cls.options(options, where)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls.emptied(plan, size, **own) if empty else cls(plan, size, **own)

    @classmethod
    def emptied(cls, plan: Plan, size: Shape, **options: Any) -> Any:
        """The method whose weights will be filled in."""
        return cls(plan, size, **options)

    def start_from(self, images: Tensor, bodies: Tensor) -> None:  # noqa: B027 (optional hook)
        """Takes first values from images (n, C, D, H, W) with their body masks (n, 1, D, H, W)."""

    def parts(self, steps: int) -> Mapping[str, Iterator[nn.Parameter]]:
        """Parameters by the name of the part that is trained in turn; empty for all at once.

        Args:
            steps: of the whole training.
        """
        return {}

    def part_of(self, step: int, steps: int) -> str:
        """Which part a step (from 0 on) trains, of a method that has `parts`."""
        raise NotImplementedError

    def rates(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of AdamW that a part has for itself, `lr` or `betas`; by part."""
        return {}

    @abstractmethod
    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Losses by name; their sum is minimised.

        Args:
            images: (B, C, D, H, W).
            bodies: (B, 1, D, H, W), True in the body.
            generator: of what is random, on the device of the images.
            step: from 0 on.
            steps: of the whole training.

        Returns:
            Scalars. Sums are made in float32.
        """


def body_weights(bodies: Tensor, shape: torch.Size, outside: float = 0.0) -> Tensor:
    """Weights (B, C, D, H, W), float32: 1 in the body, another elsewhere.

    Args:
        bodies: (B, 1, D, H, W) masks.
        shape: (B, C, D, H, W).
        outside: weight of other voxels.
    """
    return (bodies.float() * (1 - outside) + outside).expand(shape)


def body_mean(values: Tensor, bodies: Tensor, outside: float = 0.0) -> Tensor:
    """Mean of values (B, C, D, H, W) in float32, with another weight outside the body.

    Args:
        values: any.
        bodies: (B, 1, D, H, W) masks.
        outside: weight of other voxels, against 1 in the body.
    """
    weights = body_weights(bodies, values.shape, outside)
    return (values.float() * weights).sum() / weights.sum().clamp_min(1e-6)
