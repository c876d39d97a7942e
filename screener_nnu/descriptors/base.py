"""The one interface of all descriptors."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import Plan, PreprocessingSettings, Shape, Spacing
from screener_nnu.preprocessing.modality import modality_of
from screener_nnu.setting_values import parse

#: Images of a case that a descriptor may read.
ImageKind = Literal["equalised", "hu"]
EQUALISED: ImageKind = "equalised"
HU: ImageKind = "hu"
_SPACING_TOLERANCE = 0.01


def beyond(kind: ImageKind, plan: Plan) -> float:
    """Value of what lies beyond the border of an image."""
    return 0.0 if kind == EQUALISED else modality_of(plan.settings.preprocessing).beyond


class Descriptor(nn.Module, ABC):
    """Frozen features y of an image, voxel by voxel or pooled to the grid of a density.

    Descriptors stay in evaluation mode, need no gradient and give float32 whatever the precision of
    their network. Features of a coarser grid are spread over the voxels of their cells: cell i of
    stride s belongs to voxels s i .. s i + s - 1.

    Attributes:
        channels: of the map.
        reads: which image of a case it is given: `equalised`, in [0, 1], or `hu`.
        spacing: voxel size (mm) that its network was made for, 0 for an axis along which any will
            do; None for that of the plan.
        window: HU outside which its network sees no difference, of one that reads HU.
        divisor: tiles of a scan start at multiples of it; then they meet the cells of the whole.
        origin: (32,) bytes, SHA-256 of whatever decides the map beside the weights. It is in the
            state dictionary, so a hash of that is the identity of the descriptor.
        Settings: class of its own settings; its fields are arguments of the descriptor.

    Args:
        channels: see above.
        origin: texts and bytes that `origin` is made of.
    """

    Settings: ClassVar[type]
    reads: ImageKind = EQUALISED
    spacing: Spacing | None = None
    window: tuple[float, ...] = ()
    divisor: Shape = (1, 1, 1)
    origin: torch.Tensor

    def __init__(self, channels: int, *origin: str | bytes) -> None:
        """Keeps the width and hashes the origin."""
        super().__init__()
        self.channels = channels
        digest = hashlib.sha256()
        for part in (type(self).__name__, *origin):
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "little") + data)
        self.register_buffer("origin", torch.tensor(list(digest.digest()), dtype=torch.uint8))
        self.training = False

    @classmethod
    def options(cls, values: dict[str, Any], where: str) -> dict[str, Any]:
        """Its own settings, the given ones over the defaults.

        Args:
            values: plain values of a plan.
            where: dotted name of these settings, for what is said about a wrong one.

        Raises:
            ScreenerError: a setting is unknown, of another type or outside its limits.
        """
        return asdict(parse(cls.Settings, values, where))

    @abstractmethod
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The map (B, channels, D, H, W), float32, of images (B, 1, D, H, W); see `reads`."""

    @torch.no_grad()
    def pooled(self, image: torch.Tensor, pooling: Shape) -> torch.Tensor:
        """The map averaged over cells of `pooling` voxels: (B, channels, D // p, H // p, W // p).

        A descriptor whose features are coarse makes it from them, without the map of all voxels.
        """
        return F.avg_pool3d(self(image).float(), pooling)

    def check_images(self, settings: PreprocessingSettings) -> None:
        """Refuses a plan whose images are not those that the network was made for.

        Raises:
            ScreenerError: the voxels of an axis differ by more than a hundredth, or HU that the
                network reads are cut off.
        """
        spacing, (low, high) = settings.spacing, settings.hu_clip
        if self.window and (self.window[0] < low or self.window[1] > high):
            wide = f"[{min(self.window[0], low):g},{max(self.window[1], high):g}]"
            raise ScreenerError(
                f"the descriptor's network reads {self.window[0]:g} to {self.window[1]:g} HU and "
                f"the plan cuts HU off at {low:g} and {high:g}: make a plan of its own with "
                f"screener_plan_and_preprocess -p NAME -o preprocessing.hu_clip={wide}"
            )
        wanted = self.spacing or (0.0, 0.0, 0.0)
        differs = [
            want and abs(have - want) > _SPACING_TOLERANCE * want
            for want, have in zip(wanted, spacing, strict=True)
        ]
        if any(differs):
            raise ScreenerError(
                f"the descriptor's network was made for voxels of {_in_mm(wanted)} and the plan "
                f"has {_in_mm(spacing)} (z, y, x): use a plan of that spacing"
            )

    def train(self, mode: bool = True) -> Descriptor:
        """Stays as it is: networks are set to evaluation once, and some can only do that."""
        return self

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Refuses the weights of a descriptor of another origin, as torch refuses other shapes."""
        stored = state.get(f"{prefix}origin")
        if stored is not None and not torch.equal(stored.cpu(), self.origin.cpu()):
            messages: list[str] = rest[-1]
            messages.append("they belong to a descriptor with other settings or another file")
        super()._load_from_state_dict(state, prefix, *rest)


class CellDescriptor(Descriptor):
    """A descriptor that pools as it goes; the map of voxels is that of cells of one voxel."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """See `Descriptor`."""
        return self.pooled(image, (1, 1, 1))

    @abstractmethod
    def pooled(self, image: torch.Tensor, pooling: Shape) -> torch.Tensor:
        """See `Descriptor`; the map of all voxels is not made."""


def freeze(network: nn.Module) -> nn.Module:
    """Puts a network into evaluation mode and turns its gradients off."""
    return network.requires_grad_(False).eval()


def _in_mm(spacing: Spacing) -> str:
    return " x ".join(f"{s:g}" if s else "any" for s in spacing) + " mm"
