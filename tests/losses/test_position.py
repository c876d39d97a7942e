"""The loss on positions against loops over voxels, its gradients and its scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from screener_nnu.losses.position import PositionLoss, distance_errors, number_of_pairs

torch.set_num_threads(1)


def voxels(first: int, second: int, shared: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Embeddings and places (mm) of two crops; the first `shared` places are the same."""
    generator = torch.Generator().manual_seed(seed)

    def some(count: int) -> torch.Tensor:
        return 200 * torch.rand(count, 3, generator=generator, dtype=torch.float64)

    places = some(first), some(second)
    places[1][:shared] = places[0][:shared]
    return some(first), some(second), *places


def loops(
    first: np.ndarray,
    second: np.ndarray,
    first_mm: np.ndarray,
    second_mm: np.ndarray,
    shared: int,
    unit: float,
) -> tuple[float, float]:
    """The two terms, pair by pair."""
    embedded, places = [*first, *second], [*first_mm, *second_mm]
    count, distance = len(embedded), 0.0
    for a in range(count):
        for b in range(count):
            if a != b:
                found = math.dist(embedded[a], embedded[b])
                distance += ((found - math.dist(places[a], places[b])) / unit) ** 2
    invariance = sum((math.dist(first[s], second[s]) / unit) ** 2 for s in range(shared))
    return distance / (count * (count - 1)), invariance / max(shared, 1)


@pytest.mark.parametrize(
    ("first", "second", "shared"), [(7, 5, 3), (4, 4, 4), (6, 2, 0), (1, 1, 1)]
)
@pytest.mark.parametrize(("unit", "weight"), [(100.0, 1.0), (30.0, 2.5)])
def test_loss_equals_loops(
    first: int, second: int, shared: int, unit: float, weight: float
) -> None:
    values = voxels(first, second, shared)
    loss, terms = PositionLoss(unit, weight)(*values, shared)
    distance, invariance = loops(*(v.numpy() for v in values), shared, unit)  # type: ignore[arg-type]
    assert float(terms["distance"]) == pytest.approx(distance, rel=1e-9)
    assert float(terms["invariance"]) == pytest.approx(invariance, rel=1e-9)
    assert float(loss) == pytest.approx(distance + weight * invariance, rel=1e-9)
    assert not any(term.requires_grad for term in terms.values())


def test_gradients_are_those_of_finite_differences() -> None:
    first, second, *places = voxels(4, 3, 2, seed=1)
    inputs = (first.requires_grad_(), second.requires_grad_())
    loss = PositionLoss(invariance_weight=1.5)
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, *places, 2)[0], inputs)


def test_a_turned_and_mirrored_body_costs_nothing() -> None:
    """Only distances count: any frame will do, as long as both crops use the same."""
    _, _, first_mm, second_mm = voxels(8, 6, 3)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    moved = [900 + p @ turn for p in (first_mm, second_mm)]
    loss, _ = PositionLoss()(*moved, first_mm, second_mm, 3)
    assert float(loss) < 1e-20
    other, terms = PositionLoss()(moved[0], moved[1] + 50, first_mm, second_mm, 3)
    # 50 mm along each axis, in units of 100 mm: 3 / 4 a voxel.
    assert float(terms["invariance"]) == pytest.approx(0.75)
    assert float(other) > 0.75


def test_coinciding_embeddings_have_finite_gradients() -> None:
    places = 100 * torch.rand(5, 3)
    embedded = torch.zeros(5, 3, requires_grad=True)
    loss, _ = PositionLoss()(embedded, embedded, places, places, 5)
    loss.backward()
    assert embedded.grad is not None and torch.isfinite(embedded.grad).all()
    # All at one place: the error is the distance itself.
    distances = torch.pdist(torch.cat([places, places])) / 100
    assert float(loss.detach()) == pytest.approx(float(distances.square().mean()), rel=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_voxels_cost_nothing(count: int) -> None:
    nothing, some = torch.zeros(0, 3), torch.rand(count, 3, requires_grad=True)
    loss, _ = PositionLoss()(some, nothing, torch.rand(count, 3), nothing, 0)
    loss.backward()
    assert float(loss.detach()) == 0


def test_half_precision_is_summed_in_float32() -> None:
    places = 100 * torch.rand(50, 3, generator=torch.Generator().manual_seed(3))
    low = (1000 + places).bfloat16()
    errors = distance_errors(low, places)
    assert errors.dtype == torch.float32
    torch.testing.assert_close(errors, distance_errors(low.float(), places))


def test_errors_are_symmetric_and_signed() -> None:
    places = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 12.0]])
    errors = distance_errors(2 * places, places)
    expected = torch.tensor([[0.0, 5.0, 12.0], [5.0, 0.0, 13.0], [12.0, 13.0, 0.0]])
    torch.testing.assert_close(errors, expected)
    assert number_of_pairs(errors) == 6


def test_places_of_another_number_of_voxels_are_refused() -> None:
    first, second, first_mm, second_mm = voxels(4, 3, 2)
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(3, 3\) need places"):
        PositionLoss()(first, second, second_mm, first_mm, 2)
