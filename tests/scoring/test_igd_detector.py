"""Maps and image scores of interpolated Gaussian descriptors against plain loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from screener_nnu.igd_settings import GLOBAL, LOCAL, IgdSettings
from screener_nnu.losses.igd import reconstruction_loss, reconstruction_map
from screener_nnu.networks.igd import AutoEncoders, GaussianAutoEncoder
from screener_nnu.scoring.igd import IgdDetector, Scale

SETTINGS = IgdSettings(global_xi=0.3, local_xi=0.6)


class Encoder(nn.Module):
    width = 4

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool3d(images[:, :1], (1, 2, 2)).flatten(1)


def detector(
    whole: tuple[int, int, int] = (1, 24, 24),
    patch: tuple[int, int, int] = (1, 8, 8),
    scales: dict[str, Scale] | None = None,
) -> IgdDetector:
    torch.manual_seed(0)
    models = AutoEncoders(
        {
            name: GaussianAutoEncoder(Encoder(), 1, size, latent=4, width=16)
            for name, size in ((GLOBAL, whole), (LOCAL, patch))
        }
    )
    for name in models:
        models.named(name).place(
            models.named(name).encode(torch.rand(10, 1, *models.named(name).size))
        )
    return IgdDetector(models, SETTINGS, scales).eval()


def starts(length: int, edge: int) -> list[int]:
    """Even steps of half an image at most, which this test knows for its sizes."""
    return {(24, 24): [0], (24, 8): [0, 4, 8, 12, 16], (30, 24): [0, 6], (1, 1): [0]}[length, edge]


def plain_map(one: IgdDetector, name: str, image: torch.Tensor) -> np.ndarray:
    model = one.models.named(name)
    size = model.size
    sides = image.shape[2:]
    total, count = np.zeros(sides), np.zeros(sides)
    for y in starts(sides[1], size[1]):
        for x in starts(sides[2], size[2]):
            part = image[..., y : y + size[1], x : x + size[2]]
            with torch.no_grad():
                score = reconstruction_map(part, model(part).images, one.similarities[name])[0]
            total[:, y : y + size[1], x : x + size[2]] += score.numpy()
            count[:, y : y + size[1], x : x + size[2]] += 1
    return total / count


def place(number: int = 1) -> torch.Tensor:
    return torch.zeros(number, 3, dtype=torch.long)


def test_a_map_is_the_mean_of_overlapping_images_of_both_models() -> None:
    scales = {GLOBAL: Scale(0.5, 1.0), LOCAL: Scale(2.0, 1.0)}
    one, image = detector(scales=scales), torch.rand(1, 1, 1, 24, 24)
    found = one(image, place(), torch.tensor([[1, 24, 24]]))[0]
    expected = plain_map(one, GLOBAL, image) / 0.5 + plain_map(one, LOCAL, image) / 2
    np.testing.assert_allclose(found.numpy(), expected / 2, atol=1e-5)
    wide = torch.rand(1, 1, 1, 24, 30)
    np.testing.assert_allclose(
        one.map_of(GLOBAL, wide)[0].numpy(), plain_map(one, GLOBAL, wide), atol=1e-5
    )


def test_a_picture_alone_is_scored_as_in_a_batch() -> None:
    one, images = detector(), torch.rand(3, 1, 1, 24, 24)
    extent = torch.tensor([[1, 24, 24]] * 3)
    together = one(images, place(3), extent)
    for i in range(3):
        alone = one(images[i : i + 1], place(), extent[:1])[0]
        torch.testing.assert_close(alone, together[i], atol=1e-6, rtol=0)


def test_what_lies_beyond_a_scan_changes_nothing() -> None:
    one, image = detector(), torch.rand(1, 1, 1, 24, 24)
    extent = torch.tensor([[1, 24, 24]])
    padded = nn.functional.pad(image, (0, 8, 0, 8), value=0.7)
    found = one(padded, place(), extent)
    torch.testing.assert_close(found[..., :24, :24], one(image, place(), extent))
    assert not found[..., 24:, :].any() and not found[..., 24:].any()
    later = one(padded, torch.tensor([[0, 16, 16]]), torch.tensor([[1, 40, 40]]))
    torch.testing.assert_close(later[..., :24, :24], found[..., :24, :24])


def test_images_smaller_than_those_of_a_model_are_filled_up() -> None:
    one, small = detector(), torch.rand(1, 1, 1, 5, 20)
    found = one(small, place(), torch.tensor([[1, 5, 20]]))
    assert found.shape == (1, 1, 5, 20) and torch.isfinite(found).all()
    padded = nn.functional.pad(small, (0, 4, 0, 19))
    expected = one.map_of(GLOBAL, padded)[..., :5, :20]
    torch.testing.assert_close(one.map_of(GLOBAL, small), expected)


def test_volumes_are_cut_along_every_axis() -> None:
    one = detector((12, 12, 12), (8, 8, 8))
    volume = torch.rand(1, 1, 14, 13, 30)
    found = one(volume, place(), torch.tensor([[14, 13, 30]]))
    assert found.shape == (1, 14, 13, 30) and float(found.min()) > 0


def plain_scores(one: IgdDetector, name: str, image: torch.Tensor) -> dict[tuple[int, int], float]:
    """Score of each part of an image by its first pixel."""
    model, xi = one.models.named(name), SETTINGS.xi(name)
    found = {}
    for y in starts(24, model.size[1]):
        for x in starts(24, model.size[2]):
            part = image[..., y : y + model.size[1], x : x + model.size[2]]
            with torch.no_grad():
                z, decoded, _ = model(part)
            error = float(reconstruction_loss(part, decoded, 0.15, one.similarities[name]))
            distance = float(((z - model.centre) ** 2).sum()) / float(model.spread)
            found[y, x] = xi * error + (1 - xi) * (1 - np.exp(-distance))
    return found


def test_image_scores_are_those_of_the_worst_part_in_the_body() -> None:
    scales = {GLOBAL: Scale(1.0, 0.25), LOCAL: Scale(1.0, 4.0)}
    one, image = detector(scales=scales), torch.rand(1, 1, 1, 24, 24)
    body = torch.ones(1, 1, 1, 24, 24, dtype=torch.bool)
    found = one.image_scores(image, body)
    of_global, of_local = (plain_scores(one, name, image) for name in (GLOBAL, LOCAL))
    assert found[GLOBAL] == pytest.approx(of_global[0, 0], rel=1e-4)
    assert found[LOCAL] == pytest.approx(max(of_local.values()), rel=1e-4)
    mean = (of_global[0, 0] / 0.25 + max(of_local.values()) / 4) / 2
    assert found["score"] == pytest.approx(mean, rel=1e-4)
    # The worst patch lies outside of the body, and does not count.
    worst = max(of_local, key=lambda start: of_local[start])
    body[..., worst[0] : worst[0] + 8, worst[1] : worst[1] + 8] = False
    inside = {
        (y, x): value
        for (y, x), value in of_local.items()
        if float(body[..., y : y + 8, x : x + 8].float().mean()) >= 0.5
    }
    assert worst not in inside
    lower = one.image_scores(image, body)[LOCAL]
    assert lower == pytest.approx(max(inside.values()), rel=1e-4) and lower < found[LOCAL]
    none = one.image_scores(image, torch.zeros_like(body))
    assert none[LOCAL] == pytest.approx(found[LOCAL])


def test_scores_rise_with_the_distance_to_the_centre() -> None:
    one, image = detector(), torch.rand(1, 1, 1, 24, 24)
    body = torch.ones_like(image)
    model = one.models.named(GLOBAL)
    with torch.no_grad():
        own = model.encode(image)[0]
        scores = []
        for distance in (0.0, 0.5, 1.0, 2.0, 4.0):
            model.centre.copy_(own + distance * model.spread.sqrt() * torch.tensor([1.0, 0, 0, 0]))
            scores.append(one.image_score_of(GLOBAL, image, body))
    assert all(a < b for a, b in pairwise(scores))
    assert scores[-1] - scores[0] == pytest.approx(1 - SETTINGS.global_xi, abs=1e-4)
