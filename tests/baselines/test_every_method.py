"""What every method of another group has to do, on volumes and on pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from screener_nnu.baselines import METHODS, OPTIONS, image_size, method_class
from screener_nnu.baselines.base import build_method
from screener_nnu.detectors import DETECTORS, OTHER_METHODS
from screener_nnu.errors import ScreenerError
from screener_nnu.planners.settings_check import check_settings
from tests.baselines.made_plans import PICTURE, VOLUME, method_plan

EVERY = pytest.mark.parametrize("name", METHODS)
BOTH = pytest.mark.parametrize("kind", [VOLUME, PICTURE])
STEPS = 10


def batch(plan: Any, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    size = image_size(plan)
    drawn = torch.Generator().manual_seed(3)
    images = torch.rand(count, plan.channels, *size, generator=drawn) * 2 - 1
    bodies = torch.ones(count, 1, *size, dtype=torch.bool)
    bodies[..., :3] = False
    return images, bodies


def losses(method: Any, plan: Any, step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    found: dict[str, torch.Tensor] = method(*batch(plan), generator, step, STEPS)
    return found


def test_every_method_has_a_detector() -> None:
    assert list(METHODS) == list(OTHER_METHODS)
    for name in METHODS:
        assert f"baseline.method={name}" in DETECTORS[name].overrides


@EVERY
@BOTH
def test_every_parameter_learns(name: str, kind: str) -> None:
    plan = method_plan(kind, name)
    check_settings(plan)
    method = build_method(plan).train()
    trained = {key for key, value in method.named_parameters() if value.requires_grad}
    parts = {part: list(values) for part, values in method.parts(STEPS).items()}
    known = {id(value) for values in parts.values() for value in values}
    assert not parts or known == {id(p) for p in method.parameters() if p.requires_grad}
    reached = set()
    for step in range(STEPS):
        method.zero_grad(set_to_none=True)
        own = parts.get(method.part_of(step, STEPS)) if parts else list(method.parameters())
        for parameter in method.parameters():
            parameter.requires_grad_(any(parameter is one for one in own))
        if not parts:
            for key, value in method.named_parameters():
                value.requires_grad_(key in trained)
        found = losses(method, plan, step)
        assert found and all(v.ndim == 0 and v.dtype == torch.float32 for v in found.values())
        total = torch.stack(list(found.values())).sum()
        assert torch.isfinite(total)
        total.backward()
        reached |= {k for k, v in method.named_parameters() if v.grad is not None}
    assert reached == trained


@EVERY
@BOTH
def test_scores_and_losses_are_functions_of_their_input(name: str, kind: str) -> None:
    plan = method_plan(kind, name)
    one, other = build_method(plan), build_method(plan)
    torch.manual_seed(11)
    first = losses(one.train(), plan, 0)
    torch.manual_seed(12)
    second = losses(other.train(), plan, 0)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    other.load_state_dict(one.state_dict())
    images, _ = batch(plan)
    with torch.no_grad():
        scores, again = one.eval().score(images), other.eval().score(images)
        single = one.score(images[1:])
    assert scores.shape == (2, *one.size) and torch.isfinite(scores).all()
    torch.testing.assert_close(scores, again, rtol=0, atol=0)
    torch.testing.assert_close(scores[1:], single, rtol=1e-3, atol=1e-4)
    assert scores.std() > 0


@EVERY
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(ScreenerError, match="screener.baseline.options"):
        method_class(name).options({"nonsense": 1}, OPTIONS)


def test_an_unknown_method_is_refused_with_the_known_ones(world: Any) -> None:
    with pytest.raises(ScreenerError, match="no baseline.method 'oracle'; known: autoencoder"):
        check_settings(world.plan("baseline.method=oracle"))
