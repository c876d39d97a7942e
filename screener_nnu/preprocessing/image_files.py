"""Files of volumes and of what is predicted: their endings, and the one way they are written."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk  # noqa: N813
import tifffile

from screener_nnu.files import replacing
from screener_nnu.map_kind import PICTURES, SCANS, MapKind
from screener_nnu.preprocessing.compressed_nifti import write_compressed
from screener_nnu.preprocessing.pictures import write_picture
from screener_nnu.preprocessing.volumes import Geometry, is_flat

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


def is_volume(path: Path | str) -> bool:
    """Whether a path ends as those of volumes do, in upper or lower case."""
    return str(path).lower().endswith(VOLUME_ENDINGS)


def kind_of_map(image: sitk.Image) -> MapKind:
    """Whether this is the map or mask of a scan or of a picture."""
    return PICTURES if is_flat(Geometry.of_image(image)) else SCANS


def write_image(image: sitk.Image, path: Path) -> None:
    """Writes a 3D image, whole or not at all.

    Args:
        image: of any size for `.nii.gz`, of one slice for `.tif` and `.png`.
        path: `.nii.gz`; `.tif` for the map of a picture, `.png` for whole numbers (uint8, uint16).

    Raises:
        OutputError: the file cannot be written.
        ScreenerError: another file of that name is not ours.
    """
    if path.suffix == PICTURES.labels:
        write_picture(sitk.GetArrayFromImage(image), path)
        return
    with replacing(path) as temporary:
        if path.suffix == PICTURES.map:
            _write_tiff(image, temporary)
        else:
            write_compressed(image, temporary)


def _write_tiff(image: sitk.Image, path: Path) -> None:
    """Writes the map (W, H, 1) of a picture as a TIFF of one page, packed without loss."""
    (pixels,) = sitk.GetArrayViewFromImage(image)
    # Without a description or a time, so that equal maps are equal files.
    tifffile.imwrite(
        path, pixels, photometric="minisblack", compression="zlib", metadata=None, software=False
    )
