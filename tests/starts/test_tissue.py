"""Tissue by rule on made images, and its losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from screener_nnu.errors import ScreenerError
from screener_nnu.starts.base import build_start
from screener_nnu.starts.tissue import CLASSES, dice_loss, tissue_labels
from tests.baselines.made_plans import PICTURE, VOLUME
from tests.starts.made_starts import batch, losses, start_plan

WIDE = (100.0, 100.0, 100.0)


@pytest.mark.parametrize(
    ("hu", "wanted"),
    [
        (-1000.0, "lung and gas"),
        (-501.0, "lung and gas"),
        (-300.0, "other"),
        (-149.0, "fat"),
        (-31.0, "fat"),
        (-29.0, "soft tissue"),
        (89.0, "soft tissue"),
        (91.0, "contrast and marrow"),
        (199.0, "contrast and marrow"),
        (201.0, "bone"),
        (1500.0, "bone"),
    ],
)
def test_a_value_is_a_tissue_in_the_body_alone(hu: float, wanted: str) -> None:
    image = torch.full((1, 1, 2, 3, 4), hu)
    body = torch.ones_like(image, dtype=torch.bool)
    body[..., 0] = False
    labels = tissue_labels(image, body, WIDE)
    assert labels.shape == (1, 2, 3, 4)
    assert (labels[..., 1:] == CLASSES.index(wanted)).all() and not labels[..., 0].any()


def test_images_are_smoothed_by_a_millimetre() -> None:
    values = np.random.default_rng(0).uniform(-600, 400, (12, 12, 12)).astype(np.float32)
    spacing = (2.0, 0.8, 0.5)
    sigmas = [1 / mm for mm in spacing]
    smooth = values
    for axis, sigma in enumerate(sigmas):
        one = [sigma if n == axis else 0 for n in range(3)]
        reach = np.ceil(3 * sigma) / sigma
        smooth = gaussian_filter(smooth, one, mode="nearest", truncate=reach)
    bounds = [-500, -150, -30, 90, 200]
    expected = np.array([1, 0, 2, 3, 4, 5])[np.digitize(smooth, bounds)]
    image = torch.from_numpy(values)[None, None]
    found = tissue_labels(image, torch.ones_like(image) > 0, spacing)[0].numpy()
    assert (found != expected).mean() < 1e-3  # rounding at a bound
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = tissue_labels(image, torch.ones_like(image) > 0, spacing)[0].numpy()
    assert np.array_equal(again, found)
    assert len(np.unique(found)) > 2


def test_losses_are_those_of_numpy() -> None:
    plan = start_plan(VOLUME, "tissue")
    method = build_start(plan)
    images, bodies = batch(plan)
    with torch.no_grad():
        found = losses(method, plan)
        logits = method.network(images).double().numpy()
    mean, std = plan.intensities.mean, plan.intensities.std
    spacing = plan.settings.preprocessing.spacing
    labels = tissue_labels(images * std + mean, bodies, spacing).numpy()
    assert logits.shape[1] == len(CLASSES)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.moveaxis(np.eye(len(CLASSES))[labels], -1, 1)
    entropy = -(np.log(shares) * truth).sum(1).mean()
    assert float(found["cross_entropy"]) == pytest.approx(entropy, rel=1e-5)
    axes = (0, 2, 3, 4)
    dice = 2 * (shares * truth).sum(axes) / (shares + truth).sum(axes)
    assert float(found["dice"]) == pytest.approx(1 - dice[1:].mean(), rel=1e-4)


def test_dice_of_the_right_labels_is_one() -> None:
    labels = torch.arange(6 * 8).view(1, 4, 4, 3) % 6
    logits = 50 * torch.nn.functional.one_hot(labels, 6).movedim(-1, 1).float()
    assert float(dice_loss(logits, labels)) == pytest.approx(0, abs=1e-5)
    assert float(dice_loss(logits, (labels + 1) % 6)) == pytest.approx(1, abs=1e-4)


def test_pictures_have_no_hounsfield_units() -> None:
    with pytest.raises(ScreenerError, match="'tissue' labels voxels by their Hounsfield units"):
        build_start(start_plan(PICTURE, "tissue"))
