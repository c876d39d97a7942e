"""The CT series that a derived object refers to, its slices ordered by where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

from screener_nnu.dicom_output.dependency import load_pydicom
from screener_nnu.errors import ScreenerError

if TYPE_CHECKING:
    from pydicom import Dataset

SourceFile = Union[Path, str, "Dataset"]

# What a derived object repeats or refers to, and without which it could not be placed.
_NEEDED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
)
# Must be the same in all slices, so that they are one stack.
_SHARED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns")
# DICOM wants them present in every object, empty where they are unknown. Older exports lack some.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
_PIXELS = {(0x7FE0, 0x0010), (0x7FE0, 0x0008), (0x7FE0, 0x0009)}
_SEXES = {"M", "F", "O"}
# Of direction cosines, and of the pixel size as a part of it.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class SourceSeries:
    """Headers of a series, without pixels, along the normal of its slices.

    Attributes:
        headers: one per slice.
        positions: centre of the first pixel of each slice (mm, LPS) `(slices, 3)`.
        across: direction in which the column number rises `(3,)`.
        down: direction in which the row number rises `(3,)`.
        pixel_size: distance of columns and distance of rows (mm).
    """

    headers: list[Dataset]
    positions: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    pixel_size: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        return len(self.headers), int(self.headers[0].Rows), int(self.headers[0].Columns)

    def corners(self) -> NDArray[np.float64]:
        """Centres of the first pixel, the last of the first row, the last of the first column.

        Returns:
            Points (mm, LPS) `(slices, 3 corners, 3)`.
        """
        _, rows, columns = self.shape
        along_row = (columns - 1) * self.pixel_size[0] * self.across
        along_column = (rows - 1) * self.pixel_size[1] * self.down
        steps = np.stack([np.zeros(3), along_row, along_column])
        return self.positions[:, None] + steps


def read_source(source_files: Sequence[SourceFile]) -> SourceSeries:
    """Reads the headers of a series of single-frame images, in whatever order they come.

    Args:
        source_files: paths, or datasets of pydicom.

    Raises:
        ScreenerError: a file is no DICOM image, or they are not one stack of slices.
    """
    count = len(source_files)
    named = [(_name(one, k, count), _header(one)) for k, one in enumerate(source_files, 1)]
    for name, header in named:
        _check_header(name, header)
    if count < 2:
        raise ScreenerError(f"{count} DICOM files are no series: give all slices of the CT")
    first = named[0][1]
    for name, header in named[1:]:
        _check_same_stack(name, header, named[0][0], first)
    orientation = np.array(first.ImageOrientationPatient, dtype=np.float64)
    across, down = orientation[:3], orientation[3:]
    normal = np.cross(across, down)
    headers = _sorted([header for _, header in named], normal)
    positions = np.array([header.ImagePositionPatient for header in headers], dtype=np.float64)
    _set_thickness(headers, float(np.median(np.diff(positions @ normal))))
    # DICOM's pixel spacing names the distance of rows first.
    row_distance, column_distance = (float(size) for size in first.PixelSpacing)
    return SourceSeries(headers, positions, across, down, (column_distance, row_distance))


def _name(source: SourceFile, number: int, count: int) -> str:
    """What errors call a source: a path that was given, else its place and never its UID."""
    if isinstance(source, (str, Path)):
        return str(source)
    return f"slice {number} of {count}" if count > 1 else "its file"


def _header(source: SourceFile) -> Dataset:
    """A copy without pixels and with every attribute that must not be missing."""
    pydicom = load_pydicom()
    dataset: Any = source
    if isinstance(source, (str, Path)):
        try:
            dataset = pydicom.dcmread(source, stop_before_pixels=True)
        except (OSError, pydicom.errors.InvalidDicomError) as error:
            raise ScreenerError(
                f"{source} cannot be read as DICOM ({error}): give the files of the series alone"
            ) from error
    header = pydicom.Dataset()
    header.update({element.tag: element for element in dataset if element.tag not in _PIXELS})
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    if header.PatientSex not in _SEXES:
        header.PatientSex = ""
    return header


def _check_header(name: str, header: Dataset) -> None:
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        raise ScreenerError(
            f"{name} has {header.NumberOfFrames} frames (Enhanced CT), and DICOM objects are made "
            "of series with a file a slice: use the NIfTI files"
        )
    missing = [word for word in _NEEDED if header.get(word) in (None, "")]
    if missing:
        raise ScreenerError(
            f"{name} has no {', '.join(missing)}, so nothing can refer to it: "
            "give an original CT series, or use the NIfTI files"
        )


def _check_same_stack(name: str, header: Dataset, first_name: str, first: Dataset) -> None:
    for keyword in _SHARED:
        here, there = header[keyword].value, first[keyword].value
        if here != there:
            # UIDs lead to a person in a picture archive.
            values = "" if keyword.endswith("UID") else f" ({here} and {there})"
            raise ScreenerError(
                f"{keyword} of {name} and of {first_name} differ{values}: give the slices of one "
                "series alone"
            )
    for keyword in ("ImageOrientationPatient", "PixelSpacing"):
        here, there = (np.array(h[keyword].value, dtype=float) for h in (header, first))
        if not np.allclose(here, there, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise ScreenerError(
                f"{keyword} of {name} is {here.tolist()}, that of {first_name} is "
                f"{there.tolist()}: the slices are no stack; leave localisers out"
            )
        # What is left are last digits, and one object has one orientation.
        header[keyword] = first[keyword]


def _set_thickness(headers: list[Dataset], distance: float) -> None:
    """Fills in what some exports lack, and takes out what positions tell more reliably."""
    for header in headers:
        if not header.get("SliceThickness"):
            header.SliceThickness = f"{distance:.8g}"
        header.pop("SpacingBetweenSlices", None)


def _sorted(headers: list[Dataset], normal: NDArray[np.float64]) -> list[Dataset]:
    heights = np.array([h.ImagePositionPatient for h in headers], dtype=np.float64) @ normal
    order = np.argsort(heights)
    gaps = np.diff(heights[order])
    if gaps.min() < _TOLERANCE:
        place = headers[order[int(np.argmin(gaps))]].ImagePositionPatient
        raise ScreenerError(
            f"two slices lie at {[float(p) for p in place]} mm: the series holds more than one "
            "scan; give the slices of one of them"
        )
    return [headers[index] for index in order]
