"""What the methods learn from is what their settings say, and a painted batch is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.baselines.base import build_method
from screener_nnu.baselines.painted import PaintedMethod, PaintedSegmentation
from screener_nnu.errors import ScreenerError
from screener_nnu.losses.ms_ssim import ms_ssim_map
from screener_nnu.losses.segmentation import focal_loss, supervised_cross_entropy
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.painter import Painting
from tests.baselines.made_plans import PICTURE, VOLUME, method_plan

PAINTED = ("mood", "draem", "cutpaste_segmentation", "medmix_segmentation")
EVERY = pytest.mark.parametrize("name", PAINTED)
BOTH = pytest.mark.parametrize("kind", [VOLUME, PICTURE])
MM = 9.0


def made(kind: str, name: str, *options: str) -> Any:
    own = [f"baseline.options.{option}" for option in options]
    return build_method(method_plan(kind, name, own)).train()


def smooth_batch(method: PaintedMethod, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images, whose bodies leave a border free."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, *(max(1, n // 8) for n in method.size), generator=generator)
    images = torch.nn.functional.interpolate(coarse, method.size, mode="trilinear") * 2 - 1
    bodies = torch.ones_like(images, dtype=torch.bool)
    bodies[..., :2] = False
    return images, bodies


def painted(method: PaintedMethod, count: int = 4, seed: int = 0) -> Painting:
    return method.paint(*smooth_batch(method, count), torch.Generator().manual_seed(seed))


@EVERY
@BOTH
def test_paint_stays_in_the_body_and_the_label(name: str, kind: str) -> None:
    method = made(kind, name, *(["augmentation=0"] if name == "mood" else []))
    images, bodies = smooth_batch(method)
    painting = painted(method)
    labels = painting.labels
    assert painting.masks.any() and not (painting.masks & ~bodies).any()
    assert labels.min() >= 0 and labels.max() <= 1
    assert torch.equal(painting.images[~painting.masks], images[~painting.masks])
    assert (painting.images != images).any()
    again, other = painted(method), painted(method, seed=1)
    assert torch.equal(painting.images, again.images)
    assert not torch.equal(painting.images, other.images)


@EVERY
def test_one_image_is_a_batch(name: str) -> None:
    method = made(VOLUME, name)
    images, bodies = smooth_batch(method, 1)
    losses = method(images, bodies, torch.Generator().manual_seed(0), 0, 1)
    assert all(torch.isfinite(loss) for loss in losses.values())


@EVERY
def test_lengths_are_those_of_the_plan(name: str) -> None:
    assert made(VOLUME, name).spacing == (MM, MM, MM)
    assert made(PICTURE, name).spacing == (1.0, 1.0, 1.0)
    assert set(made(VOLUME, name).resembles) < set(KINDS)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("mood", ("probability=0",), 0.0),
        ("mood", (), 0.9),
        ("draem", (), 0.5),
        ("cutpaste_segmentation", (), 2 / 3),
        ("cutpaste_segmentation", ("patch=0", "scar=0.25"), 0.25),
        ("medmix_segmentation", (), 0.75),
        ("medmix_segmentation", ("patches=1",), 0.5),
    ],
)
def test_so_many_images_are_painted(name: str, options: tuple, expected: float) -> None:
    count = 300
    masks = painted(made(VOLUME, name, *options), count).masks
    share = float(masks.flatten(1).any(1).float().mean())
    assert share == pytest.approx(expected, abs=4 * np.sqrt(0.25 / count) if expected else 0)


def test_mood_augments_bodies_alone() -> None:
    method = made(VOLUME, "mood", "probability=0", "augmentation=1")
    images, bodies = smooth_batch(method)
    changed = painted(method).images
    assert torch.equal(changed[~bodies], images[~bodies])
    assert (changed[bodies] != images[bodies]).float().mean() > 0.9
    assert changed.abs().max() <= 1


@BOTH
def test_the_losses_of_draem_are_those_of_its_parts(kind: str) -> None:
    method = made(kind, "draem", "probability=1", "alpha=[1, 1]")
    images, _ = smooth_batch(method)
    bodies = torch.ones_like(images, dtype=torch.bool)

    def drawn() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    with torch.no_grad():
        found = method(images, bodies, drawn(), 0, 1)
        shown = method.paint(images, bodies, drawn()).images
        clean = method.reconstructor(shown)
        logits = method.segmenter(torch.cat([clean, shown], 1))
        assert torch.equal(method.score(shown), logits[:, 0])
    changed = (shown - images).abs() > 0.04
    assert 0 < changed.float().mean() < 0.8
    torch.testing.assert_close(found["l2"], (clean - images).square().mean())
    torch.testing.assert_close(found["focal"], focal_loss(logits, changed, bodies, 2.0))
    alike = ms_ssim_map((clean + 1) / 2, (images + 1) / 2, 5, (1.0,))
    torch.testing.assert_close(found["ssim"], 1 - alike.mean())


@pytest.mark.parametrize("name", [name for name in PAINTED if name != "draem"])
def test_all_resolutions_learn_what_is_painted(name: str) -> None:
    method = made(VOLUME, name)
    assert isinstance(method, PaintedSegmentation)
    images, bodies = smooth_batch(method)
    found = method(images, bodies, torch.Generator().manual_seed(0), 0, 1)["cross_entropy"]
    painting = painted(method)
    outputs = method.network(painting.images)
    assert [tuple(o.shape[2:]) for o in outputs] == [(16, 16, 16), (8, 8, 8)]
    torch.testing.assert_close(found, supervised_cross_entropy(outputs, painting.labels, bodies))
    torch.testing.assert_close(method.score(painting.images), outputs[0][:, 0])


@EVERY
@pytest.mark.parametrize("kind", [VOLUME, pytest.param(PICTURE, marks=pytest.mark.long)])
def test_a_painted_batch_is_learned(name: str, kind: str) -> None:
    method = made(kind, name)
    images, bodies = smooth_batch(method, 2)
    optimiser = torch.optim.AdamW(method.parameters(), lr=1e-2)
    values = []
    for step in range(60):
        optimiser.zero_grad()
        # The same paint at every step.
        losses = method(images, bodies, torch.Generator().manual_seed(3), step, 60)
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    method.eval()
    with torch.no_grad():
        painting = method.paint(images, bodies, torch.Generator().manual_seed(3))
        scores = method.score(painting.images)[:, None]
    # Soft labels leave an entropy of their own.
    assert values[-1] < 0.6 * values[0]
    inside, outside = painting.labels > 0.5, (painting.labels == 0) & bodies
    if inside.any():
        assert scores[inside].mean() > scores[outside].mean() + 1


def test_bad_options_are_refused() -> None:
    with pytest.raises(ScreenerError, match="options.window 17 is larger"):
        made(VOLUME, "draem", "window=17")
    with pytest.raises(ScreenerError, match="window must be odd"):
        made(VOLUME, "draem", "window=4")
    with pytest.raises(ScreenerError, match="at most 1 together"):
        made(VOLUME, "cutpaste_segmentation", "patch=0.9", "scar=0.9")
    with pytest.raises(ScreenerError, match="alpha must be a lower value"):
        made(VOLUME, "mood", "alpha=[0.8, 0.2]")
    large = ["pretext.medmix.edge=[0.6, 0.7]"]
    crowded = build_method(method_plan(VOLUME, "medmix_segmentation", large))
    with pytest.raises(ScreenerError, match=r"baseline.options.patches: 3 do not fit"):
        painted(crowded)
