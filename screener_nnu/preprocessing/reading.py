"""Raw CT images in one canonical orientation, with what is needed to map results back.

Array axes are (z, y, x); spacings of arrays have the same order, those of `Geometry` SimpleITK's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom.files import is_dicom, is_zip
from screener_nnu.dicom.records import Series
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import Shape, Spacing
from screener_nnu.preprocessing.nifti import is_nifti
from screener_nnu.preprocessing.units import check_intensities
from screener_nnu.preprocessing.volumes import (
    Geometry,
    check_axes,
    check_layout,
    check_name,
    printable,
    read_geometry,
    read_volume,
)

if TYPE_CHECKING:
    from screener_nnu.dicom.volume import DicomVolume, SeriesSource

# An image file, a folder or zip of one DICOM series, or a series that was found before.
Source = Path | Series
CANONICAL = "LPS"
# Longest edge (mm) of the smallest and the largest thing that a CT shows.
_EXTENT_MM = (10.0, 4000.0)


@dataclass(frozen=True)
class RawImage:
    """One scan in canonical orientation.

    Attributes:
        case: name of the scan.
        array: HU, float32, (z, y, x), axes pointing to head, back (posterior) and left.
        spacing: voxel size (mm), (z, y, x).
        geometry: that of the input file.
        source: the DICOM files that it was read from; None for other files.
    """

    case: str
    array: np.ndarray
    spacing: Spacing
    geometry: Geometry
    source: SeriesSource | None = None

    @property
    def shape(self) -> Shape:
        """Voxels per axis, (z, y, x)."""
        z, y, x = self.array.shape
        return z, y, x


def read_image(path: Source, case: str) -> RawImage:
    """Reads a file or a DICOM series, and turns its axes to LPS.

    Axes are only permuted and flipped: an oblique scan keeps its small rotation.

    Args:
        path: any 3D image file that SimpleITK reads, a folder or zip that holds one DICOM series of
            CT, a DICOM file of many frames, or a series.
        case: name used in messages.

    Raises:
        CaseError: the file is unreadable or is no CT of a person.
    """
    if isinstance(path, Path) and not (path.is_dir() or is_zip(path) or is_dicom(path)):
        return to_raw_image(read_volume(path, case), case)
    volume = _read_dicom(path, case)
    return to_raw_image(volume.image, case, volume.source)


def to_raw_image(image: sitk.Image, case: str, source: SeriesSource | None = None) -> RawImage:
    """Turns the axes of an image in HU to LPS.

    Raises:
        CaseError: the image is no 3D CT of a person.
    """
    check_layout(image.GetSize(), image.GetNumberOfComponentsPerPixel(), case)
    geometry = Geometry.of_image(image)
    check_axes(geometry, case)
    _check_extent(geometry, case)
    image = sitk.DICOMOrient(image, CANONICAL)
    stored = sitk.GetArrayViewFromImage(image)
    # Before the conversion, which makes infinite what is merely too large.
    check_intensities(stored, case)
    x, y, z = image.GetSpacing()
    return RawImage(case, stored.astype(np.float32), (z, y, x), geometry, source)


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
    if isinstance(path, Series):
        return _series_size(path)
    reader = sitk.ImageFileReader()
    try:
        if is_nifti(path):
            geometry = read_geometry(path, path.name)
            voxels = int(np.prod([float(n) for n in geometry.size]))
            return voxels, voxels * float(np.prod(geometry.spacing))
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        check_name(files[0], "")
        reader.SetFileName(str(files[0]))
        reader.ReadImageInformation()
    except (CaseError, OSError, RuntimeError, IndexError):
        return 0, 0.0
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


def find_cases(raw_dataset_folder: Path) -> dict[str, Path]:
    """Cases of an nnU-Net raw dataset, `imagesTr/<case>_0000<file_ending>`, by name.

    Raises:
        ScreenerError: no `dataset.json`, more than one channel, or no image.
    """
    description = raw_dataset_folder / "dataset.json"
    if not description.is_file():
        raise ScreenerError(
            f"{description} is missing: write one as nnU-Net asks for; "
            "documentation/plan_and_preprocess.md shows that of unlabelled scans"
        )
    values = _read_description(description)
    channels, ending = values["channel_names"], values["file_ending"]
    if len(channels) != 1:
        raise ScreenerError(
            f"{raw_dataset_folder.name} has {len(channels)} channels ({description}), but only "
            "CT with one channel can be used: make a dataset of the CT alone"
        )
    if "dataset" in values:
        listed = sorted(values["dataset"].items())
        return {case: raw_dataset_folder / entry["images"][0] for case, entry in listed}
    return _images(raw_dataset_folder / "imagesTr", ending)


def _read_description(path: Path) -> dict[str, Any]:
    """A `dataset.json` with all that is read of it.

    Raises:
        ScreenerError: it is damaged, or lacks something.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise ScreenerError(
                f"{path} begins with a byte order mark: save it as UTF-8 without one"
            )
        values = json.loads(text)
    except UnicodeDecodeError as error:
        raise ScreenerError(f"{path} is no text in UTF-8: save it as that") from error
    except ValueError as error:
        raise ScreenerError(f"{path} is no JSON ({error}): correct it") from error
    reason = _lack(values)
    if reason:
        raise ScreenerError(f"{path} is not what nnU-Net asks for ({reason}): correct it")
    return values


def _lack(values: Any) -> str:
    """What nnU-Net would miss in a `dataset.json`; empty where nothing is."""
    if not isinstance(values, dict):
        return "it holds no names with values"
    for name in ("channel_names", "file_ending"):
        if name not in values:
            return f"it has no {name}"
    if not isinstance(values["channel_names"], dict):
        return 'channel_names has to be like {"0": "CT"}'
    ending = values["file_ending"]
    if not isinstance(ending, str) or not ending.startswith("."):
        return f"file_ending is {ending!r}, but has to be like '.nii.gz'"
    listed = values.get("dataset", {})
    if not isinstance(listed, dict):
        return "dataset holds no cases by name"
    for case, entry in listed.items():
        if not isinstance(entry, dict) or not entry.get("images"):
            return f"dataset names no images of {case}"
        if "/" in case or "\\" in case:
            return f"dataset names a case {case}, which cannot be the name of a file"
    return ""


def _images(folder: Path, ending: str) -> dict[str, Path]:
    suffix = f"_0000{ending}"
    found = sorted(folder.glob(f"*{ending}")) if folder.is_dir() else []
    # Hidden ones are what a killed run left half written.
    files = [file for file in found if not file.name.startswith(".")]
    if not files:
        raise ScreenerError(
            f"no image *{suffix} in {folder}: put the scans there, or correct file_ending in "
            "dataset.json"
        )
    odd = [file.name for file in files if not file.name.endswith(suffix)]
    if odd:
        raise ScreenerError(
            f"{len(odd)} files in {folder} do not end in {suffix}, for instance "
            f"{printable(odd[0])}: rename "
            "them, or take further channels out"
        )
    return {printable(file.name[: -len(suffix)]): file for file in files}


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
