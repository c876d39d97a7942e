"""Values and lengths of other modalities than CT, as the painter of anomalies takes them.

The painter knows HU and millimetres. What it paints into MR or a picture has the same strength in
parts of the image's window, and in a picture the same size in parts of its sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from screener_nnu.plans import PreprocessingSettings, Range, Spacing
from screener_nnu.preprocessing.modality import CT, PICTURE, modality_of
from screener_nnu.synthetic.anomaly_settings import BlobSettings

# HU that black stands for, and HU from black to white: a lesion of 40 to 120 HU differs from its
# surroundings by 5 to 15 % of the window.
_BLACK, _RANGE = -500.0, 800.0
# Length (mm) that the longer side of a picture stands for: lesions of 6 to 20 mm radius then fill
# 3 to 10 % of it.
_SIDE_MM = 400.0
# Thickness (mm) of a picture: a disc of it has the volume of a ball of the mean radius.
_THICKNESS_MM = 17.0
# Mean change (HU) from which an anomaly counts as visible: 2 % of the window. Pictures are smoother
# than CT, and with its 50 HU no movement of tissue would show in many a radiograph.
_VISIBLE = 16.0


def blob_settings(settings: PreprocessingSettings) -> BlobSettings:
    """How anomalies are painted into the cases of a plan."""
    return BlobSettings() if settings.modality == CT else BlobSettings(visible=_VISIBLE)


@dataclass(frozen=True)
class PaintingScale:
    """How the values of an image are given to the painter.

    Attributes:
        window: values of the image that become 0 and 1 before equalisation.
        spacing: voxel size (mm), (z, y, x).
        hounsfield: whether the values are HU already.
        bounded: whether nothing lies outside the window.
    """

    window: Range
    spacing: Spacing
    hounsfield: bool
    bounded: bool

    @classmethod
    def of(cls, values: np.ndarray, settings: PreprocessingSettings) -> PaintingScale:
        """That of an image (D, H, W) or (C, D, H, W) on the plan's grid."""
        modality = modality_of(settings)
        window, spacing = modality.window(values, settings), settings.spacing
        if modality.name == PICTURE:
            pixel = _SIDE_MM / max(values.shape[-2:])
            spacing = (_THICKNESS_MM, pixel, pixel)
        return cls(window, spacing, modality.name == CT, modality.name == PICTURE)

    def painted(self, values: np.ndarray) -> np.ndarray:
        """What the painter changes, (D, H, W): HU, or what stands for them; of colours the mean."""
        if self.hounsfield:
            return values
        low, high = self.window
        scaled = _BLACK + _RANGE * (brightness(values) - low) / (high - low)
        return scaled.astype(np.float32)

    @property
    def painted_window(self) -> Range:
        """The window in the values that the painter changes."""
        return self.window if self.hounsfield else (_BLACK, _BLACK + _RANGE)

    def values(self, before: np.ndarray, painted: np.ndarray) -> np.ndarray:
        """The image with what was painted; colours are changed alike.

        Args:
            before: the image.
            painted: what `painted` gave, changed.
        """
        if self.hounsfield:
            return painted
        low, high = self.window
        change = (painted - self.painted(before)) * ((high - low) / _RANGE)
        values = before + change.astype(np.float32)
        if self.bounded:
            return np.clip(values, low, high)
        # Less than background is nothing, but some voxels of noise were before.
        return np.maximum(values, np.minimum(before, low))


def brightness(values: np.ndarray) -> np.ndarray:
    """Values (D, H, W), of colours (C, D, H, W) their mean."""
    return values if values.ndim == 3 else values.mean(axis=0)
