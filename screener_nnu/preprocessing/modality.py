"""What the values of an image mean: CT, MR or a picture. A plan names one of them.

Whatever depends on it is here: which values are refused, what lies beyond the border, where the
body is, and which values become 0 and 1 before equalisation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import PICTURES, VOLUMES, PreprocessingSettings, Range, Spacing
from screener_nnu.preprocessing.body import Slices, body_box, body_mask
from screener_nnu.preprocessing.picture_body import lit_area
from screener_nnu.preprocessing.units import check_intensities, looks_like_ct

CT, MR, PICTURE = "ct", "mr", "picture"
# Voxels that percentiles and thresholds are measured on; an odd step meets every row and column.
_SAMPLE = 2_000_000
_EIGHT_BITS = 255
#: Window of normalised MR, which has no unit: standard deviations about the mean of a scan.
DEVIATIONS = (-3.0, 3.0)


class Modality(ABC):
    """One kind of images.

    Images are float32, (z, y, x), colour pictures (3, 1, y, x).

    Attributes:
        name: in a plan and on the command line.
        title: for people.
        unit: of the values, for people.
        configuration: of nnU-Net.
        scheme: class by which stock nnU-Net normalises.
        stored: type of the values on disk, in which they are rounded.
        beyond: value of what lies beyond the border of an image.
        threshold: from which tissue is body, a default for plans, in the unit of `dense`.
        edges: of the bins of the fingerprint's histogram.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    configuration: ClassVar[str] = VOLUMES
    scheme: ClassVar[str] = "CTNormalization"
    stored: ClassVar[type] = np.float16
    beyond: ClassVar[float] = 0.0
    threshold: ClassVar[float]

    @abstractmethod
    def edges(self, highest: float) -> NDArray[np.float64]:
        """Edges of the bins of a histogram of values up to the highest of the data set."""

    @abstractmethod
    def values(self, array: NDArray, case: str) -> NDArray[np.float32]:
        """The values of a file in the unit of the modality.

        Raises:
            CaseError: they cannot be those of such an image.
        """

    def why_not(self, image: NDArray, settings: PreprocessingSettings) -> str:
        """Why an image is none like those of the plan; empty where it is."""
        return ""

    def window(self, image: NDArray, settings: PreprocessingSettings) -> Range:
        """Values of an image that become 0 and 1 before equalisation."""
        return settings.hu_window

    @abstractmethod
    def box(
        self,
        image: NDArray,
        spacing: Spacing,
        settings: PreprocessingSettings,
        window: Range | None = None,
    ) -> Slices:
        """Bounding box of the body (z, y, x) in an image.

        Args:
            image: the whole scan or picture.
            spacing: voxel size (mm), (z, y, x).
            settings: of the plan.
            window: of the image, where it is known: that of MR takes a pass over the scan.
        """

    @abstractmethod
    def body(
        self, image: NDArray, spacing: Spacing, window: Range, threshold: float
    ) -> NDArray[np.bool_]:
        """Mask of the body (z, y, x) of an image that was clipped to a window.

        Args:
            image: of the body box.
            spacing: voxel size (mm), (z, y, x).
            window: of the image, see `window`.
            threshold: of the plan.
        """


class _Ct(Modality):
    """Hounsfield units."""

    name, title, unit = CT, "CT", "HU"
    stored = np.int16
    beyond = -1024.0
    threshold = -500.0

    def edges(self, highest: float) -> NDArray[np.float64]:
        """Of 4 HU each."""
        return np.arange(-1024.0, 3072.0 + 1, 4.0)

    def values(self, array: NDArray, case: str) -> NDArray[np.float32]:
        """HU as they are; see `check_intensities`."""
        # Before the conversion, which makes infinite what is merely too large.
        check_intensities(array, case)
        return array.astype(np.float32)

    def box(
        self,
        image: NDArray,
        spacing: Spacing,
        settings: PreprocessingSettings,
        window: Range | None = None,
    ) -> Slices:
        """See `body_box`."""
        return body_box(image, spacing, settings.body_threshold, settings.body_block_mm)

    def body(
        self, image: NDArray, spacing: Spacing, window: Range, threshold: float
    ) -> NDArray[np.bool_]:
        """See `body_mask`."""
        low, high = window
        if not low < threshold < high:
            raise ScreenerError(
                f"body_threshold {threshold} lies outside hu_window ({low}, {high}): choose one "
                "inside"
            )
        return body_mask(image, spacing, threshold)


