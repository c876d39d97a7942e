"""Painted anomalies lie where their label says, are as large as asked for, and come again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from screener_nnu.pretext_settings import MedMixSettings
from screener_nnu.synthetic.gradient_noise import draw_gradients, gradient_noise
from screener_nnu.synthetic.painter import Painter, Painting, smoothed
from screener_nnu.synthetic.painter_contents import Contents
from screener_nnu.synthetic.painter_patches import paint_patches
from screener_nnu.synthetic.painter_shapes import SHAPES, Canvas, draw_turns
from screener_nnu.synthetic.patch_boxes import Source
from screener_nnu.synthetic.patch_deformations import Probabilities

VOLUME, PICTURE = (12, 20, 16), (1, 40, 48)
MM, PIXEL = (3.0, 2.0, 2.0), (1.0, 1.0, 1.0)
BOTH = pytest.mark.parametrize(("size", "spacing"), [(VOLUME, MM), (PICTURE, PIXEL)])
EVERY = Contents(0.3, 0.3, 0.5, 1.0, (0.8, 1.2), (-0.2, 0.2), (0.5, 2.0), 0.2, 0.2)
KERNELS = (1, 1, 1, 1, 3, 3, 5, 7)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: tuple[int, ...], count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise in [-1, 1], and bodies that are half of it."""
    images = torch.rand(count, 2, *size, generator=seeded(5)) * 2 - 1
    bodies = torch.zeros(count, 1, *size, dtype=torch.bool)
    bodies[..., size[2] // 4 : 3 * size[2] // 4] = True
    return images, bodies


def canvas(size: tuple[int, ...], spacing: tuple[float, ...], count: int = 40) -> Canvas:
    return Canvas(batch(size, count)[1], spacing, (6.0, 0.8), seeded(1))  # type: ignore[arg-type]


@BOTH
def test_nothing_changes_outside_mask_and_body(size: tuple, spacing: tuple) -> None:
    images, bodies = batch(size, 8)
    painter = Painter(spacing, tuple(SHAPES), EVERY, 0.9, (0.3, 1.0), (4.0, 0.8), KERNELS)
    painted, labels = painting = painter.paint(images, bodies, seeded())
    untouched = ~painting.masks.expand_as(images)
    assert torch.equal(painted[untouched], images[untouched])
    assert not (painting.masks & ~bodies).any()
    assert (painted != images).any() and painted.abs().max() <= 1
    assert labels.min() >= 0 and labels.max() <= 1 and torch.isfinite(painted).all()


@BOTH
def test_a_label_is_alpha_in_the_mask_before_smoothing(size: tuple, spacing: tuple) -> None:
    images, bodies = batch(size, 8)
    painter = Painter(spacing, ("box", "form"), EVERY, 1.0, (0.3, 0.9), (4.0, 0.8))
    labels = painter.paint(images, bodies, seeded()).labels
    alphas = []
    for label in labels:
        inside = label[label > 0]
        assert len(inside) and (inside == inside[0]).all()
        alphas.append(float(inside[0]))
    assert 0.3 <= min(alphas) < max(alphas) <= 0.9


def test_a_voxel_is_the_mixture_that_its_label_says() -> None:
    images, bodies = batch(VOLUME)
    whole = Painter(MM, ("ball",), EVERY, alpha=(1.0, 1.0))
    half = Painter(MM, ("ball",), EVERY, alpha=(0.5, 0.5))
    content, mask = whole.paint(images, bodies, seeded())
    painted, label = half.paint(images, bodies, seeded())
    assert torch.equal(label, mask / 2)
    expected = np.where(mask.numpy() > 0, (images.numpy() + content.numpy()) / 2, images.numpy())
    np.testing.assert_allclose(painted.numpy(), expected, atol=1e-6)


def test_labels_are_smoothed_by_kernels_of_their_own() -> None:
    labels = (torch.rand(4, 1, *VOLUME, generator=seeded()) < 0.2).float()
    found = smoothed(labels, torch.tensor([1, 3, 5, 7]), 7)
    assert torch.equal(found[0], labels[0])
    for index, edge in ((1, 3), (2, 5), (3, 7)):
        expected = ndimage.gaussian_filter(
            labels[index, 0].numpy(), 1.0, mode="nearest", radius=edge // 2
        )
        np.testing.assert_allclose(found[index, 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("probability", [0.0, 0.5, 0.9])
def test_so_many_images_get_an_anomaly(probability: float) -> None:
    count = 400
    images, bodies = batch((4, 8, 8), count)
    painter = Painter(PIXEL, ("box", "ball"), Contents(), probability, (0.3, 1.0), (2.0, 0.8))
    hit = painter.paint(images, bodies, seeded()).masks.flatten(1).any(1)
    deviation = math.sqrt(probability * (1 - probability) / count)
    assert abs(float(hit.float().mean()) - probability) <= 4 * deviation


@BOTH
def test_the_same_seed_paints_the_same(size: tuple, spacing: tuple) -> None:
    images, bodies = batch(size)
    painter = Painter(spacing, tuple(SHAPES), EVERY, 0.9, (0.3, 1.0), (4.0, 0.8), KERNELS)
    first, second, other = (painter.paint(images, bodies, seeded(s)) for s in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.images, other.images)


def test_one_image_alone_gets_its_own_tissue() -> None:
    images, bodies = batch(VOLUME, 1)
    painted, labels = Painter(MM, ("box",), Contents()).paint(images, bodies, seeded())
    changed = (painted != images).any(1, keepdim=True)
    assert changed.float().sum() > 0.9 * (labels > 0).sum()
    values = images[0, 0].flatten()
    inside = painted[0, 0][labels[0, 0] > 0]
    assert (inside[:, None] - values).abs().amin(1).max() < 1e-5


def test_tissue_is_that_of_other_images() -> None:
    images = torch.arange(5.0)[:, None, None, None, None].expand(5, 1, *VOLUME) / 5
    drawn = Contents(own=0.0).draw(images, MM, seeded())
    numbers = drawn.flatten(1)
    torch.testing.assert_close(numbers, numbers[:, :1].expand_as(numbers))
    assert (numbers[:, 0] - images[:, 0, 0, 0, 0]).abs().min() > 0.1
    own = Contents(own=1.0).draw(images, MM, seeded())
    torch.testing.assert_close(own, images.contiguous())


def test_tissue_is_moved_by_whole_voxels_and_turned_in_mm() -> None:
    images = batch(VOLUME, 2)[0]
    drawn = Contents(own=1.0).draw(images, MM, seeded())
    for image, content in zip(images[:, 0], drawn[:, 0], strict=True):
        found = content.flatten()[::17, None] - image.flatten()
        assert found.abs().amin(1).max() < 1e-5
    turns = draw_turns(torch.tensor([0.4, -2.0]), False, seeded())
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(2, 3, 3))
    angles = torch.acos((turns.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2)
    torch.testing.assert_close(angles, torch.tensor([0.4, 2.0]))
    flat = draw_turns(torch.tensor([0.4]), True, seeded())[0]
    assert torch.equal(flat[0], torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("voxel", [(2.0, 2.0, 2.0), (4.0, 2.0, 1.0)])
def test_shapes_have_their_size_in_mm(voxel: tuple[float, float, float]) -> None:
    size = tuple(round(96 / edge) for edge in voxel)
    bodies = torch.zeros(1, 1, *size, dtype=torch.bool)
    bodies[0, 0, size[0] // 2, size[1] // 2, size[2] // 2] = True
    drawn = Canvas(bodies, voxel, (10.0, 0.8), seeded())
    edges = torch.tensor([[20.0, 40.0, 50.0]])
    turn = draw_turns(torch.tensor([0.7]), False, seeded(2))
    local = drawn.inside(edges, turn)
    inside_box = local.abs().amax(1) <= 1
    inside_ball = local.square().sum(1) <= 1
    volume = math.prod(voxel)
    assert float(inside_box.sum()) * volume == pytest.approx(20 * 40 * 50, rel=0.03)
    expected = math.pi / 6 * 20 * 40 * 50
    assert float(inside_ball.sum()) * volume == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("voxel", [(2.0, 2.0, 2.0), (5.0, 2.0, 1.0)])
def test_sizes_lie_between_the_smallest_and_the_largest(voxel: tuple[float, ...]) -> None:
    drawn = canvas((20, 24, 28), voxel, 300)
    edges = drawn.edges()
    extent = torch.tensor([20 * voxel[0], 24 * voxel[1], 28 * voxel[2]])
    torch.testing.assert_close(drawn.extent, extent)
    largest = 0.8 * extent
    assert (edges >= 6).all() and (edges <= largest).all()
    means = (6 + largest) / 2
    torch.testing.assert_close(edges.mean(0), means, rtol=0.1, atol=0.0)
    balls = SHAPES["ball"](drawn)[:, 0]
    for axis, edge in enumerate(voxel):
        others = tuple(a + 1 for a in range(3) if a != axis)
        widths = balls.amax(others).sum(1) * edge
        assert (widths > 0).all() and widths.max() <= largest.min() + edge


@BOTH
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_a_voxel_in_the_body(name: str, size: tuple, spacing: tuple) -> None:
    drawn = canvas(size, spacing)
    masks = SHAPES[name](drawn)
    assert masks.shape == drawn.bodies.shape and masks.dtype == torch.bool
    hit = (masks & drawn.bodies).flatten(1).any(1)
    shares = masks.float().mean((1, 2, 3, 4))
    assert shares.max() < 0.95 and shares.min() < shares.max()
    # Perlin noise has no centre, and in a picture may stay below its threshold.
    assert hit.float().mean() > 0.6 if name == "perlin" else hit.all()


def test_a_scar_is_thin() -> None:
    drawn = canvas((60, 60, 60), (1.0, 1.0, 1.0), 20)
    for mask in SHAPES["scar"](drawn)[:, 0]:
        places = mask.nonzero().double()
        spread = torch.linalg.eigvalsh(torch.cov(places.T, correction=0)).clamp_min(0)
        widths = (12 * spread).sqrt()  # of a box with that spread
        assert widths[0] < 8 and widths[2] < 0.3 * 60 + 2


@pytest.mark.parametrize("flat", [False, True])
def test_perlin_noise_is_zero_at_grid_points_and_bounded(flat: bool) -> None:
    gradients = draw_gradients(2, 4, flat, seeded(), torch.device("cpu"))
    cells = torch.tensor([[1 if flat else 4, 4, 2], [1 if flat else 2, 3, 4]])
    axes = [torch.arange(n, dtype=torch.float32) for n in (1 if flat else 6, 6, 6)]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(2, -1, -1, -1, -1)
    assert gradient_noise(nodes, gradients, cells).abs().max() == 0
    shift = torch.tensor([0.0 if flat else 0.37, 0.61, 0.21]).view(1, 3, 1, 1, 1)
    values = gradient_noise(nodes + shift, gradients, cells)
    assert 0 < values.abs().max() <= math.sqrt(0.5 if flat else 0.75)
    # It repeats itself after so many cells.
    again = gradient_noise(nodes + shift + cells.view(2, 3, 1, 1, 1), gradients, cells)
    torch.testing.assert_close(values, again, atol=1e-5, rtol=0)


def test_perlin_noise_is_that_of_its_formula() -> None:
    gradients = draw_gradients(1, 3, False, seeded(), torch.device("cpu"))
    points = torch.rand(1, 3, 2, 3, 4, generator=seeded(1)) * 3
    found = gradient_noise(points, gradients, torch.tensor([[3, 3, 3]]))[0, 0].numpy()
    table = gradients[0].double().numpy()
    for place in np.ndindex(2, 3, 4):
        point = points[(0, slice(None), *place)].double().numpy()
        low = np.floor(point).astype(int)
        total = 0.0
        for corner in np.ndindex(2, 2, 2):
            apart = point - low - corner
            weight = 1 - np.abs(apart) ** 3 * (6 * apart**2 - 15 * np.abs(apart) + 10)
            total += weight.prod() * (table[tuple((low + corner) % 3)] @ apart)
        assert found[place] == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("count", [1, 5])
def test_pasted_patches_are_counted(count: int) -> None:
    images, bodies = batch((16, 24, 24), count)
    bodies[:] = True
    counts = torch.arange(count) % 4
    counts[-1] = 3
    painted, labels = painting = paint_patches(
        images, bodies, counts, 3, Source.OTHER, Probabilities(), MedMixSettings(), seeded()
    )
    assert isinstance(painting, Painting) and set(labels.unique().tolist()) <= {0.0, 1.0}
    for label, number in zip(labels, counts.tolist(), strict=True):
        assert ndimage.label(label[0].numpy(), np.ones((3, 3, 3)))[1] == number
    untouched = ~painting.masks.expand_as(images)
    assert torch.equal(painted[untouched], images[untouched])
    assert (painted != images).any()


def test_patches_stay_in_the_body() -> None:
    images, bodies = batch((16, 24, 24))
    counts = torch.full((4,), 2)
    probabilities = Probabilities(1.0, 1.0, 1.0, 1.0)
    painting = paint_patches(
        images, bodies, counts, 2, Source.OWN, probabilities, MedMixSettings(), seeded()
    )
    assert painting.masks.any() and not (painting.masks & ~bodies).any()
    assert painting.images.abs().max() <= 1
