from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from screener_nnu.errors import CaseError
from screener_nnu.finetuning.ball import central_ball, dice_by_radius

SPACING = (2.0, 1.0, 1.5)


def ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    centre = [(size - 1) / 2 for size in shape]
    mask = np.zeros(shape, bool)
    for index in np.ndindex(*shape):
        squared = sum(
            ((i - c) * step) ** 2 for i, c, step in zip(index, centre, SPACING, strict=True)
        )
        mask[index] = squared <= radius**2
    return mask


def test_dice_equals_explicit_balls() -> None:
    mask = np.random.default_rng(0).random((7, 12, 9)) < 0.3
    radii = (0.2, 2.0, 3.7, 50.0)
    explicit = [
        2 * (mask & ball(mask.shape, r)).sum() / (mask.sum() + ball(mask.shape, r).sum())
        for r in radii
    ]
    assert dice_by_radius(mask, SPACING, radii) == pytest.approx(explicit)


def test_empty_mask_scores_zero() -> None:
    assert dice_by_radius(np.zeros((4, 4, 4)), (1, 1, 1), (0.1, 3.0)).tolist() == [0.0, 0.0]


def write(path: Path, values: np.ndarray) -> Path:
    image = SimpleITK.GetImageFromArray(values.astype(np.uint8))
    image.SetSpacing(SPACING[::-1])
    SimpleITK.WriteImage(image, str(path))
    return path


def test_radius_comes_from_training_and_dice_from_validation(tmp_path: Path) -> None:
    shape = (12, 21, 16)
    training = [write(tmp_path / f"t{r}.nii.gz", ball(shape, r)) for r in (5.0, 5.2)]
    labels = ball(shape, 8.0).astype(np.uint8)
    labels[0] = 2
    validation = [write(tmp_path / "v.nii.gz", labels)]
    radius, dice = central_ball(training, validation, ignore_label=2)
    expected = dice_by_radius(labels == 1, SPACING, (5.0,))[0]
    assert radius == 5.0
    assert dice == pytest.approx(expected)
    assert central_ball(training, training)[1] > 0.95


def test_unreadable_label_is_named(tmp_path: Path) -> None:
    path = tmp_path / "case_3.nii.gz"
    path.write_bytes(b"torn")
    with pytest.raises(CaseError, match="case_3"):
        central_ball([path], [path])
