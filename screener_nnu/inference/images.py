"""Which scans or pictures a prediction is asked for, and how its files are written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom.files import is_dicom, is_zip
from screener_nnu.dicom.records import Series
from screener_nnu.errors import ScreenerError, some
from screener_nnu.files import refuse_missing, replacing
from screener_nnu.inference.compressed_nifti import write_compressed
from screener_nnu.inference.picture_files import find_pictures, joined_name, write_tiff
from screener_nnu.map_kind import PICTURES, SCANS, MapKind
from screener_nnu.preprocessing.pictures import PICTURE_ENDINGS, is_picture, write_picture
from screener_nnu.preprocessing.reading import Source
from screener_nnu.preprocessing.volumes import Geometry, is_flat, printable

logger = logging.getLogger(__name__)

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
# Volumes of other programs, whose damage or placement nobody would notice.
_OTHER_IMAGES = (".hdr", ".img", ".hdr.gz", ".img.gz", ".nhdr", ".mgz", ".mgh", ".mnc", ".gipl")


def find_images(source: Path) -> dict[str, Source]:
    """Scans or pictures by case name: image files, and DICOM series of a folder tree or of zips.

    Files of scans are looked for in the folder itself, pictures and DICOM series at any depth, and
    series in zips, too. A single DICOM file may be a volume. The channel suffix `_0000` of nnU-Net
    is not part of a case name; folders above a picture are: `left/a.png` is `left_a`. Names of
    series: `names_by_folder`. Whatever is no volume of CT is logged with the reason.

    Raises:
        ScreenerError: nothing to predict, two images of one name, or scans beside pictures.
    """
    refuse_missing(source)
    if not source.is_dir() and not is_zip(source) and not is_dicom(source):
        if not source.name.lower().endswith((*IMAGE_ENDINGS, *PICTURE_ENDINGS)):
            raise ScreenerError(_no_scan(source))
        return {case_name(source): source}
    scans: list[tuple[str, Source]] = [*_image_files(source), *_series(source)]
    pictures = find_pictures(source) if source.is_dir() else []
    if scans and pictures:
        _refuse_both(source, [path for _, path in scans if isinstance(path, Path)], pictures)
    elif pictures:
        scans = [(case_name(joined_name(path, source)), path) for path in pictures]
    found: dict[str, Source] = {}
    for name, scan in scans:
        if name in found:
            both = " and ".join(_place(one, source) for one in (scan, found[name]))
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


def kind_of(images: Mapping[str, Source]) -> MapKind:
    """Whether these are scans or pictures; `find_images` gives only one of both."""
    first = next(iter(images.values()), None)
    return PICTURES if isinstance(first, Path) and is_picture(first) else SCANS


def kind_of_map(image: sitk.Image) -> MapKind:
    """Whether this is the map or mask of a scan or of a picture."""
    return PICTURES if is_flat(Geometry.of_image(image)) else SCANS


def _refuse_both(source: Path, volumes: list[Path], pictures: list[Path]) -> None:
    """Refuses files of scans beside pictures; pictures elsewhere in the tree of scans are named.

    Raises:
        ScreenerError: both lie in the folder itself.
    """
    beside = [printable(path.name) for path in pictures if path.parent == source]
    if volumes and beside:
        raise ScreenerError(
            f"{source} holds scans ({some([printable(path.name) for path in volumes])}) and "
            f"pictures ({some(beside)}): give each kind a folder of its own"
        )
    names = [printable(str(path.relative_to(source))) for path in pictures]
    logger.warning("left out for they are pictures among scans: %s", some(names))


def _no_scan(source: Path) -> str:
    """Why nothing of a file or folder can be predicted, where what was met is logged."""
    name = source.name.lower()
    kinds = f"{', '.join((*IMAGE_ENDINGS, *PICTURE_ENDINGS))} or DICOM series of CT"
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

    ignored = (*IMAGE_ENDINGS, *PICTURE_ENDINGS)
    found = find_series(source, progress=True, ignored=ignored)
    for one in found.left_out:
        logger.info("left out %s: %s", one.series.pseudonym, one.reason)
    for remark in found.remarks():
        logger.warning("%s", remark)
    return list(zip(names_by_folder(found.series, source), found.series, strict=True))


def _is_image(path: Path) -> bool:
    # Hidden ones are what a killed run left half written.
    return path.name.lower().endswith(IMAGE_ENDINGS) and not path.name.startswith(".")


def _place(source: Source, folder: Path) -> str:
    if isinstance(source, Path):
        return printable(str(source.relative_to(folder)))
    return f"the DICOM series {source.pseudonym}"


def case_name(path: Path) -> str:
    """File name without its ending and without nnU-Net's channel suffix, as printable text."""
    name = printable(path.name)
    for ending in (*IMAGE_ENDINGS, *PICTURE_ENDINGS):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return name.removesuffix("_0000") or name


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
            write_tiff(image, temporary)
        else:
            write_compressed(image, temporary)
