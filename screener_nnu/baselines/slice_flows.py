"""Base of methods that learn the density of what a network of photographs makes of slices."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from screener_nnu.baselines.base import BaselineMethod
from screener_nnu.baselines.window import unscale, window_of
from screener_nnu.descriptors.backbone import empty_backbone, load_backbone
from screener_nnu.networks.planes import from_planes, to_planes
from screener_nnu.plans import Plan, Shape
from screener_nnu.preprocessing.modality import CT
from screener_nnu.pretext_settings import PACKAGE, PACKAGED_ARCHITECTURE
from screener_nnu.setting_values import Count, OneOf, Within

# HU that become a slice's colours: lung, soft tissue, and a narrow window of it.
_COLOURS = ((-1000.0, 300.0), (-160.0, 240.0), (-50.0, 150.0))
_MULTIPLE = 32
_LEAST_DEVIATION = 1e-3


@dataclass(frozen=True)
class SliceFlowSettings:
    """Of the network of photographs, and of the slices that it sees.

    Attributes:
        architecture: of timm, see `load_backbone`.
        weights: `package`, or a file with its state dictionary.
        colours: of CT: `windows`, three windows of HU, or `grey`, one three times.
        side: pixels that the longer side of a slice is enlarged to, by a whole factor.
        code: channels of the code of the place, a multiple of 4.
    """

    architecture: str = PACKAGED_ARCHITECTURE
    weights: str = PACKAGE
    colours: Annotated[str, OneOf("windows", "grey")] = "windows"
    side: Count = 256
    code: Annotated[int, Within(at_least=4)] = 64

    def __post_init__(self) -> None:
        """Refuses a code that has not as many sines and cosines for rows as for columns."""
        if self.code % 4:
            raise ValueError(f"code must be a multiple of 4, but is {self.code}")


class SliceFlowMethod(BaselineMethod):
    """Features of axial slices at strides 4, 8 and 16 of a frozen network, and their density.

    Features are standardised by channel, on some images of the training. Computed in float32.

    Attributes:
        widths: channels of the maps, from fine to coarse.
    """

    Settings: ClassVar[type] = SliceFlowSettings
    mixed_precision = False
    normal_only = False
    # They are told the place in the slice.
    mirrors = False
    starts_from_data = True
    # Masks and matrices of a flow are computed when it is built.
    builds_on_meta = False
    # Slices are scored one by one: what is odd is so in more than one.
    smoothing = (1.0, 0.0, 0.0)
    mean: Tensor
    std: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        plan: Plan,
        size: Shape,
        architecture: str,
        weights: str,
        colours: str,
        side: int,
        code: int,
        empty: bool = False,
    ) -> None:
        """Loads the network."""
        super().__init__(plan, size)
        backbone = (
            empty_backbone(architecture, weights) if empty else load_backbone(architecture, weights)
        )
        self.network, self.widths = backbone.network, backbone.widths
        self.code_channels = code
        factor = max(1, round(side / max(size[1:])))
        # The network halves sides five times; what does not fit is stretched a little.
        height, width = (-(-n * factor // _MULTIPLE) * _MULTIPLE for n in size[1:])
        self.seen = (height, width)
        ct = plan.settings.preprocessing.modality == CT and plan.settings.baseline.image == "hu"
        self.windows = _COLOURS if ct and colours == "windows" else ()
        self.window = window_of(plan)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1), persistent=False)
        total = sum(self.widths)
        self.register_buffer("feature_mean", torch.zeros(total, 1, 1))
        self.register_buffer("feature_std", torch.ones(total, 1, 1))

    @classmethod
    def default_size(cls, plan: Plan) -> Shape | None:
        """Few slices, of volumes whole ones of the usual size."""
        if plan.settings.crop_size[0] == 1:
            return None
        height, width = plan.configuration["median_image_size_in_voxels"][1:]
        return 1, int(height), int(width)

    @classmethod
    def least_numbers(cls, options: Mapping[str, Any]) -> int:
        """Those of the network, and what the options make of the flows."""
        with torch.device("meta"):
            backbone = empty_backbone(options["architecture"], options["weights"])
        own = sum(value.numel() for value in backbone.network.parameters())
        return own + cls.flow_numbers(backbone.widths, options)

    @staticmethod
    @abstractmethod
    def flow_numbers(widths: Sequence[int], options: Mapping[str, Any]) -> int:
        """Numbers that flows of maps of some widths have at least; see `least_numbers`."""

    @classmethod
    def emptied(cls, plan: Plan, size: Shape, **options: Any) -> SliceFlowMethod:
        """Without looking for weights."""
        return cls(plan, size, empty=True, **options)

    @torch.no_grad()
    def start_from(self, images: Tensor, bodies: Tensor) -> None:
        """Takes mean and standard deviation of the features in bodies, each image counting once."""
        sums = torch.zeros(2, sum(self.widths), device=images.device, dtype=torch.float64)
        for image, body in zip(images.split(1), bodies.split(1), strict=True):
            maps = self._features(image)
            pairs = zip(maps, body_positions(body, maps), strict=True)
            rows = [one.movedim(1, -1)[inside].double() for one, inside in pairs]
            first = torch.cat([values.mean(0) for values in rows])
            sums += torch.stack([first, torch.cat([values.square().mean(0) for values in rows])])
        mean, square = sums / len(images)
        std = (square - mean.square()).clamp_min(0).sqrt().clamp_min(_LEAST_DEVIATION)
        self.feature_mean.copy_(mean.view(-1, 1, 1))
        self.feature_std.copy_(std.view(-1, 1, 1))

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """Standardised features (B D, C, h, w) of the slices of images, from fine to coarse."""
        means, stds = (v.split(self.widths) for v in (self.feature_mean, self.feature_std))
        triples = zip(self._features(images), means, stds, strict=True)
        return [(features - mean) / std for features, mean, std in triples]

    def _features(self, images: Tensor) -> list[Tensor]:
        slices = F.interpolate(self._coloured(to_planes(images)), self.seen, mode="bilinear")
        self.network.eval()
        found: list[Tensor] = self.network((slices - self.mean) / self.std)
        return [features.float() for features in found]

    def _coloured(self, slices: Tensor) -> Tensor:
        """Slices (n, 3, H, W) in [0, 1] of slices (n, C, H, W) in [-1, 1]."""
        if self.windows:
            hu = unscale(slices.mean(1, keepdim=True), self.window)
            colours = [(hu - low) / (high - low) for low, high in self.windows]
            return torch.cat(colours, 1).clamp(0, 1)
        shown = (slices + 1) / 2
        return shown if shown.shape[1] == 3 else shown.mean(1, keepdim=True).expand(-1, 3, -1, -1)

    def codes(self, maps: list[Tensor]) -> list[Tensor]:
        """Code (n, code, h, w) of the places of maps."""
        return [
            place_code(one.shape[2], one.shape[3], self.code_channels, one.device).expand(
                len(one), -1, -1, -1
            )
            for one in maps
        ]

    def score(self, images: Tensor) -> Tensor:
        """Sum over the scales of the energy of each place, on the voxels."""
        maps = self.maps(images)
        energies = self.energies(maps)
        size = images.shape[3:]
        whole = [F.interpolate(e[:, None], size, mode="bilinear") for e in energies]
        return from_planes(torch.stack(whole).sum(0), len(images))[:, 0]

    @abstractmethod
    def energies(self, maps: list[Tensor]) -> list[Tensor]:
        """How odd each place (n, h, w) of maps (n, C, h, w) is, for each scale."""


def body_positions(bodies: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """Positions of maps more than half of which lie in the body; all where there are none.

    Args:
        bodies: masks (B, 1, D, H, W).
        maps: (B D, C, h, w) of their slices.

    Returns:
        (B D, h, w) bool of each map.
    """
    planes = to_planes(bodies).float()
    found = []
    for one in maps:
        height, width = one.shape[2:]
        inside = F.adaptive_avg_pool2d(planes, (height, width))[:, 0] > 0.5
        found.append(inside | ~inside.any())
    return found


def place_code(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Sines and cosines of rows and columns, (1, channels, height, width).

    Half of the channels belong to rows and half to columns; wavelengths rise from 2 pi to 20,000 pi
    positions (Vaswani et al. 2017).
    """
    pairs = channels // 4
    steps = torch.arange(pairs, device=device, dtype=torch.float32)
    rates = torch.exp(-math.log(10_000.0) * steps / pairs)
    waves = []
    for length, view in ((height, (-1, 1)), (width, (1, -1))):
        angles = rates[:, None] * torch.arange(length, device=device, dtype=torch.float32)
        for wave in (angles.sin(), angles.cos()):
            waves.append(wave.view(pairs, *view).expand(pairs, height, width))
    return torch.cat(waves)[None]
