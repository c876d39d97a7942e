"""NIfTI files as they are: what SimpleITK reads past without a word.

Its NIfTI library fills in 0 (in CT: water) for what a file that was cut short lacks, and for NaN;
it takes damaged gzip streams as they come, makes sizes of 0 into 1, and chooses by itself where
two placements of one file contradict each other. So the voxels are read here, once, with the
checksum of the gzip stream, and the header is looked at before.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from isal import igzip, igzip_lib
from numpy.typing import NDArray

if TYPE_CHECKING:
    import nibabel

_PIECE = 1 << 24
_GZIP = b"\x1f\x8b"
# The types of isal call its error an instance.
_DAMAGED: tuple[type[Exception], ...] = (igzip_lib.error, gzip.BadGzipFile)  # type: ignore[assignment]
_DAMAGED_OR_CUT: tuple[type[Exception], ...] = (EOFError, *_DAMAGED)
_HEADER_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}
# Axes that are further from a right angle than this (degrees) are sheared.
SHEAR_DEGREES = 0.1
# Two placements of a file agree when no corner of the volume is further off (mm).
_AGREEMENT_MM = 0.5
# Codes of a sform that says where the scanner saw the voxels; others are aligned to something.
_SCANNER = 1
# Codes of units of length: metres and micrometres; all else counts as mm.
_MILLIMETRES = {1: 1e3, 3: 1e-3}
#: From right, anterior, superior (nibabel) to left, posterior, superior (DICOM, SimpleITK).
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class NiftiError(Exception):
    """A file that cannot be used; the message is a short reason."""


def is_nifti(path: Path) -> bool:
    """Whether a file has the name of one."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


