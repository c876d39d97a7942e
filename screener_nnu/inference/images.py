"""Which scans a prediction is asked for, and how its files are written."""

from __future__ import annotations

import os
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import ScreenerError
from screener_nnu.inference.compressed_nifti import write_compressed

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


def find_images(source: Path) -> dict[str, Path]:
    """Scans by case name: one file, a folder of files, or a folder that is a DICOM series.

    nnU-Net's channel suffix `_0000` is not part of a case name.

    Raises:
        ScreenerError: nothing to predict, or two scans of one name.
    """
    if not source.exists():
        raise ScreenerError(f"{source} does not exist")
    if source.is_file():
        return {case_name(source): source}
    files = sorted(p for p in source.iterdir() if p.name.lower().endswith(IMAGE_ENDINGS))
    if not files:
        if any(p.is_file() for p in source.iterdir()):
            return {source.name: source}
        raise ScreenerError(f"no image in {source}: expected {', '.join(IMAGE_ENDINGS)} or DICOM")
    found: dict[str, Path] = {}
    for path in files:
        name = case_name(path)
        if name in found:
            raise ScreenerError(f"{path.name} and {found[name].name} have the same case name")
        found[name] = path
    return found


def case_name(path: Path) -> str:
    """File name without its ending and without nnU-Net's channel suffix."""
    name = path.name
    for ending in IMAGE_ENDINGS:
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return name.removesuffix("_0000")


def write_image(image: sitk.Image, path: Path) -> None:
    """Writes a NIfTI file whole or not at all.

    Raises:
        ScreenerError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        if image.GetPixelID() == sitk.sitkFloat32 and path.name.endswith(".nii.gz"):
            write_compressed(image, temporary)
        else:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        os.replace(temporary, path)
    except (RuntimeError, OSError) as error:
        raise ScreenerError(f"{path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
