"""The one way in which a volume is read from a file: scan, map, mask or label, whatever its format.

What is cut short, damaged or sheared, holds NaN, or lies elsewhere than it should is an error of
its case. A picture (PNG or TIFF) is a volume of one slice. Array axes are (z, y, x); those of
`Geometry` have SimpleITK's order.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import tifffile
from numpy.typing import NDArray

from screener_nnu.errors import CaseError, printable
from screener_nnu.preprocessing.nifti import (
    SHEAR_DEGREES,
    NiftiError,
    NiftiFile,
    is_nifti,
    shear_degrees,
)
from screener_nnu.preprocessing.text_headers import why_unusable

logger = logging.getLogger(__name__)

# NIfTI keeps geometry in single precision: origins of a metre are then off by up to 0.1 um.
_SPACING_TOLERANCE_MM = 1e-3
_ORIGIN_TOLERANCE_MM = 1e-2
_DIRECTION_TOLERANCE = 1e-3
# The voxel size (z) that nnU-Net gives a picture, beside pixels of 1.
PICTURE_DEPTH = 999.0
_TIFF = (".tif", ".tiff")
WAY_OUT = "replace the file or leave the case out"


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an image lie, in SimpleITK's order (x, y, z).

    Attributes:
        size: voxels per axis.
        spacing: voxel size (mm).
        origin: centre of the first voxel (mm, LPS).
        direction: 3 x 3 direction cosines, row by row.
        orientation: DICOM orientation code of the axes, for instance `RAI`.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    orientation: str

    @classmethod
    def of_image(cls, image: sitk.Image | sitk.ImageFileReader) -> Geometry:
        """The geometry of a 3D image, or of one whose header was read."""
        code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
        return cls(
            tuple(image.GetSize()),
            tuple(image.GetSpacing()),
            tuple(image.GetOrigin()),
            tuple(image.GetDirection()),
            code,
        )

    @classmethod
    def of_affine(cls, size: tuple[int, ...], affine: NDArray[np.float64]) -> Geometry:
        """The geometry of voxels that an affine matrix places.

        Args:
            size: voxels (x, y, z).
            affine: (4, 4) from voxels (x, y, z) to LPS (mm), with axes at right angles.
        """
        axes = np.asarray(affine, dtype=float)[:3, :3]
        spacing = np.linalg.norm(axes, axis=0)
        # The nearest rotation or reflection: cosines in single precision are not quite orthogonal.
        left, _, right = np.linalg.svd(axes / spacing)
        direction = tuple((left @ right).ravel().tolist())
        code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction)
        origin = tuple(np.asarray(affine, dtype=float)[:3, 3].tolist())
        return cls(tuple(size), tuple(spacing.tolist()), origin, direction, code)

    @classmethod
    def of_picture(cls, width: int, height: int) -> Geometry:
        """The geometry of a picture: one slice of pixels of 1, and 999 from slice to slice."""
        direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        spacing = (1.0, 1.0, PICTURE_DEPTH)
        return cls((width, height, 1), spacing, (0.0, 0.0, 0.0), direction, "LPS")

    @property
    def affine(self) -> NDArray[np.float64]:
        """From voxels (x, y, z) to LPS (mm), (4, 4)."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.direction, (3, 3)) * np.array(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    def difference(self, other: Geometry) -> str:
        """What differs between two geometries, as the end of a sentence; empty where nothing does.

        Example:
            >>> one = Geometry((2, 2, 2), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), "LPS")
            >>> one.difference(one)
            ''
        """
        if self.size != other.size:
            return f"differ in size: {self.size} and {other.size} voxels (x, y, z)"
        for name, tolerance in (
            ("spacing", _SPACING_TOLERANCE_MM),
            ("origin", _ORIGIN_TOLERANCE_MM),
            ("direction", _DIRECTION_TOLERANCE),
        ):
            here, there = getattr(self, name), getattr(other, name)
            if not np.allclose(here, there, rtol=0.0, atol=tolerance):
                return f"differ in {name}: {_rounded(here)} and {_rounded(there)}"
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Geometry:
        """Reads what `to_dict` wrote."""
        lists = {k: tuple(v) for k, v in values.items() if k != "orientation"}
        return cls(**lists, orientation=values["orientation"])


