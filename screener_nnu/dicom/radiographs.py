"""Single projections in DICOM (CR, DX, MG) as pictures of 8 bits, by their own window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.dicom.files import looks_like_dicom
from screener_nnu.dicom.pixels import PixelError, cause, decode_frames
from screener_nnu.dicom.quiet import quiet_pydicom
from screener_nnu.errors import CaseError
from screener_nnu.preprocessing.pictures import Picture, refuse_constant
from screener_nnu.preprocessing.volumes import check_name

#: Modalities whose images are pictures by themselves.
RADIOGRAPHS = ("CR", "DX", "MG")
_WHITE = 255
_FAR = 1e9


def image_modality(path: Path) -> str | None:
    """Modality of a DICOM image by its header, empty if not stated; None of all other files.

    A directory (DICOMDIR) or a report is no image.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, quiet_pydicom():
            header = _header(stream) if looks_like_dicom(stream) else {}
            return str(header.get("Modality", "")) if header.get("Rows") else None
    # A damaged header raises nearly anything; such a file is for the reader of scans to count.
    except Exception:
        return None


def read_radiograph(path: Path, case: str) -> Picture:
    """Reads a projection as it is to be seen: windowed as its header says, white where bright.

    Without a window, its lowest value becomes black and its highest white.

    Raises:
        CaseError: it is damaged, in colour, has several frames, or shows nothing.
    """
    check_name(path, case)
    try:
        seen, note = _windowed(path)
    except MemoryError:
        raise
    except PixelError as error:
        raise CaseError(case, f"{path} {error}") from error
    # A damaged file raises nearly anything, from EOFError to struct.error.
    except Exception as error:
        raise CaseError(case, f"{path} cannot be read ({cause(error)}): copy it again") from error
    pixels = np.rint(_WHITE * seen).astype(np.uint8)[np.newaxis]
    refuse_constant(pixels, path, case)
    return Picture(pixels, (note,))


def _header(stream: Any) -> Any:
    import pydicom

    tags: list[Any] = ["Modality", "Rows"]
    return pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=tags)


def _windowed(path: Path) -> tuple[NDArray[np.float64], str]:
    """Values from 0 (black) to 1, (rows, columns), and a sentence on the window."""
    import pydicom
    from pydicom.pixels import apply_modality_lut

    with path.open("rb") as stream, quiet_pydicom():
        header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
        colour = header.get("PhotometricInterpretation", "MONOCHROME2")
        if not colour.startswith("MONOCHROME"):
            raise PixelError(f"is a picture in {colour}: export it in grey values")
        if int(header.get("NumberOfFrames", 1) or 1) > 1:
            raise PixelError(f"has {header.NumberOfFrames} frames: give single projections")
        stream.seek(0)
        values, rescaled = decode_frames(stream, single=True)
        if not rescaled:
            values = apply_modality_lut(values, header)
        seen, note = _by_window(values, header)
        return 1 - seen if colour == "MONOCHROME1" else seen, note


def _by_window(values: NDArray[Any], header: Any) -> tuple[NDArray[np.float64], str]:
    from pydicom.pixels import apply_voi_lut

    table = (header.get("VOILUTSequence") or [None])[0]
    if table is not None and table.get("LUTDescriptor"):
        entries, first, bits = table.LUTDescriptor
        # pydicom wraps values round that lie far beyond the table.
        inside = np.clip(values, first, first + (entries or 2**16) - 1)
        seen, black, white = apply_voi_lut(inside, header).astype(float), 0.0, 2.0**bits - 1
    elif header.get("WindowCenter") is None or header.get("WindowWidth") is None:
        seen, black, white = values.astype(float), float(values.min()), float(values.max())
        if black == white:
            return np.zeros_like(seen), ""
        return (seen - black) / (white - black), "it has no window: its values were stretched"
    else:
        # What lies beyond any window shows what black and white are in the values it gives.
        ends = np.array([-_FAR, _FAR])
        black, white = apply_voi_lut(ends, header).astype(float)
        seen = apply_voi_lut(values, header).astype(float)
    return np.clip((seen - black) / (white - black), 0, 1), "its own window gave its 8 bits"
