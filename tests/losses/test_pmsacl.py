"""The contrast of images in classes and its centres against double loops, and its properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from screener_nnu.losses.pmsacl import (
    ClassContrast,
    centred,
    centring_loss,
    class_means,
    equidistant_centres,
    random_centres,
)

torch.set_num_threads(1)

# Changed images a class: unequal, and one class of a single image.
IMAGES = (3, 1, 2)


def views(
    images: tuple[int, ...] = IMAGES, d: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of any length, the numbers of their images and their classes, in random order."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(len(images)).repeat_interleave(2 * torch.tensor(images))
    sources = 7 * torch.arange(sum(images)).repeat_interleave(2) + 3
    z = 2 * torch.randn(len(classes), d, generator=generator, dtype=dtype)
    z = z + torch.randn(len(images), d, generator=generator, dtype=dtype)[classes]
    order = torch.randperm(len(z), generator=generator)
    return z[order], sources[order], classes[order]


def directions(*arguments: object, **named: object) -> tuple[Tensor, Tensor, Tensor]:
    """The same with embeddings of unit length."""
    z, sources, classes = views(*arguments, **named)  # type: ignore[arg-type]
    return z / z.norm(dim=1, keepdim=True), sources, classes


def pairs_by_loops(u: Tensor, sources: Tensor, classes: Tensor, tau: float, alpha: float) -> float:
    """The loss of each view as Tian et al. define it, with 1 / tau for the partner."""
    rows = u.detach().numpy().tolist()
    total = 0.0
    for a, own in enumerate(rows):
        below, above = 0.0, None
        for b, other in enumerate(rows):
            if a == b:
                continue
            dot = sum(x * y for x, y in zip(own, other, strict=True))
            if sources[a] == sources[b]:
                above = math.exp(dot / tau)
                below += above
            elif classes[a] == classes[b]:
                below += math.exp(dot / (alpha * tau))
            else:
                below += math.exp(dot / tau)
        assert above is not None
        total -= math.log(above / below)
    return total / len(rows)


def supcon_by_loops(u: Tensor, classes: Tensor, tau: float) -> float:
    """Equation 2 of Khosla et al., as a mean over views."""
    rows, total = u.detach().numpy(), 0.0
    for a in range(len(rows)):
        others = [b for b in range(len(rows)) if b != a]
        below = sum(math.exp(float(rows[a] @ rows[b]) / tau) for b in others)
        positives = [b for b in others if classes[b] == classes[a]]
        for p in positives:
            total -= math.log(math.exp(float(rows[a] @ rows[p]) / tau) / below) / len(positives)
    return total / len(rows)


@pytest.mark.parametrize("images", [IMAGES, (1, 1), (4,), (2, 2, 2, 2)])
@pytest.mark.parametrize("tau, alpha", [(0.2, 1.0), (0.2, 2.0), (0.5, 100.0), (1.0, 0.5)])
def test_pairs_equal_loops(images: tuple[int, ...], tau: float, alpha: float) -> None:
    u, sources, classes = directions(images, seed=len(images))
    loss, terms = ClassContrast(tau, alpha)(u, sources, classes)
    assert loss.item() == pytest.approx(pairs_by_loops(u, sources, classes, tau, alpha), abs=1e-10)
    assert loss.item() == pytest.approx(sum(term.item() for term in terms.values()), abs=1e-12)
    partner = [float(u[a] @ u[b]) for a, b in partners(sources)]
    assert terms["attraction"].item() == pytest.approx(-np.mean(partner) / tau, abs=1e-10)
    assert not any(term.requires_grad for term in terms.values())


def partners(sources: Tensor) -> list[tuple[int, int]]:
    numbers = sources.tolist()
    return [(a, b) for a in range(len(numbers)) for b in range(a) if numbers[a] == numbers[b]]


@pytest.mark.parametrize("images", [IMAGES, (1, 1), (3,)])
@pytest.mark.parametrize("tau", [0.2, 0.7])
def test_classes_are_supcon(images: tuple[int, ...], tau: float) -> None:
    u, sources, classes = directions(images, seed=3)
    expected = supcon_by_loops(u, classes, tau)
    for alpha in (1.0, 9.0):
        loss, _ = ClassContrast(tau, alpha, "classes")(u, sources, classes)
        assert loss.item() == pytest.approx(expected, abs=1e-10)


def test_alpha_one_is_nt_xent() -> None:
    """By cross-entropy over the cosines of two lists of views, as its public code has it."""
    first, second = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1)).double()
    both = torch.cat([first, second])
    cosines = torch.cosine_similarity(both[:, None], both[None], dim=2) / 0.3
    cosines.fill_diagonal_(-torch.inf)
    target = torch.cat([torch.arange(6, 12), torch.arange(6)])
    expected = torch.nn.functional.cross_entropy(cosines, target)
    sources, classes = torch.arange(6).repeat(2), torch.tensor([0, 0, 1, 1, 1, 2]).repeat(2)
    u = centred(both, None, classes)
    loss, _ = ClassContrast(0.3, 1.0)(u, sources, classes)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-10)


@pytest.mark.parametrize("positives", ["pairs", "classes"])
@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_gradcheck(positives: str, alpha: float) -> None:
    z, sources, classes = views(d=3)
    centres = class_means(z, classes, 3)
    contrast = ClassContrast(0.4, alpha, positives)

    def total(z: Tensor) -> Tensor:
        loss, _ = contrast(centred(z, centres, classes), sources, classes)
        return loss + centring_loss(z, centres, classes)

    assert torch.autograd.gradcheck(total, (z.requires_grad_(),))


def pulls(alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient (N, N) by each pair's inner product, of axes as embeddings; sources and classes."""
    _, sources, classes = views((2, 3, 2))
    u = torch.eye(len(sources), dtype=torch.float64, requires_grad=True)
    ClassContrast(0.2, alpha)(u, sources, classes)[0].backward()
    assert u.grad is not None
    return u.grad, sources, classes


