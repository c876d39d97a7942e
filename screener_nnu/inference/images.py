"""Which scans a prediction is asked for, and how its files are written."""

from __future__ import annotations

import logging
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom.files import is_dicom, is_zip
from screener_nnu.dicom.records import Series
from screener_nnu.errors import ScreenerError, some
from screener_nnu.files import refuse_missing, replacing
from screener_nnu.inference.compressed_nifti import write_compressed
from screener_nnu.preprocessing.reading import Source
from screener_nnu.preprocessing.volumes import printable

logger = logging.getLogger(__name__)

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
# Volumes of other programs, whose damage or placement nobody would notice.
_OTHER_IMAGES = (".hdr", ".img", ".hdr.gz", ".img.gz", ".nhdr", ".mgz", ".mgh", ".mnc", ".gipl")


def find_images(source: Path) -> dict[str, Source]:
    """Scans by case name: image files, and the DICOM series of a folder tree or of zips.

    Image files are looked for in the folder itself, DICOM series at any depth and in zips. A single
    DICOM file may be a volume, too. The channel suffix `_0000` of nnU-Net is not part of a case
    name; names of series: `names_by_folder`. Whatever is no volume of CT is logged with the reason.

    Raises:
        ScreenerError: nothing to predict, or two scans of one name.
    """
    refuse_missing(source)
    if not source.is_dir() and not is_zip(source) and not is_dicom(source):
        if not source.name.lower().endswith(IMAGE_ENDINGS):
            raise ScreenerError(_no_scan(source))
        return {case_name(source): source}
    found: dict[str, Source] = {}
    scans: list[tuple[str, Source]] = [*_image_files(source), *_series(source)]
    for name, scan in scans:
        if name in found:
            both = " and ".join(_place(one) for one in (scan, found[name]))
            raise ScreenerError(
                f"{both} have the same case name {name} in {source}: rename one of them"
            )
        found[name] = scan
    if not found and is_dicom(source):
        raise ScreenerError(
            f"{source} by itself is no volume of CT: give the folder with all files of its series"
        )
    if not found:
        raise ScreenerError(_no_scan(source))
    return found


def _no_scan(source: Path) -> str:
    """Why nothing of a file or folder can be predicted, where what was met is logged."""
    name = source.name.lower()
    kinds = f"{', '.join(IMAGE_ENDINGS)} or DICOM series of CT"
    if source.is_dir():
        return f"no image in {source}: expected {kinds}"
    if not source.is_file():
        return f"{source} is no file that can be read: expected {kinds}"
    if name.endswith(_OTHER_IMAGES):
        return f"{source} has a format that is not read: convert it to .nii.gz"
    return f"{source} is no image: expected {kinds}"


def _image_files(source: Path) -> list[tuple[str, Path]]:
    if source.is_file():
        return []
    there = sorted(source.iterdir())
    others = [path for path in there if path.name.lower().endswith(_OTHER_IMAGES)]
    names = [printable(path.name) for path in others if not is_dicom(path)]
    if names:
        logger.warning("not read for their format: %s; convert them to .nii.gz", some(names))
    return [(case_name(path), path) for path in there if _is_image(path)]


def _series(source: Path) -> list[tuple[str, Series]]:
    """Names and series of CT; the others are logged."""
    from screener_nnu.dicom.finding import find_series
    from screener_nnu.dicom.naming import names_by_folder

    found = find_series(source, progress=True, ignored=IMAGE_ENDINGS)
    for one in found.left_out:
        logger.info("left out %s: %s", one.series.pseudonym, one.reason)
    for remark in found.remarks():
        logger.warning("%s", remark)
    return list(zip(names_by_folder(found.series, source), found.series, strict=True))


def _is_image(path: Path) -> bool:
    # Hidden ones are what a killed run left half written.
    return path.name.lower().endswith(IMAGE_ENDINGS) and not path.name.startswith(".")


def _place(source: Source) -> str:
    if isinstance(source, Path):
        return printable(source.name)
    return f"the DICOM series {source.pseudonym}"


def case_name(path: Path) -> str:
    """File name without its ending and without nnU-Net's channel suffix, as printable text."""
    name = printable(path.name)
    for ending in IMAGE_ENDINGS:
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return name.removesuffix("_0000") or name


def write_image(image: sitk.Image, path: Path) -> None:
    """Writes a 3D image as `.nii.gz`, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
        ScreenerError: another file of that name is not ours.
    """
    with replacing(path) as temporary:
        write_compressed(image, temporary)
