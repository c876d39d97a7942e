"""Phantoms as nnU-Net raw datasets and as a test set."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from screener_nnu.errors import ScreenerError
from screener_nnu.preprocessing.image_files import write_image
from screener_nnu.synthetic.fields import Triple
from screener_nnu.synthetic.phantom import Phantom, generate_phantom

logger = logging.getLogger(__name__)

_SPACING: Triple = (4.0, 3.0, 3.0)
_MOST_LESIONS = 4


def write_phantom_dataset(
    raw_folder: Path,
    dataset_name: str,
    num_scans: int,
    seed: int,
    lesion_fraction: float = 0.15,
    lesion_labels: bool = False,
    spacing: Triple = _SPACING,
    spacing_jitter: float = 0.08,
) -> Path:
    """Writes phantoms as an nnU-Net raw dataset.

    Args:
        raw_folder: the folder `nnUNet_raw`.
        dataset_name: such as `Dataset900_Phantom`.
        num_scans: number of scans.
        seed: every scan is a function of seed and its number.
        lesion_fraction: share of the scans with lesions, when lesions are not annotated; most
            people of a cohort are well, a few are not, and nobody says who.
        lesion_labels: write `labelsTr`; every scan then has at least one lesion.
        spacing: mean voxel size in mm (z, y, x).
        spacing_jitter: standard deviation of the relative change of the spacing between scans.

    Returns:
        The folder of the dataset.

    Raises:
        ScreenerError: when the dataset is already there.
    """
    folder = raw_folder / dataset_name
    images = _new_folder(folder / "imagesTr")
    draw = np.random.default_rng([seed, 0])
    ill = np.zeros(num_scans, bool)
    ill[draw.permutation(num_scans)[: round(lesion_fraction * num_scans)]] = True
    if lesion_labels:
        ill[:] = True
        _new_folder(folder / "labelsTr")
    for number in range(num_scans):
        case, phantom, origin = _draw_case(seed, number, bool(ill[number]), spacing, spacing_jitter)
        _write(phantom.image_hu, phantom.spacing, origin, images / f"{case}_0000.nii.gz")
        if lesion_labels:
            target = folder / "labelsTr" / f"{case}.nii.gz"
            _write(phantom.lesion_mask, phantom.spacing, origin, target)
    _write_description(folder, num_scans, lesion_labels)
    logger.info("Wrote %d phantoms to %s", num_scans, folder)
    return folder


def write_phantom_test_set(folder: Path, num_scans: int, seed: int) -> Path:
    """Writes phantoms with lesions to `images/<case>_0000.nii.gz` and `masks/<case>.nii.gz`.

    Args:
        folder: folder to write to.
        num_scans: number of scans, each with at least one lesion.
        seed: take another one than that of the training set.

    Returns:
        The same folder.

    Raises:
        ScreenerError: when the folder already holds images or masks.
    """
    images, masks = _new_folder(folder / "images"), _new_folder(folder / "masks")
    for number in range(num_scans):
        case, phantom, origin = _draw_case(seed, number, True, _SPACING, 0.08)
        _write(phantom.image_hu, phantom.spacing, origin, images / f"{case}_0000.nii.gz")
        _write(phantom.lesion_mask, phantom.spacing, origin, masks / f"{case}.nii.gz")
    return folder


def _draw_case(
    seed: int, number: int, ill: bool, spacing: Triple, spacing_jitter: float
) -> tuple[str, Phantom, Triple]:
    """Draws one scan: name, phantom and origin in mm (x, y, z)."""
    rng = np.random.default_rng([seed, 1, number])
    through_plane, in_plane = np.exp(rng.normal(0, spacing_jitter, 2))
    # Steps of a hundredth of a millimetre survive the single precision of a NIfTI header.
    size = [
        round(float(s * f), 2) for s, f in zip(spacing, (through_plane, in_plane), strict=False)
    ]
    lesions = int(rng.integers(1, _MOST_LESIONS + 1)) if ill else 0
    phantom_seed = int(rng.integers(2**62))
    phantom = generate_phantom(phantom_seed, (size[0], size[1], size[1]), lesions)
    x, y, z = (round(float(v), 1) for v in rng.uniform(-200, 0, 3))
    return f"phantom_{number:04d}", phantom, (x, y, z)


def _new_folder(folder: Path) -> Path:
    """Makes a folder, but does not mix with what somebody else has put there."""
    if folder.is_dir() and any(folder.iterdir()):
        raise ScreenerError(f"{folder} already holds files; choose another name or remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(array: NDArray[Any], spacing: Triple, origin: Triple, path: Path) -> None:
    """Writes an array (Z, Y, X) with identity direction."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(origin)
    write_image(image, path)


def _write_description(folder: Path, num_scans: int, lesion_labels: bool) -> None:
    """Writes `dataset.json`."""
    labels = {"background": 0, "lesion": 1} if lesion_labels else {"background": 0}
    description = {
        "name": folder.name,
        "description": "Computed CT phantoms of the trunk; no patient data",
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": num_scans,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n")
