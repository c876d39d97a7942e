"""Pictures of a folder tree by case name, and files of maps and masks of pictures."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import SimpleITK as sitk  # noqa: N813
import tifffile

from screener_nnu.errors import some
from screener_nnu.ownership import RECORDS
from screener_nnu.preprocessing.pictures import is_picture
from screener_nnu.preprocessing.volumes import printable

logger = logging.getLogger(__name__)


def find_pictures(folder: Path) -> list[Path]:
    """Pictures at any depth, by path; hidden ones and folders of our own output are left out."""
    found, ours = [], []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        own = [name for name in folders if (here / name / RECORDS).is_dir()]
        ours += [printable(name) for name in own]
        folders[:] = [name for name in folders if name[0] != "." and name not in own]
        found += [here / name for name in files if name[0] != "." and is_picture(Path(name))]
    if ours:
        logger.warning(
            "folders of our own output in %s are not looked into: %s", folder, some(ours)
        )
    return sorted(found)


def joined_name(path: Path, folder: Path) -> Path:
    """The path below a folder as one file name: `left/a.png` becomes `left_a.png`."""
    return Path("_".join(path.relative_to(folder).parts))


def write_tiff(image: sitk.Image, path: Path) -> None:
    """Writes the map of a picture as a TIFF of one page, packed without loss.

    Args:
        image: size (W, H, 1), one number a pixel.
        path: give a temporary name.

    Raises:
        OSError: the file cannot be written.
    """
    (pixels,) = sitk.GetArrayViewFromImage(image)
    # Without a description or a time, so that equal maps are equal files.
    tifffile.imwrite(
        path, pixels, photometric="minisblack", compression="zlib", metadata=None, software=False
    )
