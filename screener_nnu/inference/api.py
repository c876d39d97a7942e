"""Prediction from Python: images in memory, and a trained model by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.detectors import STUDENT, ModelRef
from screener_nnu.errors import CaseError
from screener_nnu.plans import DEFAULT_PLANS_NAME
from screener_nnu.preprocessing.modality import CT, MODALITIES, PICTURE
from screener_nnu.preprocessing.nifti import RAS_TO_LPS, SHEAR_DEGREES, shear_degrees
from screener_nnu.preprocessing.reading import RawImage, picture_image, to_raw_image
from screener_nnu.preprocessing.volumes import Geometry

if TYPE_CHECKING:
    from screener_nnu.inference.predict import Predictor


def load_predictor(
    dataset: int | str,
    plans: str = DEFAULT_PLANS_NAME,
    detector: str = STUDENT,
    device: str | None = None,
) -> Predictor:
    """A trained model, ready for `predict`.

    Args:
        dataset: number or name of the data set that the model learned from.
        plans: name of the plan.
        detector: a name of `detectors.DETECTORS`; by default the distilled student.
        device: `cuda`, `cpu` or `mps`; by default `cuda` where there is one.

    Raises:
        ScreenerError: no such data set or detector, a stage is not trained, or no such device.
    """
    from screener_nnu.devices import choose_device
    from screener_nnu.inference.predict import Predictor

    chosen = choose_device(device)
    return Predictor.of(ModelRef(dataset, plans, detector).load(chosen), chosen)


def as_raw_image(
    image: Any,
    spacing: Sequence[float] | None = None,
    case: str = "image",
    modality: str = CT,
) -> RawImage:
    """A scan or a picture in memory, for `Predictor.predict`.

    Args:
        image: HU as a SimpleITK image, a nibabel image (its affine may be oblique or flipped), or a
            NumPy array (z, y, x) whose axes point to head, back and left. MR likewise in any unit;
            a picture as an array of whole numbers (rows, columns), or (rows, columns, 3) in colour.
        spacing: of an array, (z, y, x), mm; images have their own, and pictures none.
        case: name used in messages.
        modality: `ct`, `mr` or `picture`, that of the model.

    Raises:
        CaseError: no 3D CT in HU, a spacing is missing or superfluous, or the affine is sheared; no
            3D image, or no picture, of another modality.
    """
    if modality not in MODALITIES:
        raise CaseError(case, f"{modality} is no modality: give one of {', '.join(MODALITIES)}")
    is_array = isinstance(image, np.ndarray)
    if modality == PICTURE:
        return _picture(image, spacing, case)
    if is_array and spacing is None:
        raise CaseError(case, "an array has no voxel size: give spacing=(z, y, x) in mm")
    if not is_array and spacing is not None:
        raise CaseError(case, "the image has a voxel size of its own: leave spacing out")
    if spacing is not None:
        return to_raw_image(_from_array(image, spacing, case), case, modality=modality)
    if isinstance(image, sitk.Image):
        return to_raw_image(image, case, modality=modality)
    if hasattr(image, "affine") and hasattr(image, "dataobj"):
        return to_raw_image(_from_nibabel(image, case), case, modality=modality)
    raise CaseError(
        case,
        f"a {type(image).__name__} is no image: give one of SimpleITK or nibabel, or an array with "
        "its spacing",
    )


def _picture(image: Any, spacing: Sequence[float] | None, case: str) -> RawImage:
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        raise CaseError(case, "a picture has to be an array of uint8 or uint16")
    if spacing is not None:
        raise CaseError(case, "pictures have no voxel size: leave spacing out")
    if image.ndim == 3 and image.shape[-1] == 3:
        return picture_image(np.moveaxis(image, -1, 0), case)
    if image.ndim == 2:
        return picture_image(image[None], case)
    raise CaseError(
        case, f"its shape {image.shape} is not (rows, columns), or (rows, columns, 3) in colour"
    )


def _from_array(array: np.ndarray, spacing: Sequence[float], case: str) -> sitk.Image:
    sizes = [float(size) for size in spacing]
    if len(sizes) != 3 or not all(0 < size < np.inf for size in sizes):
        raise CaseError(case, f"spacing {sizes} is not three sizes in mm (z, y, x)")
    image = _to_sitk(array, case)
    image.SetSpacing(sizes[::-1])
    return image


def _from_nibabel(image: Any, case: str) -> sitk.Image:
    array = np.asanyarray(image.dataobj)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    affine = RAS_TO_LPS @ np.asarray(image.affine, dtype=float)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(affine)) or sizes.min() <= 0:
        raise CaseError(case, "its affine has no voxel size on an axis: correct the file")
    if shear_degrees(affine) > SHEAR_DEGREES:
        raise CaseError(case, "its affine is sheared: resample it to a grid with right angles")
    result = _to_sitk(array.T, case)
    geometry = Geometry.of_affine(result.GetSize(), affine)
    result.SetSpacing(geometry.spacing)
    result.SetOrigin(geometry.origin)
    result.SetDirection(geometry.direction)
    return result


def _to_sitk(array: np.ndarray, case: str) -> sitk.Image:
    if array.ndim != 3:
        raise CaseError(case, f"the image is {array.ndim}D: give one of 3D")
    if array.dtype.kind not in "iuf":
        raise CaseError(case, f"its values are of type {array.dtype}: give numbers")
    return sitk.GetImageFromArray(np.ascontiguousarray(array, dtype=np.float32))
