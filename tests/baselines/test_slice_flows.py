"""Flows of slices: exact inverse, exact determinant, what is restored, and what slices become."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from screener_nnu.baselines.base import build_method
from screener_nnu.baselines.cflow import draw_marked
from screener_nnu.baselines.slice_flows import body_positions, place_code
from screener_nnu.baselines.window import unscale
from screener_nnu.networks.map_flows import ChannelNorm, MultiScaleFlow, clamped
from tests.baselines.made_plans import PICTURE, VOLUME, method_plan

SIDES = (4, 2, 1)


def flow(widths: tuple[int, ...] = (4, 4, 4), double: bool = True) -> MultiScaleFlow:
    """One whose couplings are no identity any more."""
    torch.manual_seed(0)
    made = MultiScaleFlow(widths, (1, 2, 1), context=4)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.double() if double else made


def inputs(widths: tuple[int, ...] = (4, 4, 4)) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    drawn = torch.Generator().manual_seed(1)
    maps = [
        torch.randn(2, width, side, side, generator=drawn, dtype=torch.float64)
        for width, side in zip(widths, SIDES, strict=True)
    ]
    codes = [place_code(side, side, 4, torch.device("cpu")).double() for side in SIDES]
    return maps, [code.expand(2, -1, -1, -1) for code in codes]


@pytest.mark.parametrize("widths", [(4, 4, 4), (3, 5, 8)])
def test_the_way_back(widths: tuple[int, ...]) -> None:
    made, (maps, codes) = flow(widths), inputs(widths)
    with torch.no_grad():
        z, _ = made(maps, codes)
        back = made.inverse(z, codes)
    assert all(a.shape == b.shape for a, b in zip(z, maps, strict=True))
    for found, expected in zip(back, maps, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_determinant_is_that_of_autograd() -> None:
    made, (maps, codes) = flow(), inputs()
    maps, codes = [one[:1] for one in maps], [one[:1] for one in codes]
    sizes = [one.numel() for one in maps]

    def joined(vector: torch.Tensor) -> torch.Tensor:
        parts = [p.view_as(m) for p, m in zip(vector.split(sizes), maps, strict=True)]
        return torch.cat([one.flatten() for one in made(parts, codes)[0]])

    jacobian: Any = torch.autograd.functional.jacobian(
        joined, torch.cat([m.flatten() for m in maps])
    )
    expected = torch.linalg.slogdet(jacobian).logabsdet
    with torch.no_grad():
        found = made(maps, codes)[1]
    torch.testing.assert_close(found[0], expected, rtol=1e-8, atol=1e-8)


def test_permutations_are_restored() -> None:
    made, (maps, codes) = flow(), inputs()
    torch.manual_seed(99)
    other = MultiScaleFlow((4, 4, 4), (1, 2, 1), context=4).double()
    other.load_state_dict(made.state_dict())
    with torch.no_grad():
        for a, b in zip(made(maps, codes)[0], other(maps, codes)[0], strict=True):
            assert torch.equal(a, b)


def test_log_scales_are_bounded_and_near_zero_as_they_are() -> None:
    values = torch.tensor([-1e6, -1e-3, 0.0, 1e-3, 1e6])
    expected = torch.tensor([-1.9, -6.366e-4, 0.0, 6.366e-4, 1.9])
    torch.testing.assert_close(clamped(values), expected, rtol=1e-3, atol=1e-6)


def test_normalisation_is_over_channels_of_each_position() -> None:
    maps = torch.randn(2, 6, 3, 5)
    found = ChannelNorm(6)(maps)
    mean, std = maps.mean(1, keepdim=True), maps.std(1, keepdim=True, correction=0)
    torch.testing.assert_close(found, (maps - mean) / (std.square() + 1e-5).sqrt())


@pytest.mark.parametrize("name", ["msflow", "cflow"])
def test_a_place_is_coded_the_same_way_whatever_the_slice(name: str) -> None:
    method = build_method(method_plan(VOLUME, name)).eval()
    images = torch.full((1, 1, *method.size), 0.2)
    with torch.no_grad():
        method.start_from(torch.rand(2, 1, *method.size) * 2 - 1, torch.ones(2, 1, *method.size))
        scores = method.score(images)
    # Every slice is the same picture.
    torch.testing.assert_close(scores[0, :1].expand_as(scores[0]), scores[0], rtol=1e-4, atol=1e-4)


def halves(method: Any, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose left half lies in the body."""
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, *method.size, generator=drawn) * 2 - 1
    bodies = torch.zeros(images.shape, dtype=torch.bool)
    bodies[..., : images.shape[4] // 2] = True
    return images, bodies


def test_positions_count_where_more_than_half_lies_in_the_body() -> None:
    bodies = torch.zeros(1, 1, 2, 4, 8, dtype=torch.bool)
    bodies[:, :, 0, :, :3] = True
    maps = [torch.zeros(2, 1, 2, 4), torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 1, 1)]
    fine, coarse, whole = body_positions(bodies, maps)
    assert fine.tolist() == [[[True, False, False, False]] * 2, [[False] * 4] * 2]
    assert coarse.tolist() == [[[True, False]], [[False, False]]]
    assert whole.all()  # where nothing lies in the body, all count