def read_volume(path: Path, case: str) -> sitk.Image:
    """Reads a 3D image with one finite number a voxel; a grey picture has size (W, H, 1).

    Args:
        path: any file that SimpleITK reads.
        case: name used in messages.

    Raises:
        CaseError: it is cut short, damaged, sheared, of another layout, or holds NaN.
    """
    nifti, geometry = _opened(path, case)
    try:
        if nifti is not None or is_flat(geometry):
            values = _pixels(path) if nifti is None else nifti.voxels()
            image = sitk.GetImageFromArray(values.reshape(geometry.size[::-1]))
            image.SetSpacing(geometry.spacing)
            image.SetOrigin(geometry.origin)
            image.SetDirection(geometry.direction)
        else:
            image = sitk.ReadImage(str(path))
    except NiftiError as error:
        raise CaseError(case, f"{shown_path(path)} cannot be read ({error}): {WAY_OUT}") from error
    except (RuntimeError, ValueError) as error:
        raise _unreadable(case, path, error) from error
    array = sitk.GetArrayViewFromImage(image)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CaseError(
            case, f"{shown_path(path)} cannot be read (it holds NaN or infinite values): {WAY_OUT}"
        )
    return image


def is_flat(geometry: Geometry) -> bool:
    """Whether a geometry is that of a picture."""
    return geometry == Geometry.of_picture(*geometry.size[:2])


def _pixels(path: Path) -> NDArray:
    """Values (H, W) of a picture."""
    # SimpleITK takes damaged streams of packed TIFF files as they come.
    if path.suffix.lower() in _TIFF:
        return tifffile.imread(path)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def read_geometry(path: Path, case: str) -> Geometry:
    """Where the voxels of a file lie, from its header.

    Raises:
        CaseError: as for `read_volume`, as far as a header tells.
    """
    return _opened(path, case)[1]


def read_array(path: Path, case: str, like: Geometry | None = None) -> NDArray:
    """Values (z, y, x) of a file that has to lie where another one does.

    Raises:
        CaseError: it lies elsewhere, or as for `read_volume`.
    """
    if like is not None and (difference := read_geometry(path, case).difference(like)):
        raise CaseError(case, f"{shown_path(path)} and the image it belongs to {difference}")
    return sitk.GetArrayFromImage(read_volume(path, case))


def read_labels(path: Path, case: str, like: Geometry | None = None) -> NDArray:
    """Whole numbers (z, y, x) of a mask or label, in the type of the file.

    Raises:
        CaseError: a value is no whole number, or as for `read_array`.
    """
    values = read_array(path, case, like)
    if values.dtype.kind == "f":
        odd = values[values != np.rint(values)]
        if odd.size:
            raise CaseError(
                case,
                f"{shown_path(path)} holds values such as {odd[0]:g}, but a mask holds whole "
                "numbers: give 0 and 1, or threshold it",
            )
    return values


