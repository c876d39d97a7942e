"""Stored values of slices, decoded and rescaled to HU."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from screener_nnu.dicom.files import FileRef, Opener
from screener_nnu.dicom.quiet import quiet_pydicom
from screener_nnu.dicom.records import Slice


class PixelError(ValueError):
    """Pixels of one slice cannot be had; says why and what to do."""


class PixelReader:
    """Reads slices one after the other; a context manager.

    Frames of a multi-frame file are decoded together and kept until the next file is read.
    """

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._opener = Opener()
        self._file: FileRef | None = None
        self._frames: np.ndarray | None = None

    def __enter__(self) -> PixelReader:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes what is open."""
        self._opener.__exit__(kind, error, trace)
        self._frames = self._file = None

    def read_hu(self, one: Slice) -> np.ndarray:
        """HU of a slice, (rows, columns), int16 when all are whole and fit, else float32.

        Raises:
            PixelError: damaged, of another size than stated, or no decoder for its compression.
        """
        try:
            values, rescaled = self._values(one)
        # Short memory is no damage: another run may succeed.
        except (PixelError, MemoryError):
            raise
        # A damaged file raises nearly anything, from EOFError to struct.error.
        except Exception as error:
            raise PixelError(f"cannot be read ({cause(error)}): copy it again") from error
        if values.shape != one.shape:
            raise PixelError(f"has {values.shape} pixels instead of {one.shape}: copy it again")
        if rescaled:
            return _compact(values.astype(np.float64))
        slope = 1.0 if one.slope is None else one.slope
        intercept = 0.0 if one.intercept is None else one.intercept
        if slope == 1 and intercept == round(intercept) and values.dtype.itemsize <= 2:
            return _compact(values.astype(np.int32) + int(intercept))
        return _compact(values * slope + intercept)

    def _values(self, one: Slice) -> tuple[np.ndarray, bool]:
        """Values of a slice, and whether they are in HU already."""
        if one.frame is None:
            with self._opener.open(one.file) as stream:
                return decode_frames(stream, single=True)
        if self._frames is None or self._file != one.file:
            with self._opener.open(one.file) as stream:
                values, _ = decode_frames(stream, single=False)
            # A file of one frame is decoded without the axis of frames.
            self._frames, self._file = values.reshape(-1, *values.shape[-2:]), one.file
        return self._frames[one.frame], False


def _compact(hu: np.ndarray) -> np.ndarray:
    limits = np.iinfo(np.int16)
    if hu.min() >= limits.min and hu.max() <= limits.max:
        whole = hu if hu.dtype.kind == "i" else np.rint(hu)
        if whole is hu or np.array_equal(whole, hu):
            return whole.astype(np.int16)
    return hu.astype(np.float32)


def decode_frames(stream: BinaryIO, single: bool) -> tuple[np.ndarray, bool]:
    """Stored values of all frames of a file, and whether they are rescaled already.

    Args:
        stream: the whole file.
        single: whether it has one frame only, which GDCM may then decode, and rescale.

    Raises:
        PixelError: there is no decoder for its compression.
        Exception: nearly anything, if it is damaged.
    """
    import pydicom
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import ImplicitVRLittleEndian

    with quiet_pydicom():
        data = pydicom.dcmread(stream, force=True)
        # Files without a preamble do not name their transfer syntax; this one is the default.
        syntax = data.file_meta.setdefault("TransferSyntaxUID", ImplicitVRLittleEndian).value
        if not syntax.is_compressed or _is_available(get_decoder, syntax):
            return pixel_array(data, raw=True), False
    if single:
        stream.seek(0)
        values = _decode_with_gdcm(stream)
        if values is not None:
            return values, True
    raise PixelError(
        f"is compressed as {syntax.name}, for which no decoder is installed: "
        "pip install 'pylibjpeg[all]' (or python-gdcm)"
    )


def _is_available(get_decoder: Callable[[Any], Any], syntax: Any) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _decode_with_gdcm(stream: BinaryIO) -> np.ndarray | None:
    """HU of a file of one slice by the GDCM that SimpleITK brings along; None if it cannot."""
    import SimpleITK as sitk  # noqa: N813

    with tempfile.TemporaryDirectory(prefix="screener_") as folder:
        path = Path(folder) / "slice.dcm"
        path.write_bytes(stream.read())
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        try:
            image = reader.Execute()
        except RuntimeError:
            return None
    values = sitk.GetArrayFromImage(image)
    return values[0] if values.ndim == 3 and len(values) == 1 else values


def cause(error: Exception) -> str:
    """What went wrong with a file, without its name, which may be that of a person."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, (zipfile.BadZipFile, KeyError)):
        return "damaged in its zip" if isinstance(error, zipfile.BadZipFile) else "a part is absent"
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    short = re.search(r"less than expected \((\d+) vs (\d+) bytes\)", first)
    if short is not None:
        return f"its pixels are cut short, {short[1]} of {short[2]} bytes"
    if first.startswith("Unable to decode"):
        return "its compressed pixels are damaged"
    if first.startswith("The dataset has no 'Pixel Data'"):
        return "it has no pixel data"
    return first
