"""Images that belong to a scan: its map, its body mask, its labels."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import CaseError
from screener_nnu.preprocessing.nifti import find_damage


def read_companion(path: Path, case: str) -> sitk.Image:
    """A 3D image with one value per voxel.

    Raises:
        CaseError: the file is unreadable, damaged, or something else.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise CaseError(case, f"{path} cannot be read: make it again") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise CaseError(case, f"{path} is no 3D image with one value per voxel: give the map's own")
    damage = find_damage(path)
    if damage:
        raise CaseError(case, f"{path} cannot be used ({damage}): make it again")
    return image
