"""NIfTI files that take little time to write, and whose writing fails where the disk is full.

ITK's NIfTI library takes no notice of a write that failed, and leaves a file that is cut short.
What is written here raises.

A map is float32 at the scan's own resolution; to compress it with zlib takes longer than to compute
it. ISA-L does it in a seventh of zlib's time, to the same size.
"""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import SimpleITK as sitk  # noqa: N813
from isal import igzip

#: Of the folders that headers are taken from.
HEADER_PREFIX = ".screener_header_"
# Higher ones take longer for one hundredth.
_LEVEL = 1
# Bytes that are held packed at once.
_PIECE = 1 << 23
_HEADER = 352


def write_compressed(image: sitk.Image, path: Path) -> None:
    """Writes a 3D image as `.nii.gz`; unpacked, byte for byte what SimpleITK writes.

    Args:
        image: one number a voxel.
        path: written piece by piece: give a temporary name.

    Raises:
        OSError: the file cannot be written.
    """
    content = sitk.GetArrayViewFromImage(image).reshape(-1).view("uint8").data
    head = _header(image, path.parent)
    # Without the time, so that equal maps are equal files.
    with path.open("wb") as raw, igzip.IGzipFile("", "wb", _LEVEL, raw, mtime=0) as stream:
        stream.write(head)
        for first in range(0, len(content), _PIECE):
            stream.write(content[first : first + _PIECE])


def _header(image: sitk.Image, folder: Path) -> bytes:
    """The header that SimpleITK itself writes, taken from a file of one voxel."""
    probe = sitk.Image([1, 1, 1], image.GetPixelID())
    probe.SetSpacing(image.GetSpacing())
    probe.SetOrigin(image.GetOrigin())
    probe.SetDirection(image.GetDirection())
    with TemporaryDirectory(dir=folder, prefix=HEADER_PREFIX) as hidden:
        try:
            sitk.WriteImage(probe, str(Path(hidden) / "header.nii"))
        except RuntimeError as error:
            raise OSError(str(error)) from error
        head = bytearray((Path(hidden) / "header.nii").read_bytes()[:_HEADER])
    if len(head) < _HEADER:
        raise OSError(f"nothing can be written to {folder}; is the disk full?")
    struct.pack_into("=3h", head, 42, *image.GetSize())
    return bytes(head)
