"""Raw images in one canonical orientation, with what is needed to map results back.

Array axes are (z, y, x); spacings of arrays have the same order, those of `Geometry` SimpleITK's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom.files import is_dicom, is_zip
from screener_nnu.dicom.records import Series
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import Shape, Spacing
from screener_nnu.preprocessing.modality import CT, MODALITIES, PICTURE
from screener_nnu.preprocessing.nifti import is_nifti
from screener_nnu.preprocessing.pictures import is_picture, picture_shape, read_picture
from screener_nnu.preprocessing.volumes import (
    PICTURE_DEPTH,
    WAY_OUT,
    Geometry,
    check_axes,
    check_layout,
    check_name,
    read_geometry,
    read_volume,
    shown_path,
)

if TYPE_CHECKING:
    from screener_nnu.dicom.volume import DicomVolume, SeriesSource

logger = logging.getLogger(__name__)

# An image file, a folder or zip of one DICOM series, or a series that was found before.
Source = Path | Series
CANONICAL = "LPS"
# Longest edge (mm) of the smallest and the largest thing that a CT shows.
_EXTENT_MM = (10.0, 4000.0)


@dataclass(frozen=True)
class RawImage:
    """One scan in canonical orientation, or a picture, which is a scan of one slice.

    Attributes:
        case: name of the scan.
        array: float32, (z, y, x), axes pointing to head, back (posterior) and left; of a colour
            picture (3, 1, y, x). In the unit of the modality: HU of CT.
        spacing: voxel size (mm), (z, y, x).
        geometry: that of the input file.
        source: the DICOM files that it was read from; None for other files.
        modality: a name of `MODALITIES`.
    """

    case: str
    array: np.ndarray
    spacing: Spacing
    geometry: Geometry
    source: SeriesSource | None = None
    modality: str = CT

    @property
    def shape(self) -> Shape:
        """Voxels per axis, (z, y, x)."""
        z, y, x = self.array.shape[-3:]
        return z, y, x

    @property
    def colours(self) -> int:
        """1 of grey values, 3 of colours."""
        return 1 if self.array.ndim == 3 else len(self.array)


def read_image(path: Source, case: str, modality: str = CT) -> RawImage:
    """Reads a file or a DICOM series, and turns its axes to LPS.

    Axes are only permuted and flipped: an oblique scan keeps its small rotation.

    Args:
        path: any 3D image file that SimpleITK reads, a folder or zip that holds one DICOM series of
            CT, a DICOM file of many frames, a series, or a picture.
        case: name used in messages.
        modality: what its values mean.

    Raises:
        CaseError: the file is unreadable, or is no image of that modality.
    """
    try:
        return _read(path, case, modality)
    except (ScreenerError, OSError, MemoryError):
        raise
    except Exception as error:  # what libraries make of a damaged file is up to them
        what = f"{type(error).__name__}: {error}"
        shown = shown_path(path) if isinstance(path, Path) else "the series"
        raise CaseError(case, f"{shown} cannot be read ({what}): {WAY_OUT}") from error


def _read(path: Source, case: str, modality: str) -> RawImage:
    pictured = isinstance(path, Path) and is_picture(path)
    if pictured != (modality == PICTURE):
        found = "a picture" if pictured else "a volume"
        raise CaseError(
            case,
            f"it is {found}, and {MODALITIES[modality].title} is asked for: give images of one "
            "kind, and a model that was trained on them",
        )
    if isinstance(path, Path) and pictured:
        return _read_picture(path, case)
    if isinstance(path, Path) and not (path.is_dir() or is_zip(path) or is_dicom(path)):
        return to_raw_image(read_volume(path, case), case, modality=modality)
    volume = _read_dicom(path, case)
    return to_raw_image(volume.image, case, volume.source)


def _read_picture(path: Path, case: str) -> RawImage:
    picture = read_picture(path, case)
    for note in picture.notes:
        logger.info("%s: %s", case, note)
    return picture_image(picture.pixels, case)


def picture_image(stored: np.ndarray, case: str) -> RawImage:
    """A picture (C, H, W) of 8 or 16 bits as a scan of one slice."""
    pixels = MODALITIES[PICTURE].values(stored, case)
    array = pixels if len(pixels) == 1 else pixels[:, None]
    _, rows, columns = pixels.shape
    geometry = Geometry.of_picture(columns, rows)
    return RawImage(case, array, (PICTURE_DEPTH, 1.0, 1.0), geometry, modality=PICTURE)


def to_raw_image(
    image: sitk.Image, case: str, source: SeriesSource | None = None, modality: str = CT
) -> RawImage:
    """Turns the axes of a volume to LPS.

    Raises:
        CaseError: the image is no 3D scan of a person, of that modality.
    """
    check_layout(image.GetSize(), image.GetNumberOfComponentsPerPixel(), case)
    geometry = Geometry.of_image(image)
    check_axes(geometry, case)
    _check_extent(geometry, case)
    image = sitk.DICOMOrient(image, CANONICAL)
    stored = sitk.GetArrayViewFromImage(image)
    array = MODALITIES[modality].values(stored, case)
    x, y, z = image.GetSpacing()
    return RawImage(case, array, (z, y, x), geometry, source, modality)


def _check_extent(geometry: Geometry, case: str) -> None:
    edges = [n * size for n, size in zip(geometry.size, geometry.spacing, strict=True)]
    if not _EXTENT_MM[0] <= max(edges) <= _EXTENT_MM[1]:
        shown = " x ".join(f"{edge:.3g}" for edge in edges)
        raise CaseError(
            case,
            f"it is {shown} mm large (x, y, z), as no scan of a person is: correct its voxel "
            "sizes, which have to be in mm",
        )


def read_size(path: Source) -> tuple[int, float]:
    """Voxels and volume (mm^3) of an image from its header alone; zeros when it is unreadable."""
    try:
        return _series_size(path) if isinstance(path, Series) else _file_size(path)
    except Exception:  # what libraries make of a damaged file is up to them
        return 0, 0.0


def _file_size(path: Path) -> tuple[int, float]:
    if is_picture(path):
        channels, rows, columns = picture_shape(path)
        return channels * rows * columns, PICTURE_DEPTH * rows * columns
    if is_nifti(path):
        geometry = read_geometry(path, path.name)
        voxels = int(np.prod([float(n) for n in geometry.size]))
        return voxels, voxels * float(np.prod(geometry.spacing))
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    check_name(files[0], "")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(files[0]))
    reader.ReadImageInformation()
    voxels = int(np.prod([float(n) for n in reader.GetSize()])) * len(files)
    return voxels, voxels * float(np.prod(reader.GetSpacing()))


def _series_size(series: Series) -> tuple[int, float]:
    first = series.slices[0]
    rows, columns = first.shape
    voxels = rows * columns * len(series.slices)
    places = np.array([one.position for one in series.slices if one.position is not None])
    if first.spacing is None or not len(places):
        return voxels, 0.0
    # From end to end, and a slice more, for both of the outer ones have a thickness.
    length = float(np.linalg.norm(np.ptp(places, axis=0))) + series.info.thickness
    return voxels, rows * first.spacing[0] * columns * first.spacing[1] * length


def _read_dicom(source: Source, case: str) -> DicomVolume:
    from screener_nnu.dicom.finding import find_series
    from screener_nnu.dicom.volume import read_series

    if isinstance(source, Series):
        return read_series(source, case)
    try:
        found = find_series(source)
    except ScreenerError as error:
        raise CaseError(case, str(error)) from error
    if len(found.series) != 1:
        reasons = "; ".join(sorted({one.reason for one in found.left_out}))
        if not found.series and not reasons and source.is_dir():
            raise CaseError(
                case,
                f"{source} is a folder that holds 0 DICOM series of CT: give the image file itself",
            )
        raise CaseError(
            case,
            f"{source} holds {len(found.series)} DICOM series instead of one"
            f"{f' (left out: {reasons})' if reasons else ''}: "
            "give each series a folder of its own",
        )
    return read_series(found.series[0], case)