def check_name(path: Path, case: str) -> None:
    """Refuses a path that SimpleITK cannot take: it ends the whole process, or waits for ever.

    Raises:
        CaseError: its name is not valid UTF-8, or it is a pipe, a socket or a device.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise CaseError(
            case, f"the name {printable(os.fspath(path))} is not valid UTF-8: rename it"
        ) from error
    if os.path.exists(path) and not path.is_file() and not path.is_dir():
        raise CaseError(
            case, f"{shown_path(path)} is a pipe, a socket or a device: give a file, or remove it"
        )


def _opened(path: Path, case: str) -> tuple[NiftiFile | None, Geometry]:
    """Header of a NIfTI file, and the geometry of any, checked."""
    check_name(path, case)
    nifti = None
    try:
        nifti = NiftiFile.open(path) if is_nifti(path) else None
        if nifti is not None and nifti.version == 2:
            size, components = nifti.size, nifti.components
            check_layout(size, components, case)
            geometry = Geometry.of_affine(size, nifti.affine)
        else:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            if reader.GetDimension() == 2 and path.suffix.lower() in (".png", *_TIFF):
                return None, _picture_geometry(reader, case)
            check_layout(reader.GetSize(), reader.GetNumberOfComponents(), case)
            geometry = Geometry.of_image(reader)
            if reason := why_unusable(path, geometry.size):
                raise CaseError(case, f"{shown_path(path)} cannot be read ({reason}): {WAY_OUT}")
    except NiftiError as error:
        raise CaseError(case, f"{shown_path(path)} cannot be read ({error}): {WAY_OUT}") from error
    except (RuntimeError, OSError) as error:
        raise _unreadable(case, path, error, nifti) from error
    check_axes(geometry, case, path)
    if nifti is not None and (note := nifti.contradiction(geometry.affine)):
        _note_once(case, f"{shown_path(path)}: {note}")
    return nifti, geometry


def _picture_geometry(reader: sitk.ImageFileReader, case: str) -> Geometry:
    if reader.GetNumberOfComponents() != 1:
        raise CaseError(
            case,
            f"the picture has {reader.GetNumberOfComponents()} channels, where one is needed: "
            "save it as grey values",
        )
    return Geometry.of_picture(*reader.GetSize())


@lru_cache(maxsize=65536)
def _note_once(case: str, note: str) -> None:
    logger.warning("%s: %s", case, note)


def check_layout(size: tuple[int, ...], components: int, case: str) -> None:
    """Refuses what is no 3D image with one value a voxel.

    Raises:
        CaseError: it has other axes, several components, or a single slice.
    """
    if len(size) != 3 or components != 1:
        kind = f"{len(size)}D" if components == 1 else f"{len(size)}D with {components} components"
        raise CaseError(case, f"the image is {kind}: give one 3D CT with a single value per voxel")
    if min(size) < 2:
        raise CaseError(
            case, f"the image has only {size} voxels (x, y, z): give the whole 3D scan in one file"
        )


def check_axes(geometry: Geometry, case: str, path: Path | None = None) -> None:
    """Refuses axes without right angles, and voxels without a size.

    Raises:
        CaseError: they are sheared, or a size is not above zero.
    """
    name = "its" if path is None else f"{shown_path(path)}: its"
    if not all(np.isfinite(size) and size > 0 for size in geometry.spacing):
        sizes = _rounded(geometry.spacing)
        raise CaseError(case, f"{name} voxel sizes are {sizes} mm: correct the file")
    degrees = shear_degrees(np.reshape(geometry.direction, (3, 3)))
    if degrees > SHEAR_DEGREES:
        raise CaseError(
            case,
            f"{name} axes are sheared by {degrees:.1f} degrees, as those of a tilted gantry: "
            "resample it to a grid with right angles",
        )


def _unreadable(
    case: str, path: Path, error: Exception, nifti: NiftiFile | None = None
) -> CaseError:
    """The reason of a failed reading; that of SimpleITK is often another one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    if not path.exists():
        reason = "there is no such file"
    elif path.is_file() and not path.stat().st_size:
        reason = "the file is empty"
    elif "No such file" in reason or re.search(
        "expected .* received|got only|unexpected end|failed to read .* bytes", reason
    ):
        # What MetaImage and NRRD say of a file that ends too early.
        reason = "the file is cut short"
    elif nifti is not None:
        try:
            nifti.voxels()
        except NiftiError as damage:
            reason = str(damage)
    elif "Unable to determine ImageIO" in reason:
        reason = "it is no image of the kind that its name says"
    return CaseError(case, f"{shown_path(path)} cannot be read ({reason}): {WAY_OUT}")


def shown_path(path: Path) -> str:
    """A path from the root on, for a message."""
    return printable(os.path.abspath(path))


def _rounded(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
