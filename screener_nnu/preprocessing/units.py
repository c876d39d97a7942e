"""Whether the values of a scan can be Hounsfield units (HU) of a person: air -1000, water 0."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import CaseError, some

logger = logging.getLogger(__name__)

# Above this lies everything that is not air (HU); nothing above it means that nobody was scanned.
_AIR_LIMIT = -500.0
_AIR = (-1100.0, -900.0)
# Metal on an extended scale ends at 65,535 HU, padding at the lowest number of 16 bits.
_FARTHEST = 1e6
# Fat, fluids, muscle and organs, with and without contrast.
_TISSUE = (-200.0, 300.0)
# What scanners store, HU + 1024, when nobody has subtracted it; or has twice.
_OFFSET = 1024.0
_SMALLEST_RANGE = 100.0
# Voxels that are looked at; an odd step meets every row and column.
_SAMPLE = 2_000_000
# Shares of the voxels, all far from what 270 scans of head, neck, trunk and limbs show.
_PADDING_SHARE = 0.01
_NO_AIR = 0.001
_SHIFTED_TISSUE = 0.15
_DEEP_AIR = 0.005
_LEAST_TISSUE = 1 / 3
_CLEAR_AIR = 0.05
_ZEROS = 0.05
_FULL_VIEW = 0.98
_OTHER_UNIT = "this is not CT in Hounsfield units, but looks like"


def check_intensities(array: NDArray, case: str) -> None:
    """Refuses values that are no HU of a person; says in a warning what is merely unusual.

    Args:
        array: values (z, y, x).
        case: name used in messages.

    Raises:
        CaseError: NaN or infinite values, another unit, padding of 0, or nothing but air.
    """
    # NumPy's minimum and maximum are NaN as soon as one voxel is.
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise CaseError(
            case, "the image holds NaN or infinite values: replace them by -1024 (air) in the file"
        )
    sample = array.reshape(-1)[:: max(1, array.size // _SAMPLE) | 1]
    if max(high, -low) > _FARTHEST:
        raise CaseError(
            case,
            f"it holds values such as {high if high > -low else low:.3g}, far beyond those of air "
            "and metal: replace damaged voxels and padding by -1024 (air)",
        )
    if reason := _why_not_hounsfield(sample, low, high):
        raise CaseError(case, reason)
    if low > _AIR_LIMIT:
        logger.warning(
            "%s: no voxel lies below %.0f HU (lowest %.0f): right for a piece from within a body, "
            "else these are not HU",
            case,
            _AIR_LIMIT,
            low,
        )


def looks_like_ct(array: NDArray) -> bool:
    """Whether finite values (z, y, x) are HU of a person with air around or inside."""
    sample = array.reshape(-1)[:: max(1, array.size // _SAMPLE) | 1]
    low, high = float(array.min()), float(array.max())
    if max(high, -low) > _FARTHEST or _why_not_hounsfield(sample, low, high):
        return False
    return _share(sample, *_AIR) >= _CLEAR_AIR


def warn_of_full_views(body_shares: Mapping[str, float]) -> None:
    """Names in one warning the scans without any air around the body.

    Args:
        body_shares: share of the voxels of each scan that are body, by case.
    """
    full = [case for case, share in body_shares.items() if share >= _FULL_VIEW]
    if full:
        logger.warning(
            "in %d of %d scans the body fills the field of view (%s): right for a small field of "
            "view, else their padding or units are wrong",
            len(full),
            len(body_shares),
            some(full),
        )


def _why_not_hounsfield(sample: NDArray, low: float, high: float) -> str:
    """The reason, and the way out; empty where the values can be HU."""
    values = _without_padding(sample, low)
    if _share(values, *_AIR) < _NO_AIR and _tissue_share(values, _OFFSET) > _SHIFTED_TISSUE:
        return f"{_OTHER_UNIT} HU + 1024: subtract 1024 from every voxel, or leave it out"
    if _share(values, *(limit - _OFFSET for limit in _AIR)) > _DEEP_AIR:
        return f"{_OTHER_UNIT} HU - 1024: add 1024 to every voxel, or leave it out"
    if high <= _AIR_LIMIT:
        return (
            f"no voxel lies above {_AIR_LIMIT:.0f} HU (highest {high:.0f}), so there is nothing "
            "but air: check the rescaling to HU or leave the case out"
        )
    if high - low <= _SMALLEST_RANGE:
        return (
            f"all values lie between {low:.4g} and {high:.4g}, so this is not CT in Hounsfield "
            "units: rescale it to HU or leave it out"
        )
    if low >= 0:
        return (
            f"no value is negative (from {low:.0f} to {high:.0f}), so this is not CT in Hounsfield "
            "units: rescale it to HU or leave it out; MR needs a plan and a model of its own"
        )
    zeros = float(np.mean(sample == 0))
    if zeros > _ZEROS:
        return (
            f"{zeros:.0%} of the voxels are exactly 0, which in HU is water: padding outside of "
            "the field of view has to be air, so replace it by -1024"
        )
    dense = values[values > _AIR_LIMIT]
    tissue = _tissue_share(dense) if dense.size else 1.0
    if tissue < _LEAST_TISSUE:
        return (
            f"only {tissue:.0%} of what is denser than air lies between {_TISSUE[0]:.0f} and "
            f"{_TISSUE[1]:.0f} HU, where tissue does: check the rescaling to HU or leave it out"
        )
    return ""


def _without_padding(sample: NDArray, low: float) -> NDArray:
    """Without the lowest value where it stands for many voxels: outside the field of view."""
    inside = sample[sample > low]
    padded = sample.size - inside.size > _PADDING_SHARE * sample.size
    return inside if padded and inside.size else sample


def _tissue_share(values: NDArray, offset: float = 0.0) -> float:
    return _share(values, _TISSUE[0] + offset, _TISSUE[1] + offset)


def _share(values: NDArray, low: float, high: float) -> float:
    return float(np.mean((values >= low) & (values <= high)))