@pytest.mark.parametrize("positions", [0, 64])
def test_places_in_air_are_not_learned(positions: int) -> None:
    own = f"baseline.options.positions={positions}"
    method: Any = build_method(method_plan(VOLUME, "cflow", [own]))
    images, bodies = halves(method, 2)
    method.start_from(images, bodies)
    with torch.no_grad():
        energies = method.energies(method.maps(images))
        parts = [one[..., : one.shape[2] // 2].flatten() for one in energies]
        found = method(images, bodies, torch.Generator().manual_seed(0), 0, 1)["NLL"]
    if positions:
        few = [torch.stack([part.min(), part.max()]) for part in parts]
        low, high = torch.stack(few).mean(0)
        assert low < found < high
    else:
        torch.testing.assert_close(found, torch.stack([part.mean() for part in parts]).mean())


def test_marked_places_are_drawn_alike_often() -> None:
    marked = torch.tensor([False, True, False, False, True, True, False])
    drawn = draw_marked(marked, 3000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=7)
    assert not counts[~marked].any()
    assert (counts[marked] - 1000).abs().max() < 120


def test_first_values_standardise_the_features() -> None:
    method: Any = build_method(method_plan(VOLUME, "msflow"))
    images, bodies = halves(method, 3)
    method.start_from(images, bodies)
    for maps in method.maps(images):
        # Of the left half of each map, which lies in the body.
        values = maps[..., : maps.shape[3] // 2].movedim(1, 0).flatten(1)
        torch.testing.assert_close(values.mean(1), torch.zeros(len(values)), atol=1e-3, rtol=0)
        moving = values.std(1) > 0.5  # a channel that is the same everywhere stays so
        torch.testing.assert_close(
            values[moving].std(1), torch.ones(int(moving.sum())), atol=0.02, rtol=0
        )
        assert moving.float().mean() > 0.5


def test_colours_of_ct_are_three_windows_and_pictures_stay_as_they_are() -> None:
    method: Any = build_method(method_plan(VOLUME, "msflow"))
    hu = unscale(torch.tensor([[[[-1.0, -0.5, 0.4, 1.0]]]]), method.window)
    shown = method._coloured(torch.tensor([[[[-1.0, -0.5, 0.4, 1.0]]]]))
    for number, (low, high) in enumerate(((-1000, 300), (-160, 240), (-50, 150))):
        torch.testing.assert_close(shown[:, number], ((hu[:, 0] - low) / (high - low)).clamp(0, 1))
    grey: Any = build_method(method_plan(PICTURE, "msflow"))
    picture = torch.rand(2, 1, 3, 4) * 2 - 1
    assert torch.equal(grey._coloured(picture), ((picture + 1) / 2).expand(-1, 3, -1, -1))
    colours = torch.rand(2, 3, 3, 4) * 2 - 1
    assert torch.equal(grey._coloured(colours), (colours + 1) / 2)


@pytest.mark.parametrize("name", ["msflow", "cflow"])
def test_an_image_gets_more_likely(name: str) -> None:
    method = build_method(method_plan(PICTURE, name)).train()
    images = torch.rand(2, 1, *method.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    method.start_from(images, torch.ones_like(images))
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=5e-3)
    values = []
    for step in range(25):
        optimiser.zero_grad()
        generator = torch.Generator().manual_seed(step)
        loss = method(images, torch.ones_like(images) > 0, generator, step, 25)["NLL"]
        loss.backward()
        nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0] - 0.05
