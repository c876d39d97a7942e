"""Equalisation of a scan's contrast: adaptive (CLAHE, in three dimensions) or one curve for all."""

from __future__ import annotations

import math

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import PreprocessingSettings, Range

_EVEN_SHARE = 0.3


def equalise(
    image_hu: np.ndarray, settings: PreprocessingSettings, window: Range | None = None
) -> np.ndarray:
    """Windows a scan and equalises its contrast as `settings.equalisation` says.

    `adaptive` is the paper's: it keeps pathology visible under colour jitter; "otherwise, the
    quality of our method degrades largely" (Goncharov et al., ICLR 2026, arXiv 2502.08321). It also
    makes equal HU unequal, from scan to scan and from place to place. `global` spreads the grey
    levels of soft tissue just as far, by one curve for all scans.

    Args:
        image_hu: HU, or values of another modality, (z, y, x), of colour (3, z, y, x), cropped to
            the body: tiles of CLAHE are a fraction of this box.
        settings: window, kind of equalisation and what it needs.
        window: of this image, where it has one of its own.

    Returns:
        float32 in [0, 1], same shape.

    Raises:
        ScreenerError: no such kind, or `global` without at least two rising levels.
    """
    if settings.equalisation == "global":
        levels = np.asarray(settings.hu_levels, dtype=float)
        if len(levels) < 2 or (np.diff(levels) <= 0).any():
            raise ScreenerError(
                "preprocessing.hu_levels must be rising for preprocessing.equalisation=global; "
                "plan again with screener_plan_and_preprocess"
            )
        return np.interp(image_hu, levels, np.linspace(0, 1, len(levels))).astype(np.float32)
    if settings.equalisation not in ("adaptive", "none"):
        raise ScreenerError(
            "preprocessing.equalisation must be adaptive, global or none, but is "
            f"{settings.equalisation}"
        )
    low, high = window or settings.hu_window
    scaled = (np.clip(image_hu, low, high) - low) / (high - low)
    scaled = scaled.astype(np.float32, copy=False)
    # A flat image has no contrast, and scikit-image would divide by its range.
    if settings.equalisation == "none" or scaled.min() == scaled.max():
        return scaled
    if scaled.ndim == 3:
        return _clahe(scaled, settings)
    # Of colour the brightness alone: equalised by itself, a colour would become another one.
    brightness = scaled.max(axis=0)
    factor = _clahe(brightness, settings) / np.maximum(brightness, 1e-3)
    return np.clip(scaled * factor, 0.0, 1.0)


def global_levels(
    counts: np.ndarray, edges: np.ndarray, window: Range, levels: int = 129
) -> tuple[float, ...]:
    """HU of equally spaced grey levels under which a histogram becomes even.

    Three tenths of the levels are spread evenly over the window, so that no tissue in it is
    flattened and no slope is without bound.

    Args:
        counts: voxels of each bin of the bodies of all planned scans, (n,).
        edges: of the bins (HU), rising, (n + 1,).
        window: HU of levels 0 and 1.
        levels: number of them.

    Example:
        >>> global_levels(np.ones(4), np.arange(0.0, 41.0, 10.0), (0.0, 40.0), levels=5)
        (0.0, 10.0, 20.0, 30.0, 40.0)
    """
    hu = np.unique(np.clip(edges, *window))
    below = np.interp(hu, edges, np.concatenate([[0.0], np.cumsum(counts)]))
    share = (below - below[0]) / max(below[-1] - below[0], 1.0)
    even = (hu - window[0]) / (window[1] - window[0])
    curve = _EVEN_SHARE * even + (1 - _EVEN_SHARE) * share
    return tuple(float(v) for v in np.interp(np.linspace(0, 1, levels), curve, hu).round(3))


def _clahe(scaled: np.ndarray, settings: PreprocessingSettings) -> np.ndarray:
    from skimage.exposure import equalize_adapthist

    if scaled.shape[0] == 1:  # a picture
        return _clahe(scaled[0], settings)[None]
    # scikit-image takes a last axis of 3 or 4 voxels for colours; put the longest axis last.
    axes = np.argsort(scaled.shape, kind="stable")
    image = np.ascontiguousarray(scaled.transpose(axes))
    result = equalize_adapthist(
        image,
        # Rounded up, so that a short axis has fewer tiles instead of tiles without content.
        kernel_size=[math.ceil(n / settings.clahe_tiles) for n in image.shape],
        clip_limit=settings.clahe_clip,
        nbins=settings.clahe_bins,
    )
    result = result.transpose(np.argsort(axes)).astype(np.float32)
    return np.ascontiguousarray(np.clip(result, 0.0, 1.0))