@dataclass(frozen=True)
class NiftiFile:
    """The header of a NIfTI-1 or NIfTI-2 file that can be used.

    Attributes:
        path: of the file.
        packed: whether it is a gzip stream.
        header: as nibabel reads it.
    """

    path: Path
    packed: bool
    header: nibabel.Nifti1Header

    @classmethod
    def open(cls, path: Path) -> NiftiFile:
        """Reads and checks the header.

        Raises:
            NiftiError: there is none, its voxels have no size, or their axes are sheared.
        """
        packed = path.name.lower().endswith(".gz")
        with path.open("rb") as stream:
            is_gzip = stream.read(2) == _GZIP
        header = _read_header(path, is_gzip)
        if packed and not is_gzip:
            raise NiftiError("its name ends in .gz, but it is not compressed with gzip: rename it")
        if is_gzip and not packed:
            raise NiftiError(
                "it is compressed with gzip, but its name does not end in .gz: rename it"
            )
        file = cls(path, packed, header)
        file._check_placement()
        return file

    @property
    def version(self) -> int:
        """1 or 2; SimpleITK reads the first alone."""
        return 2 if int(self.header["sizeof_hdr"]) == 540 else 1

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels (x, y, z), without further axes of one entry."""
        size = tuple(int(n) for n in self.header.get_data_shape())
        while len(size) > 3 and size[-1] == 1:
            size = size[:-1]
        return size

    @property
    def components(self) -> int:
        """Numbers a voxel: 1, or more for colours and complex numbers."""
        kind = self.header.get_data_dtype()
        return 1 if kind.kind in "iuf" and kind.itemsize <= 8 else 2

    @property
    def _offset(self) -> int:
        """Bytes before the voxels."""
        try:
            offset = int(self.header.get_data_offset())
        except (OverflowError, ValueError):
            offset = -1
        if offset < 0:
            raise NiftiError("its voxels begin nowhere: correct vox_offset in its header")
        return offset

    @property
    def affine(self) -> NDArray[np.float64]:
        """From voxels (x, y, z) to LPS (mm): the sform where it is set, as nibabel does."""
        placements = self._placements()
        placed = placements.get("sform", placements.get("qform"))
        if placed is None:
            sizes = [float(size) for size in self.header["pixdim"][1:4]]
            return np.diag([*(size * self._unit_mm for size in sizes), 1.0])
        return RAS_TO_LPS @ placed

    @property
    def _unit_mm(self) -> float:
        """The unit of sizes and places, which SimpleITK regards as well."""
        return _MILLIMETRES.get(int(self.header["xyzt_units"]) & 7, 1.0)

    def _check_placement(self) -> None:
        sizes = [float(size) for size in self.header["pixdim"][1:4]]
        if not all(np.isfinite(size) and size > 0 for size in sizes):
            shown = ", ".join(f"{size:.4g}" for size in sizes)
            raise NiftiError(f"its voxel sizes are {shown} mm: correct pixdim in its header")
        placements = self._placements()
        scanner = int(self.header["sform_code"]) == _SCANNER or len(placements) < 2
        if "sform" in placements and scanner and shear_degrees(placements["sform"]) > SHEAR_DEGREES:
            raise NiftiError(
                f"its axes are sheared by {shear_degrees(placements['sform']):.1f} degrees, as "
                "those of a tilted gantry: resample it to a grid with right angles"
            )

    def _placements(self) -> dict[str, NDArray[np.float64]]:
        """The affine matrices (4, 4) of the header that are set, in RAS (mm)."""
        found = {}
        for name, read in (("qform", self.header.get_qform), ("sform", self.header.get_sform)):
            if int(self.header[f"{name}_code"]) <= 0:
                continue
            try:
                found[name] = np.asarray(read(), dtype=float)
            except Exception as error:  # a quaternion that is none
                raise NiftiError(f"its {name} is damaged ({error})") from error
            found[name][:3] *= self._unit_mm
            if not np.isfinite(found[name]).all() or abs(np.linalg.det(found[name])) < 1e-9:
                raise NiftiError(f"its {name} is no placement of voxels: correct its header")
        return found

    def contradiction(self, affine: NDArray[np.float64]) -> str:
        """Says where the header places voxels otherwise than a reader did, or nothing.

        Args:
            affine: (4, 4) of the reader, from voxels (x, y, z) to LPS (mm).
        """
        placements = self._placements()
        if not placements:
            return "its header does not say how it lies: taken as left, posterior, superior"
        corners = np.array([[x, y, z, 1.0] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [
            *(np.array(self.header.get_data_shape()[:3]) - 1),
            1,
        ]
        chosen = corners @ affine.T
        apart = {
            name: float(np.linalg.norm(chosen - corners @ (RAS_TO_LPS @ placed).T, axis=1).max())
            for name, placed in placements.items()
        }
        other = [
            f"its {name} by up to {mm:.1f} mm" for name, mm in apart.items() if mm > _AGREEMENT_MM
        ]
        if not other:
            return ""
        sizes = " x ".join(f"{size:.4g}" for size in np.linalg.norm(affine[:3, :3], axis=0))
        return (
            f"its header contradicts itself: read with voxels of {sizes} mm, which differs from "
            f"{' and '.join(other)}; correct qform, sform and pixdim if that is wrong"
        )

    def voxels(self) -> NDArray:
        """Values (z, y, x and more axes before them), rescaled as the header says.

        Raises:
            NiftiError: the file is cut short or damaged, or its voxels are no finite real numbers.
        """
        kind = self.header.get_data_dtype()
        if self.components != 1:
            raise NiftiError(f"its voxels are {kind}, and no single real numbers")
        shape = tuple(int(n) for n in self.header.get_data_shape()[::-1])
        count = int(np.prod([float(n) for n in shape]))
        raw = self._read(self._offset, count * kind.itemsize)
        values = np.frombuffer(raw, kind).reshape(shape)
        values = values.astype(kind.newbyteorder("="), copy=False)
        try:
            slope, intercept = self.header.get_slope_inter()
        except Exception as error:  # a slope without an intercept
            raise NiftiError(
                "its header rescales values by no number: correct scl_slope and scl_inter"
            ) from error
        if slope is not None and (slope, intercept) != (1.0, 0.0):
            values = values * np.float64(slope) + np.float64(intercept)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise NiftiError("it holds NaN or infinite values")
        return values

    def _read(self, start: int, length: int) -> bytearray:
        """Bytes of the voxels; the rest of a gzip stream is read as well, for its checksum."""
        # Not allocated before it is known to be there: the header of a damaged file says anything.
        content = bytearray()
        try:
            with _open(self.path, self.packed) as stream:
                stream.seek(start)
                while len(content) < length:
                    piece = stream.read(min(_PIECE, length - len(content)))
                    if not piece:
                        raise NiftiError("the file is cut short")
                    content += piece
                while self.packed and stream.read(_PIECE):
                    pass
        except EOFError as error:
            raise NiftiError("the file is cut short") from error
        except _DAMAGED as error:
            raise NiftiError(f"the file is damaged ({error})") from error
        return content


def shear_degrees(affine: NDArray[np.float64]) -> float:
    """How far the axes of a matrix (3, 3) or (4, 4) are from right angles, at most (degrees)."""
    axes = np.asarray(affine, dtype=float)[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    cosines = np.abs(axes.T @ axes - np.eye(3))
    return float(np.degrees(np.arcsin(np.clip(cosines, 0, 1).max())))


def _open(path: Path, packed: bool) -> gzip.GzipFile | IO[bytes]:
    return igzip.open(path, "rb") if packed else path.open("rb")


def _read_header(path: Path, packed: bool) -> nibabel.Nifti1Header:
    import nibabel

    try:
        with _open(path, packed) as stream:
            block = stream.read(540)
    except _DAMAGED_OR_CUT as error:
        raise NiftiError("the file is cut short or damaged") from error
    if not block:
        raise NiftiError("the file is empty")
    sizes = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
    kind = next((_HEADER_BYTES[size] for size in sizes if size in _HEADER_BYTES), None)
    if kind is None:
        raise NiftiError("it is no NIfTI file, whatever its name says")
    header = getattr(nibabel, kind)
    length = header.sizeof_hdr
    if len(block) < length:
        raise NiftiError("the file is cut short")
    try:
        found = header(block[:length], check=False)
        found.get_data_dtype()
        if not float(found["vox_offset"]) >= length:
            raise ValueError(f"vox_offset {float(found['vox_offset']):g} lies within it")
        if not 1 <= int(found["dim"][0]) <= 7 or min(found.get_data_shape()) < 1:
            raise ValueError(f"dim {found['dim'].tolist()}")
    except Exception as error:  # nibabel raises many types for a damaged header
        raise NiftiError(f"its header is damaged ({error})") from error
    return found
