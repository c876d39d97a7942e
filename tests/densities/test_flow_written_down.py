"""The flow in plain operations, which a tracer writes down, is the flow."""

from __future__ import annotations

import pytest
import torch

from screener_nnu.densities.flow import FlowDensity
from screener_nnu.densities.glow import stacked_matrices
from screener_nnu.densities.glow_pass import glow_pass, plain_glow_pass


@pytest.mark.parametrize(("dim", "cond"), [(2, 0), (5, 3), (8, 24)])
def test_plain_pass_is_the_pass(dim: int, cond: int) -> None:
    flow = FlowDensity(dim, cond, steps=3, hidden=16).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in flow.parameters():
            value += 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    y = torch.randn(dim, 300, generator=generator, dtype=torch.float64)
    c = torch.randn(cond, 300, generator=generator, dtype=torch.float64) if cond else None
    matrices, _ = stacked_matrices(list(flow.steps))  # type: ignore[arg-type]
    found, expected = plain_glow_pass(y, c, matrices), glow_pass(y, c, matrices, recompute=False)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert expected[1].std() > 0.01


def test_traced_density_gives_the_same() -> None:
    flow = FlowDensity(4, 2, steps=2, hidden=8)
    y, c = torch.randn(2, 4, 3, 2, 5), torch.randn(2, 2, 3, 2, 5)
    with torch.no_grad():
        for value in flow.parameters():
            value += 0.1 * torch.randn(value.shape)
    program = torch.export.export(flow, (y, c))
    torch.testing.assert_close(program.module()(y, c), flow(y, c))
