"""A series read as one image in HU, and the record of where its slices come from."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom.files import FileRef, Opener
from screener_nnu.dicom.pixels import PixelError, PixelReader
from screener_nnu.dicom.quiet import describe, quiet_pydicom
from screener_nnu.dicom.records import Series, SeriesInfo, Slice
from screener_nnu.dicom.stacking import Stack, stack_slices
from screener_nnu.errors import CaseError

if TYPE_CHECKING:
    import pydicom

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeriesSource:
    """Where a volume comes from, so that DICOM files made of it can refer to it.

    Attributes:
        info: of the series.
        slices: one a slice of the volume, in its order: `image[:, :, k]` is `slices[k]`.
    """

    info: SeriesInfo
    slices: tuple[Slice, ...]

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return self.info.uid

    @property
    def files(self) -> tuple[FileRef, ...]:
        """Files in slice order; that of a multi-frame series is named once a slice."""
        return tuple(one.file for one in self.slices)

    def headers(self) -> Iterator[pydicom.Dataset]:
        """Headers without pixels of the files in slice order, each file once."""
        import pydicom

        with Opener() as opener:
            for file in dict.fromkeys(self.files):
                with opener.open(file) as stream, quiet_pydicom():
                    header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
                yield header


@dataclass(frozen=True)
class DicomVolume:
    """Image in HU (int16 or float32) in the patient's coordinates (LPS), and its source."""

    image: sitk.Image
    source: SeriesSource


def check_series(series: Series, case: str) -> Stack:
    """Finds everything that the headers alone tell against a series.

    Raises:
        CaseError: slices are missing, uneven, tilted, or differ in their rescaling.
    """
    with _unexpected(case):
        stack = stack_slices(series.slices, case)
    stated = [one.slope is not None and one.intercept is not None for one in series.slices]
    if any(stated) and not all(stated):
        raise CaseError(
            case,
            f"{stated.count(False)} of {len(stated)} slices state no rescale slope and intercept: "
            "export the series again",
        )
    return stack


def read_series(series: Series, case: str) -> DicomVolume:
    """Reads a series slice by slice.

    Each slice is rescaled by its own slope and intercept. Copies of a slice are dropped.

    Raises:
        CaseError: slices are damaged, missing, uneven, tilted, or two images share a position.
    """
    stack = check_series(series, case)
    with _unexpected(case):
        return _read(series, stack, case)


@contextmanager
def _unexpected(case: str) -> Iterator[None]:
    """Makes any error that of the case: files can state anything, and the other cases go on."""
    try:
        yield
    except (CaseError, MemoryError):
        raise
    except Exception as error:
        logger.warning("%s: unexpected error", case, exc_info=True)
        raise CaseError(
            case, f"it cannot be made a volume ({describe(error)}): export it again"
        ) from error


def _read(series: Series, stack: Stack, case: str) -> DicomVolume:
    rescalings = {(one.slope, one.intercept) for one in series.slices}
    if len(rescalings) > 1:
        logger.warning("%s: slices have %d rescalings; each its own", case, len(rescalings))
    rows, columns = series.slices[0].shape
    array = np.empty((stack.slices, rows, columns), np.int16)
    copies = 0
    with PixelReader() as reader:
        for index, level in enumerate(stack.levels):
            with _named(case, index, stack.slices):
                hu = reader.read_hu(level[0])
                if any(not np.array_equal(hu, reader.read_hu(one)) for one in level[1:]):
                    raise CaseError(case, _several(level, index, stack))
            copies += len(level) - 1
            if hu.dtype != array.dtype and array.dtype == np.int16:
                array = array.astype(np.float32)
            array[index] = hu
    if copies:
        logger.warning("%s: %d slices are there twice or more; copies dropped", case, copies)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(stack.spacing)
    image.SetOrigin(stack.origin)
    image.SetDirection(stack.direction)
    return DicomVolume(image, SeriesSource(series.info, tuple(level[0] for level in stack.levels)))


@contextmanager
def _named(case: str, index: int, slices: int) -> Iterator[None]:
    """Says which slice cannot be read, by its place: a file's name may tell who was scanned."""
    try:
        yield
    except PixelError as error:
        raise CaseError(case, f"slice {index + 1} of {slices} {error}") from error


def _several(level: tuple[Slice, ...], index: int, stack: Stack) -> str:
    repeated = sum(len(one) > 1 for one in stack.levels)
    return (
        f"{len(level)} different images lie at the position of slice {index + 1} ({repeated} of "
        f"{stack.slices} positions are repeated), and neither acquisition number, temporal "
        "position nor time tells them apart as phases: export each phase as a series of its own"
    )
