"""Which scans or pictures a prediction is asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from screener_nnu.dicom.files import is_dicom, is_zip
from screener_nnu.dicom.records import Series
from screener_nnu.errors import ScreenerError, printable, some
from screener_nnu.files import refuse_missing
from screener_nnu.map_kind import PICTURES, SCANS, MapKind
from screener_nnu.ownership import RECORDS
from screener_nnu.preprocessing.image_files import VOLUME_ENDINGS, is_volume
from screener_nnu.preprocessing.pictures import PICTURE_ENDINGS, is_picture
from screener_nnu.preprocessing.reading import Source

logger = logging.getLogger(__name__)

_ENDINGS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)
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
        if not source.name.lower().endswith(_ENDINGS):
            raise ScreenerError(_no_scan(source))
        return {case_name(source): source}
    scans: list[tuple[str, Source]] = [*_image_files(source), *_series(source)]
    pictures = find_pictures(source) if source.is_dir() else []
    if scans and pictures:
        _refuse_both(source, [path for _, path in scans if isinstance(path, Path)], pictures)
    elif pictures:
        # `left/a.png` is `left_a`.
        names = (Path("_".join(path.relative_to(source).parts)) for path in pictures)
        scans = [(case_name(name), path) for name, path in zip(names, pictures, strict=True)]
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
    kinds = f"{', '.join(_ENDINGS)} or DICOM series of CT"
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

    found = find_series(source, progress=True, ignored=_ENDINGS)
    for one in found.left_out:
        logger.info("left out %s: %s", one.series.pseudonym, one.reason)
    for remark in found.remarks():
        logger.warning("%s", remark)
    return list(zip(names_by_folder(found.series, source), found.series, strict=True))


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


def _is_image(path: Path) -> bool:
    # Hidden ones are what a killed run left half written.
    return is_volume(path) and not path.name.startswith(".")


def _place(source: Source, folder: Path) -> str:
    if isinstance(source, Path):
        return printable(str(source.relative_to(folder)))
    return f"the DICOM series {source.pseudonym}"


def case_name(path: Path) -> str:
    """File name without its ending and without nnU-Net's channel suffix, as printable text."""
    name = printable(path.name)
    for ending in _ENDINGS:
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return name.removesuffix("_0000") or name