def test_views_of_a_class_repel_each_other_less_the_higher_alpha() -> None:
    forces = []
    for alpha in (1.0, 2.0, 8.0, 100.0):
        gradient, sources, classes = pulls(alpha)
        same = (classes[:, None] == classes) & (sources[:, None] != sources)
        assert (gradient[same] > 0).all()
        assert (gradient[classes[:, None] != classes] > 0).all()
        partner = (sources[:, None] == sources) & ~torch.eye(len(sources), dtype=torch.bool)
        assert (gradient[partner] < 0).all()
        forces.append(gradient[same].max().item())
    assert all(later < earlier for earlier, later in zip(forces, forces[1:], strict=False))
    assert forces[-1] < 0.02 * forces[0]


def test_without_end_they_do_not_repel_at_all() -> None:
    gradient, sources, classes = pulls(math.inf)
    same = (classes[:, None] == classes) & (sources[:, None] != sources)
    assert (gradient[same] == 0).all()
    assert (gradient[classes[:, None] != classes] > 0).all()
    limit, _, _ = pulls(1e9)
    torch.testing.assert_close(gradient, limit, rtol=0, atol=1e-8)


@pytest.mark.parametrize("positives", ["pairs", "classes"])
def test_order_of_views_does_not_count(positives: str) -> None:
    u, sources, classes = directions((3, 2, 4))
    contrast = ClassContrast(0.2, 2.0, positives)
    order = torch.from_numpy(np.random.default_rng(5).permutation(len(u)))
    first = contrast(u, sources, classes)[0]
    second = contrast(u[order], sources[order], classes[order])[0]
    assert first.item() == pytest.approx(second.item(), abs=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 100.0, math.inf])
def test_never_below_zero(alpha: float) -> None:
    """Also of embeddings that are learned perfectly, in float32."""
    for seed in range(20):
        u, sources, classes = directions((2, 3), d=3, seed=seed)
        assert ClassContrast(0.05, alpha)(u, sources, classes)[0] > 0
    _, sources, classes = views((2, 2))
    numbers = torch.unique(sources, return_inverse=True)[1]
    assert ClassContrast(0.01, alpha)(torch.eye(4)[numbers], sources, classes)[0] >= 0


def test_classes_draw_all_views_of_a_class_together() -> None:
    """Gradient steps, on embeddings that no network ties to each other."""
    cosines = {}
    for positives in ("pairs", "classes"):
        z, sources, classes = views((4, 4), d=6, dtype=torch.float32)
        z.requires_grad_()
        contrast = ClassContrast(0.2, 1.0, positives)
        optimiser = torch.optim.SGD([z], lr=5.0)
        for _ in range(400):
            optimiser.zero_grad()
            contrast(centred(z, None, classes), sources, classes)[0].backward()
            optimiser.step()
        u = centred(z.detach(), None, classes)
        same = (classes[:, None] == classes) & (sources[:, None] != sources)
        cosines[positives] = (u @ u.T)[same].mean().item()
    assert cosines["classes"] > 0.9 and cosines["pairs"] < 0.2


