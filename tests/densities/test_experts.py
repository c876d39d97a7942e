"""Two experts: what each learns, how their scores add up, and the channels that they see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from screener_nnu.densities import FlowDensity, StandardisedDensity
from screener_nnu.densities.experts import ExpertsDensity
from screener_nnu.descriptors.filters import FilterBank
from screener_nnu.descriptors.with_filters import FiltersOfEqualised, filter_channels
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.metrics import weighted_auroc
from screener_nnu.planners.fingerprint import first_settings
from screener_nnu.plans import DensitySettings, OptimiserSettings
from screener_nnu.preprocessing.equalise import equalise

_FLOW = {"steps": 2, "hidden": 16}


def maps(count: int, seed: int, channels: int = 7, conditions: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, 1)
    c = torch.randn(1, conditions, *shape, generator=generator)
    y = torch.randn(1, channels, *shape, generator=generator)
    return y + c.repeat(1, 4, 1, 1, 1)[:, :channels], c


def test_experts_are_two_flows_that_learn_apart() -> None:
    torch.manual_seed(0)
    experts = ExpertsDensity(7, 2, filters=3, **_FLOW)
    alone = FlowDensity(4, 2, **_FLOW), FlowDensity(3, 2, **_FLOW)
    y, c = maps(500, 0)
    experts.initialise(y, c)
    for flow, own in zip(alone, (experts.learned, experts.made), strict=True):
        flow.load_state_dict(own.state_dict())
    expected = alone[0].log_prob(y[:, :4], c) + alone[1].log_prob(y[:, 4:], c)
    found = experts.train().log_prob(y, c)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    for flow, own in zip(alone, (experts.learned, experts.made), strict=True):
        for one, other in zip(flow.parameters(), own.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad)


def test_both_experts_have_the_same_say() -> None:
    """A score ranks as the sum of standardised ones does."""
    torch.manual_seed(0)
    density = StandardisedDensity(ExpertsDensity(7, 2, filters=3, **_FLOW), noise=0.1)
    y, c = maps(4000, 1)
    y[:, 4:] *= 100  # units do not matter
    density.accumulate(y, c)
    density.finish_statistics()
    density.initialise(y, c)
    density.eval().settle(y, c)
    each = density.density.each(*density._standardised(y, c, False, None))
    scale = each[0].std()
    expected = scale * sum((v - v.mean()) / v.std() for v in each)
    found = density.log_prob(y, c)
    torch.testing.assert_close(found - found.mean(), expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found, each[0] + scale / each[1].std() * each[1])
    # Kept with the weights.
    again = StandardisedDensity(ExpertsDensity(7, 2, filters=3, **_FLOW), noise=0.1).eval()
    again.load_state_dict(density.state_dict())
    torch.testing.assert_close(again.log_prob(y, c), density.log_prob(y, c))


def test_what_either_expert_sees_is_found() -> None:
    """Anomalies of few voxels in channels of one expert, among many channels of the other."""
    torch.manual_seed(0)
    experts = ExpertsDensity(22, 0, filters=2, steps=2, hidden=16)
    y = torch.randn(1, 22, 4000, 1, 1)
    y[:, 20:] = y[:, 20:].abs().sqrt()
    experts.initialise(y)
    optimiser = torch.optim.Adam(experts.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        (-experts.train().log_prob(y)).mean().backward()
        optimiser.step()
    experts.eval().settle(y, None)
    odd = torch.randn(1, 22, 2000, 1, 1)
    odd[:, 20:] = odd[:, 20:].abs().sqrt() + 0.8
    with torch.no_grad():
        both, joint = [
            torch.cat([-of(m).flatten() for m in (y, odd)]).double().numpy()
            for of in (experts.log_prob, lambda m: sum(experts.each(m, None)))
        ]
    label = np.repeat([0.0, 1.0], [4000, 2000])
    aurocs = [weighted_auroc(s, label, 1 - label) for s in (both, joint)]
    assert aurocs[0] > 0.8 and aurocs[0] > aurocs[1]


def test_a_plan_says_where_the_filters_begin() -> None:
    base = DensitySettings(OptimiserSettings(4, 2, 1), (1, 1, 1), (8, 8, 8))
    settings = replace(base, kind="experts", flow_steps=2, hidden=8)
    assert filter_channels({}) == 14
    made = ExpertsDensity.of_plan(16 + 14, 3, settings)
    assert made.sizes == (16, 14) and len(made.learned.steps) == 2
    # What a file has to hold before as much is built.
    for density in (made, FlowDensity.of_plan(16, 3, replace(settings, kind="flow"))):
        flows = 2 if density is made else 1
        least = density.least_numbers(settings)
        assert least == flows * 2 * 8**2 < sum(p.numel() for p in density.parameters())
    shorter = replace(settings, descriptor_options={"sigmas": [1.0], "variance_sigmas": []})
    assert ExpertsDensity.of_plan(20, 0, shorter).sizes == (16, 4)
    with pytest.raises(ScreenerError, match="has 1 that were learned and 14 of filters"):
        ExpertsDensity.of_plan(15, 0, settings)
    for name in ("levels", "imagenet", "filters"):
        with pytest.raises(ScreenerError, match=f"'{name}': add -o density.kind=flow"):
            ExpertsDensity.options(replace(settings, descriptor=name))


@pytest.mark.parametrize("equalisation", ["none", "adaptive"])
def test_filters_of_the_equalised_image_are_those_of_hu(equalisation: str) -> None:
    """Where equalisation is a window alone; else they are two windows of the levels."""
    settings = replace(first_settings("ct", 1.0), equalisation=equalisation)
    rng = np.random.default_rng(0)
    hu = torch.from_numpy(rng.uniform(-1200, 700, size=(1, 1, 9, 12, 11))).float()
    seen = torch.from_numpy(equalise(hu[0, 0].numpy(), settings))[None, None]
    of_hu, of_seen = FilterBank((0.8,), (1.6,)), FiltersOfEqualised((0.8,), (1.6,))
    for bank in (of_hu, of_seen):
        bank.check_images(settings)
    assert of_seen.reads == "equalised" and of_seen.channels == 6 == of_seen(seen).shape[1]
    if equalisation == "none":
        torch.testing.assert_close(of_seen(seen), of_hu(hu), atol=1e-4, rtol=1e-3)
    else:
        torch.testing.assert_close(of_seen(seen)[:, 0], seen[:, 0])
