"""The trained UNet's map, and beside it filters made by hand of the same image."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from screener_nnu.descriptors.base import EQUALISED, Descriptor, freeze
from screener_nnu.descriptors.cells import padded_to
from screener_nnu.descriptors.filters import SOFT_TISSUE, FilterBank, FiltersSettings, filters_of
from screener_nnu.networks.levels import OUTPUT, deepest_stride, levels_of
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.modality import CT
from screener_nnu.setting_values import parse

# Of the image in [0, 1]: all of it, and its middle, where no other one is known.
_WINDOWS = ((0.0, 1.0), (0.25, 0.75))


class FiltersOfEqualised(FilterBank):
    """The filter bank on the equalised image, in two windows.

    In CT that is not equalised (`preprocessing.equalisation=none`) they are those of the bank on
    HU: the whole window, and soft tissue. Elsewhere the second is the middle half of the levels.
    """

    usual = _WINDOWS
    reads = EQUALISED

    def check_images(self, settings: PreprocessingSettings) -> None:
        """Takes the windows of a plan."""
        Descriptor.check_images(self, settings)
        windows = _WINDOWS
        if settings.modality == CT and settings.equalisation == "none":
            low, high = settings.hu_window
            soft: Any = tuple((hu - low) / (high - low) for hu in SOFT_TISSUE)
            windows = (_WINDOWS[0], soft)
        self.windows = torch.tensor(windows).to(self.windows)


class DescriptorWithFilters(Descriptor):
    """The UNet's channels, then those of `FiltersOfEqualised`.

    Learned features see shape and texture, filters what a value is: each finds anomalies that the
    other misses.

    Args:
        network: (B, C, D, H, W) -> (B, d, D, H, W); it is frozen, not copied.
        sigmas, variance_sigmas: see `FiltersSettings`.
    """

    Settings = FiltersSettings

    def __init__(
        self, network: nn.Module, sigmas: tuple[float, ...], variance_sigmas: tuple[float, ...]
    ) -> None:
        """Joins both."""
        filters = FiltersOfEqualised(sigmas, variance_sigmas)
        learned = levels_of(network)[OUTPUT].channels
        super().__init__(learned + filters.channels, "with filters")
        self.network, self.filters = freeze(network), filters
        self.divisor = deepest_stride(network)

    def check_images(self, settings: PreprocessingSettings) -> None:
        """Tells the filters of the plan's images."""
        super().check_images(settings)
        self.filters.check_images(settings)

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The map (B, channels, D, H, W) of equalised images (B, C, D, H, W)."""
        depth, height, width = image.shape[2:]
        learned = self.network(padded_to(image, self.divisor)).float()
        return torch.cat([learned[:, :, :depth, :height, :width], self.filters(image)], dim=1)


def filter_channels(options: dict[str, Any]) -> int:
    """Channels of the filters by the options of a plan.

    Raises:
        ScreenerError: they are none of this descriptor.
    """
    own = parse(FiltersSettings, options, "screener.density.descriptor_options")
    return len(_WINDOWS) * filters_of(own.sigmas, own.variance_sigmas)