def test_centring_equals_loops() -> None:
    z, _, classes = views()
    centres = torch.randn(3, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    squared, expected = [], np.zeros((len(z), 5))
    for a, row in enumerate(z.numpy()):
        difference = row - centres[classes[a]].numpy()
        squared.append(sum(x * x for x in difference.tolist()))
        expected[a] = difference / max(math.sqrt(squared[-1]), 1e-6)
    assert centring_loss(z, centres, classes).item() == pytest.approx(np.mean(squared), abs=1e-10)
    np.testing.assert_allclose(centred(z, centres, classes), expected, rtol=0, atol=1e-12)
    plain = z.numpy() / np.linalg.norm(z.numpy(), axis=1, keepdims=True)
    np.testing.assert_allclose(centred(z, None, classes), plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_embedding_that_is_its_centre_has_no_direction(dtype: torch.dtype) -> None:
    z, sources, classes = views(dtype=dtype)
    centres = torch.zeros(3, 5, dtype=dtype)
    z[2] = 0
    z[3] = torch.tensor([3e-9, 4e-9, 0, 0, 0])
    z.requires_grad_()
    u = centred(z, centres, classes)
    assert (u[2] == 0).all()
    torch.testing.assert_close(u[3], z[3] / 1e-6)
    ClassContrast()(u, sources, classes)[0].backward()
    assert z.grad is not None and z.grad.isfinite().all()


def test_centres_get_no_gradient_that_is_not_asked_for() -> None:
    z, sources, classes = views()
    centres = class_means(z.requires_grad_(), classes, 3)
    assert not centres.requires_grad


def test_means_equal_numpy_and_constants_stay() -> None:
    z, _, classes = views(dtype=torch.float32)
    expected = [z.double().numpy()[classes.numpy() == n].mean(axis=0) for n in range(3)]
    found = class_means(z, classes, 3)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), np.array(expected).astype(np.float32))
    constant = torch.tensor([0.1, -1e20, 1 / 3]).expand(3001, 3)
    numbers = torch.arange(3001) % 4
    torch.testing.assert_close(class_means(constant, numbers, 4), constant[:4], rtol=0, atol=0)
    with pytest.raises(ValueError, match="without views have no mean: 3, 4"):
        class_means(z, classes, 5)


def test_random_centres_are_those_of_their_generator() -> None:
    first, second, other = (
        random_centres(4, 128, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(4))
    assert (first @ first.T - torch.eye(4)).abs().max() < 0.4


@pytest.mark.parametrize("count, dim", [(1, 1), (1, 8), (2, 1), (3, 2), (4, 3), (4, 128), (9, 8)])
def test_equidistant_centres_are_a_simplex(count: int, dim: int) -> None:
    centres = equidistant_centres(count, dim)
    assert centres.shape == (count, dim)
    lengths, dots = centres.norm(dim=1), centres @ centres.T
    torch.testing.assert_close(lengths, torch.ones(count))
    if count > 1:
        apart = dots[~torch.eye(count, dtype=torch.bool)]
        torch.testing.assert_close(apart, torch.full_like(apart, -1 / (count - 1)))
    with pytest.raises(ValueError, match="dimensions, not"):
        equidistant_centres(count + 2, count)


def test_autocast_leaves_it_in_float32() -> None:
    z, sources, classes = views((3, 3), dtype=torch.float32)
    centres, contrast = torch.ones(2, 5), ClassContrast()

    def losses(z: Tensor) -> list[Tensor]:
        u = centred(z, centres, classes)
        loss, terms = contrast(u, sources, classes)
        return [loss, *terms.values(), centring_loss(z, centres, classes)]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, from_half = losses(z), losses(z.bfloat16())
    assert all(value.dtype == torch.float32 for value in (*found, *from_half))
    assert all(map(torch.equal, found, losses(z)))
    assert all(map(torch.equal, from_half, losses(z.bfloat16().float())))


def test_a_low_temperature_stays_finite() -> None:
    u, sources, classes = directions(dtype=torch.float32)
    loss, _ = ClassContrast(1e-3, 2.0)(u.requires_grad_(), sources, classes)
    loss.backward()
    expected, _ = ClassContrast(1e-3, 2.0)(u.detach().double(), sources, classes)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert u.grad is not None and u.grad.isfinite().all()


@pytest.mark.parametrize(
    "sources, classes",
    [
        ([0, 0, 1], [0, 0, 0]),  # one view alone
        ([0, 0, 0, 1, 1], [0, 0, 0, 1, 1]),  # three
        ([0, 0, 0, 0], [0, 0, 0, 0]),  # four
        ([0, 0, 1, 1], [0, 1, 1, 1]),  # a pair of two classes
    ],
)
def test_a_source_has_two_views_of_one_class(sources: list[int], classes: list[int]) -> None:
    u = torch.eye(len(sources))
    with pytest.raises(ValueError, match="exactly two views, and these in one class"):
        ClassContrast()(u, torch.tensor(sources), torch.tensor(classes))


def test_a_class_of_one_view_has_no_positives() -> None:
    numbers = torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match="class of one view"):
        ClassContrast(positives="classes")(torch.eye(3), numbers, numbers)


@pytest.mark.parametrize("shapes", [((4,), (4,), (4,)), ((4, 2), (3,), (4,)), ((4, 2), (4,), (3,))])
def test_refuses_other_shapes(shapes: tuple[tuple[int, ...], ...]) -> None:
    u, sources, classes = shapes
    with pytest.raises(ValueError, match="a contrast needs"):
        ClassContrast()(torch.ones(u), torch.zeros(sources), torch.zeros(classes))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": 0.0}, "must be positive, not 0.0 and 1.0"),
        ({"alpha": -1.0}, "must be positive, not 0.2 and -1.0"),
        ({"positives": "images"}, "'pairs' or 'classes', not 'images'"),
    ],
)
def test_refuses_settings_without_meaning(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassContrast(**settings)
