"""A bank of filters made by hand: what a network has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from screener_nnu.descriptors.base import HU, Descriptor
from screener_nnu.networks.unet import in_full_precision
from screener_nnu.plans import PreprocessingSettings, Range
from screener_nnu.preprocessing.modality import CT, DEVIATIONS, MR
from screener_nnu.sampling.smoothing import gaussian_smooth
from screener_nnu.setting_values import Positive

# Of CT in HU: air to bone, and soft tissue.
SOFT_TISSUE = (-160.0, 240.0)
_WINDOWS_OF_CT = ((-1000.0, 300.0), SOFT_TISSUE)
# Of values in [0, 1]: below it, a variance is noise.
_LEAST_VARIANCE = 1e-4


@dataclass(frozen=True)
class FiltersSettings:
    """Scales of the filters.

    Attributes:
        sigmas: standard deviations (voxels) of the Gaussians that smooth the image.
        variance_sigmas: those of the neighbourhoods whose variance is measured.
    """

    sigmas: tuple[Positive, ...] = (0.8, 1.6, 3.2, 6.4)
    variance_sigmas: tuple[Positive, ...] = (1.6, 3.2)


def filters_of(sigmas: Sequence[float], variance_sigmas: Sequence[float]) -> int:
    """Filters of a window."""
    return 1 + len(sigmas) + len(variance_sigmas)


class FilterBank(Descriptor):
    """Intensity, smoothed intensities and logarithms of local variances; nothing is learned.

    In CT there are two of each, of a wide window of HU and of one of soft tissue, in MR and of
    pictures one; of a colour picture the mean of the colours is looked at. It has to be told of the
    images by `check_images`.

    Args:
        sigmas, variance_sigmas: see `FiltersSettings`.
    """

    Settings = FiltersSettings
    #: Windows of images that it was told nothing of.
    usual: ClassVar[tuple[Range, ...]] = _WINDOWS_OF_CT
    reads = HU
    windows: torch.Tensor

    def __init__(self, sigmas: tuple[float, ...], variance_sigmas: tuple[float, ...]) -> None:
        """Keeps the scales; windows are those of CT until `check_images` says otherwise."""
        scales = [f"{kind} {values}" for kind, values in (("s", sigmas), ("v", variance_sigmas))]
        self.sigmas, self.variance_sigmas = tuple(sigmas), tuple(variance_sigmas)
        super().__init__(self._channels(len(self.usual)), *scales)
        self.register_buffer("windows", torch.tensor(self.usual))

    def _channels(self, windows: int) -> int:
        return windows * filters_of(self.sigmas, self.variance_sigmas)

    def check_images(self, settings: PreprocessingSettings) -> None:
        """Takes the windows of a plan's modality."""
        super().check_images(settings)
        if settings.modality != CT:
            window = DEVIATIONS if settings.modality == MR else settings.hu_window
            self.windows = torch.tensor([window]).to(self.windows)
            self.channels = self._channels(1)

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The map (B, channels, D, H, W) of images (B, C, D, H, W)."""
        # A variance is a small difference, which 8 bits do not hold.
        with in_full_precision(image.device.type):
            values = image.float().mean(1, keepdim=True)
            low, high = self.windows.T[..., None, None, None]
            unit = ((values - low) / (high - low)).clamp(0, 1)
            square = unit.square()
            scales = dict.fromkeys((*self.sigmas, *self.variance_sigmas))
            smooth = {sigma: gaussian_smooth(unit, sigma) for sigma in scales}
            maps = [unit, *(smooth[sigma] for sigma in self.sigmas)]
            for sigma in self.variance_sigmas:
                variance = gaussian_smooth(square, sigma) - smooth[sigma].square()
                maps.append(variance.clamp_min(_LEAST_VARIANCE).log())
            return torch.cat(maps, dim=1)
