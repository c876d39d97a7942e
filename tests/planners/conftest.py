"""Small people of generated CT, as NIfTI files of a raw data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

SPACING = (4.0, 3.0, 2.5)
SHAPE = (16, 50, 64)


def make_person(seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """HU (z, y, x): an oval of soft tissue of two kinds in air."""
    generator = np.random.default_rng(seed)
    _, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    image = np.full(shape, -1000.0)
    image[(x / 0.7) ** 2 + (y / 0.6) ** 2 < 1] = 50 + 10 * seed
    image[(x / 0.3) ** 2 + (y / 0.3) ** 2 < 1] = -80
    return np.rint(image + generator.normal(0, 25, shape)).astype(np.int16)


def write_scan(folder: Path, name: str, array: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    path = folder / f"{name}_0000.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def person() -> Callable[..., np.ndarray]:
    return make_person


@pytest.fixture
def write() -> Callable[[Path, str, np.ndarray], Path]:
    return write_scan


@pytest.fixture
def cases(tmp_path: Path) -> dict[str, Path]:
    return {f"p{i}": write_scan(tmp_path / "raw", f"p{i}", make_person(i)) for i in range(3)}
