"""More than the last layer of a trained UNet: the maps of its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from screener_nnu.descriptors.base import CellDescriptor, freeze
from screener_nnu.descriptors.cells import average_cells, padded_to
from screener_nnu.descriptors.kept_channels import draw_channels, of_each_map
from screener_nnu.errors import ScreenerError
from screener_nnu.networks.levels import deepest_stride, levels_of, run_levels
from screener_nnu.networks.planes import from_planes, is_of_planes, to_planes
from screener_nnu.plans import Shape
from screener_nnu.setting_values import CountOrNone


@dataclass(frozen=True)
class LevelsSettings:
    """Which stages, and how many of their channels.

    Attributes:
        levels: names of `level_names`, in the order of their channels; by default the first three
            stages of the encoder.
        most_channels: size of the random subset of all channels; 0 keeps them all.
        seed: of the subset.
    """

    levels: tuple[str, ...] = ("encoder_0", "encoder_1", "encoder_2")
    most_channels: CountOrNone = 0
    seed: CountOrNone = 0


class LevelsDescriptor(CellDescriptor):
    """Stages of a UNet of nnU-Net, concatenated.

    `encoder_0` is the encoder's stage at input resolution, `encoder_1` the next coarser one, and so
    on to the bottleneck. `decoder_0` is the decoder's finest stage, which the linear output layer
    sees, `decoder_1` the next coarser one; `output` is that layer's map, the network's own. Stage k
    of either side has the same stride and width.

    The maps of coarser stages are spread over their cells, see `average_cells`. An image whose size
    is no multiple of the network's strides is filled up with zeros, as tiles of a scan are.

    References:
        Tian et al., "Self-supervised Pseudo Multi-class Pre-training for Unsupervised Anomaly
        Detection and Segmentation in Medical Images" (PMSACL), https://arxiv.org/abs/2109.01303,
        whose detectors read levels of an encoder.

    Args:
        network: (B, 1, D, H, W) -> (B, d, D, H, W) with `encoder` and `decoder` of
            dynamic_network_architectures; it is frozen, not copied.
        levels, most_channels, seed: see `LevelsSettings`.

    Raises:
        ScreenerError: the network is no such UNet, or a level is not there or named twice.
    """

    Settings = LevelsSettings
    kept: torch.Tensor

    def __init__(
        self, network: nn.Module, levels: Sequence[str], most_channels: int = 0, seed: int = 0
    ) -> None:
        """Checks the names and draws the channels."""
        known = levels_of(network)
        wrong = [name for name in levels if name not in known]
        if wrong or not levels or len(set(levels)) != len(levels):
            raise ScreenerError(
                f"levels must be some of {', '.join(known)}, each once, but are "
                f"{', '.join(levels) or 'none'}"
            )
        widths = [known[name].channels for name in levels]
        kept = draw_channels(sum(widths), most_channels, seed)
        super().__init__(len(kept), "levels", *levels)
        self.network = freeze(network)
        self.levels = tuple(levels)
        self.divisor = deepest_stride(network)
        self._widths, self._some = widths, len(kept) < sum(widths)
        self._strides = {name: known[name].stride for name in levels}
        self.register_buffer("kept", kept)

    @torch.no_grad()
    def pooled(self, image: torch.Tensor, pooling: Shape) -> torch.Tensor:
        """See `Descriptor.pooled`; each level is pooled as soon as it is there."""
        d, h, w = image.shape[2:]
        # A selection of all would copy them.
        chosen = of_each_map(self.kept, self._widths) if self._some else [None] * len(self.levels)
        channels = dict(zip(self.levels, chosen, strict=True))
        found: dict[str, torch.Tensor] = {}

        def take(name: str, maps: torch.Tensor) -> None:
            if name in channels:
                some = channels[name]
                maps = (maps if some is None else maps[:, some]).float()
                found[name] = average_cells(maps, self._strides[name], (d, h, w), pooling)

        self._run(padded_to(image, self.divisor), take)
        return torch.cat([found[name] for name in self.levels], dim=1)

    def _run(self, image: torch.Tensor, take: Callable[[str, torch.Tensor], None]) -> None:
        """Hands over every level of the network; the decoder runs only where it is asked for."""
        if is_of_planes(self.network):
            batch, give = len(image), take
            image = to_planes(image)

            def take(name: str, maps: torch.Tensor) -> None:
                give(name, from_planes(maps, batch))

        decoder = not all(name.startswith("encoder_") for name in self.levels)
        run_levels(self.network, image, take, decoder)


def level_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the levels of a UNet, see `LevelsDescriptor`.

    Raises:
        ScreenerError: the network has no encoder and decoder as those of nnU-Net have.
    """
    return tuple(levels_of(network))