class _Mr(Modality):
    """Standard deviations about the mean of the scan: MR has no unit.

    That is what `ZScoreNormalization` of stock nnU-Net makes of a scan, so the student sees in
    fine-tuning what it saw in training. Bias fields are not corrected here.
    """

    name, title, unit = MR, "MR", "standard deviations"
    scheme = "ZScoreNormalization"
    # A tenth of what bright tissue has, from the level of the background.
    threshold = 0.1

    def edges(self, highest: float) -> NDArray[np.float64]:
        """Of a fiftieth of a standard deviation each."""
        return np.arange(-10.0, 30.0 + 0.01, 0.02)

    def values(self, array: NDArray, case: str) -> NDArray[np.float32]:
        """(x - mean) / std over the box of what is not 0, as stock nnU-Net crops it."""
        with np.errstate(over="ignore"):
            image = array.astype(np.float32)
        low, high = float(image.min()), float(image.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise CaseError(
                case, "the image holds NaN or infinite values: replace them by 0 in the file"
            )
        if low == high:
            raise CaseError(case, f"every voxel has the value {low:g}: leave the scan out")
        if looks_like_ct(image):
            raise CaseError(
                case,
                "its values are Hounsfield units, so this is CT and not MR: CT needs a plan "
                "and a model of its own",
            )
        inside = image[ndimage.find_objects((image != 0).view(np.uint8))[0]]
        image -= inside.mean()
        image /= max(float(inside.std()), 1e-8)
        return image

    def window(self, image: NDArray, settings: PreprocessingSettings) -> Range:
        """See `tissue_range`."""
        return tissue_range(image)

    def box(
        self,
        image: NDArray,
        spacing: Spacing,
        settings: PreprocessingSettings,
        window: Range | None = None,
    ) -> Slices:
        """See `body_box`, with a threshold of this scan."""
        level = _between(window or self.window(image, settings), settings.body_threshold)
        return body_box(image, spacing, level, settings.body_block_mm)

    def body(
        self, image: NDArray, spacing: Spacing, window: Range, threshold: float
    ) -> NDArray[np.bool_]:
        """See `body_mask`, with a threshold of this scan."""
        return body_mask(image, spacing, _between(window, threshold))


class _Picture(Modality):
    """Grey values or colours of 8 or 16 bits; one slice with voxels of 1 x 1."""

    name, title, unit = PICTURE, "pictures", "grey values"
    configuration = PICTURES
    # Of the range of values: what a compressed file makes of black.
    threshold = 0.06

    def edges(self, highest: float) -> NDArray[np.float64]:
        """One a grey value of 8 bits, 1024 of 16."""
        return np.arange(257.0) if highest <= _EIGHT_BITS else np.arange(1025.0) * 64

    def values(self, array: NDArray, case: str) -> NDArray[np.float32]:
        """As they are."""
        return array.astype(np.float32)

    def why_not(self, image: NDArray, settings: PreprocessingSettings) -> str:
        """Pictures of 8 bits are for plans of 8 bits, those of 16 for plans of 16."""
        highest, most = settings.hu_window[1], float(image.max())
        if (highest > _EIGHT_BITS) == (most > _EIGHT_BITS):
            return ""
        return (
            f"its values reach {most:.0f}, and the plan is one of pictures whose white is "
            f"{highest:.0f}: convert the picture, or leave it out"
        )

    def box(
        self,
        image: NDArray,
        spacing: Spacing,
        settings: PreprocessingSettings,
        window: Range | None = None,
    ) -> Slices:
        """Of what is lit; see `lit_area`."""
        level = _between(settings.hu_window, settings.body_threshold)
        found = ndimage.find_objects(lit_area(_brightest(image)[0], level).view(np.uint8))[0]
        return slice(0, 1), *found

    def body(
        self, image: NDArray, spacing: Spacing, window: Range, threshold: float
    ) -> NDArray[np.bool_]:
        """What is lit: without the black border of an endoscope, a fundus camera or a probe."""
        return lit_area(_brightest(image)[0], _between(window, threshold))[None]


def tissue_range(image: NDArray) -> Range:
    """Robust bounds of an MR scan (z, y, x): level of the background, and bright foreground.

    They are the 0.5th percentile of all voxels and the 99.5th of the foreground, which is what
    Otsu's threshold parts from the rest, and are the same whatever the scale of the values.
    """
    from skimage.filters import threshold_otsu

    sample = image.reshape(-1)[:: max(1, image.size // _SAMPLE) | 1].astype(np.float32)
    low, top = np.percentile(sample, (0.5, 99.9))
    if not low < top:
        low, top = float(sample.min()), float(sample.max())
    bright = sample[sample >= threshold_otsu(np.clip(sample, low, top))]
    high = float(np.percentile(bright, 99.5))
    return float(low), max(high, float(low) + 1e-3)


def _between(window: Range, share: float) -> float:
    return window[0] + share * (window[1] - window[0])


def _brightest(image: NDArray) -> NDArray:
    """Highest value over the colours of each voxel, (z, y, x)."""
    return image if image.ndim == 3 else image.max(axis=0)


#: Modality by the name in a plan.
MODALITIES: dict[str, Modality] = {one.name: one for one in (_Ct(), _Mr(), _Picture())}


def modality_of(settings: PreprocessingSettings) -> Modality:
    """The modality that a plan names."""
    return MODALITIES[settings.modality]
