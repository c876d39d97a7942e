"""A small person of generated CT: an elliptic trunk with two lungs and a marker on the left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.plans import PreprocessingSettings

Writer = Callable[..., Path]


def make_person(shape: tuple[int, int, int] = (24, 40, 48), seed: int = 0) -> np.ndarray:
    """HU, float32, (z, y, x): air, an oval of 40 HU, lungs of -850 HU, a bright left-back spot."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    image = np.full(shape, -1000.0)
    image[(x / 0.8) ** 2 + (y / 0.7) ** 2 < 1] = 40
    for side in (-0.35, 0.35):
        image[((x - side) / 0.22) ** 2 + (y / 0.4) ** 2 < 1] = -850
    image[(x - 0.6) ** 2 + (y - 0.2) ** 2 + (z - 0.3) ** 2 < 0.02] = 700
    noise = np.random.default_rng(seed).normal(0, 12, shape)
    return np.rint(image + noise).astype(np.float32)


@pytest.fixture
def person() -> Callable[..., np.ndarray]:
    return make_person


@pytest.fixture
def settings() -> PreprocessingSettings:
    return PreprocessingSettings(
        spacing=(4.0, 3.0, 3.0), storage_spacing=(3.0, 2.0, 2.0), hu_clip=(-990.5, 480.0)
    )


@pytest.fixture
def write_image(tmp_path: Path) -> Writer:
    """Writes an array (z, y, x) with spacing (z, y, x), direction and origin; returns the file."""

    def write(
        array: np.ndarray,
        spacing: tuple[float, ...] = (3.0, 2.0, 2.5),
        direction: np.ndarray | None = None,
        origin: tuple[float, ...] = (-17.25, 31.5, -402.0),
        name: str = "scan_0000.nii.gz",
    ) -> Path:
        image = sitk.GetImageFromArray(array)
        if image.GetDimension() == 3:
            image.SetSpacing([float(s) for s in spacing[::-1]])
            image.SetOrigin(origin)
            if direction is not None:
                image.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path))
        return path

    return write
