"""The three sets of phantoms that the demo works on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from screener_nnu.demo.settings import LABELLED, NORMAL_CASE, PRETRAINING, DemoPaths, DemoSize
from screener_nnu.preprocessing.image_files import write_image
from screener_nnu.synthetic import (
    Phantom,
    generate_phantom,
    write_phantom_dataset,
    write_phantom_test_set,
)

LESION_FRACTION = 0.15


def write_phantoms(paths: DemoPaths, size: DemoSize) -> None:
    """Writes unlabelled scans, a test set and a few labelled scans; those that are there stay."""
    _whole(
        paths.raw / PRETRAINING,
        lambda parent: write_phantom_dataset(
            parent, PRETRAINING, size.training_scans, size.seed, LESION_FRACTION
        ),
    )
    _whole(paths.test, lambda parent: _write_test_set(parent / paths.test.name, size))
    _whole(
        paths.raw / LABELLED,
        lambda parent: write_phantom_dataset(
            parent, LABELLED, size.labelled_scans, size.seed + 2, lesion_labels=True
        ),
    )


def _whole(folder: Path, write: Callable[[Path], object]) -> None:
    """Writes a folder elsewhere and moves it into place, so that half a set is never taken up."""
    if folder.is_dir():
        return
    unfinished = folder.parent / f".{folder.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    write(unfinished)
    (unfinished / folder.name).rename(folder)
    unfinished.rmdir()


def _write_test_set(folder: Path, size: DemoSize) -> None:
    """Phantoms with lesions, and a normal one with an empty mask."""
    write_phantom_test_set(folder, size.test_scans, size.seed + 1)
    normal = generate_phantom(size.seed + 3)
    _write(normal, normal.image_hu, folder / "images" / f"{NORMAL_CASE}_0000.nii.gz")
    _write(normal, np.zeros_like(normal.lesion_mask), folder / "masks" / f"{NORMAL_CASE}.nii.gz")


def _write(phantom: Phantom, array: NDArray[np.int16] | NDArray[np.uint8], path: Path) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(phantom.spacing[::-1])
    write_image(image, path)
