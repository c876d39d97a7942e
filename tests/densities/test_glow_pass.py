"""The steps of the flow in one operation, against nflows, one step after another, and autograd."""

import runpy
from pathlib import Path

import pytest
import torch
from nflows.transforms import LULinear

from screener_nnu.densities import FlowDensity, glow_pass
from screener_nnu.densities.glow_pass import GlowMatrices

torch.set_num_threads(1)

_benchmark = runpy.run_path(
    str(Path(__file__).parents[1] / "benchmarks" / "benchmark_flow.py"), run_name="benchmark_flow"
)
stock_flow, same_flow = _benchmark["stock_flow"], _benchmark["same_flow"]
accuracy, log_prob = _benchmark["accuracy"], _benchmark["log_prob"]


def both(d, d_cond, steps, hidden):
    stock = stock_flow(d, d_cond, steps, hidden).double()
    return stock, same_flow(stock, d, d_cond, steps, hidden)


def vectors(count, d, d_cond, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    y = torch.randn(count, d, generator=generator, dtype=dtype)
    if d_cond == 0:
        return y, None
    return y, torch.randn(count, d_cond, generator=generator, dtype=dtype)


@pytest.mark.parametrize("d,d_cond,hidden", [(2, 0, 3), (5, 3, 7), (16, 16, 64), (32, 0, 128)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_values_and_gradients_equal_those_of_nflows(d, d_cond, hidden, checkpointing, monkeypatch):
    monkeypatch.setattr(glow_pass, "BLOCK_NUMBERS_ON_CPU", 1)
    monkeypatch.setattr(glow_pass, "SHORTEST_BLOCK", 37)
    stock, ours = both(d, d_cond, 4, hidden)
    ours.checkpointing = checkpointing
    inputs = [v for v in vectors(101, d, d_cond) if v is not None]
    weights = torch.randn(101, dtype=torch.float64)
    values, gradients = [], []
    for evaluate in (stock.log_prob, lambda y, c=None: log_prob(ours, y, c)):
        leaves = [v.clone().requires_grad_() for v in inputs]
        values.append(evaluate(*leaves))
        (values[-1] * weights).sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(values[1], values[0], rtol=1e-9, atol=0)
    for theirs, mine in _benchmark["counterparts"](stock, ours):
        gradients[0].append(theirs.grad)
        gradients[1].append(mine.grad)
    for linear, log_diagonal in _benchmark["diagonals"](stock, ours):
        slope = torch.sigmoid(linear.unconstrained_upper_diag) / linear.upper_diag
        gradients[0].append(linear.unconstrained_upper_diag.grad)
        gradients[1].append(log_diagonal.grad * slope)
    assert len(gradients[0]) == len(inputs) + len(list(ours.parameters()))
    for expected, actual in zip(*gradients, strict=True):
        size = expected.abs().max().item()
        assert size > 0
        torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8 * size)


@torch.no_grad()
@pytest.mark.parametrize("d,d_cond", [(4, 3), (5, 0)])
def test_nflows_takes_the_vectors_back(d, d_cond):
    stock, ours = both(d, d_cond, 4, 8)
    y, c = vectors(20, d, d_cond)
    z, logabsdet = ours.encode(y, c)
    assert (z - y).abs().max() > 0.1
    for layer in stock._transform._transforms:
        if isinstance(layer, LULinear):
            layer.bias = torch.nn.Parameter(
                torch.zeros(d, dtype=y.dtype)
            )  # its inverse asks for it
    back, inverse = stock._transform.inverse(z, c)
    torch.testing.assert_close(back, y, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(inverse, -logabsdet)
    # The other way round: every vector is reached.
    torch.testing.assert_close(ours.encode(stock._transform.inverse(y, c)[0], c)[0], y)


@pytest.mark.parametrize(
    "d,d_cond,hidden,steps", [(16, 16, 64, 8), (32, 0, 128, 16), (8, 4, 16, 64)]
)
def test_float32_is_no_further_from_float64_than_nflows(d, d_cond, hidden, steps):
    stock, ours = both(d, d_cond, steps, hidden)
    y, c = vectors(4001, d, d_cond, torch.float32)
    difference, their_error, our_error = accuracy(stock, ours, y, c)
    assert difference < 1e-9
    # Errors of two orders of summation differ by chance; a lost digit would be a factor of ten.
    assert 0 < our_error < 1.25 * their_error


@pytest.mark.parametrize("count", [0, 1, 2, 97, 1024, 1031])
@pytest.mark.parametrize("d,d_cond", [(4, 3), (5, 0)])
def test_equals_one_step_after_another_for_any_number_of_voxels(count, d, d_cond):
    torch.manual_seed(0)
    density = FlowDensity(d, d_cond, steps=3, hidden=8).double()
    with torch.no_grad():
        for parameter in density.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    y, c = vectors(count, d, d_cond)
    z, logabsdet = density.encode(y, c)
    expected, total = y, 0.0
    for step in density.steps:
        expected, change = step(expected, c)
        total = total + change
    assert z.shape == (count, d) and logabsdet.shape == (count,)
    torch.testing.assert_close(z, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(logabsdet, total, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        again = density.encode(y, c)
    assert torch.equal(again[0], z) and torch.equal(again[1], logabsdet)


def test_blocks_cover_every_voxel_once(monkeypatch):
    monkeypatch.setattr(glow_pass, "BLOCK_NUMBERS_ON_CPU", 1)
    torch.manual_seed(0)
    density = FlowDensity(4, 2, steps=2, hidden=8).double()
    y, c = vectors(211, 4, 2)
    expected, gradients = density.encode(y, c), []
    for shortest in (1024, 64, 10, 1):
        monkeypatch.setattr(glow_pass, "SHORTEST_BLOCK", shortest)
        z, logabsdet = density.encode(y, c)
        torch.testing.assert_close((z, logabsdet), expected, rtol=1e-12, atol=1e-12)
        loss = (z.sin().sum(dim=1) * logabsdet).sum()
        gradients.append(torch.autograd.grad(loss, list(density.parameters())))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("d_cond", [0, 2])
def test_gradcheck(recompute, d_cond, monkeypatch):
    monkeypatch.setattr(glow_pass, "BLOCK_NUMBERS_ON_CPU", 1)
    monkeypatch.setattr(glow_pass, "SHORTEST_BLOCK", 3)
    generator = torch.Generator().manual_seed(2)
    steps, hidden, kept, changed = 2, 4, 2, 1
    d, start = kept + changed, 1 + d_cond
    sizes = [(d, 5), (d_cond, 5), (steps, d, start + d), (steps, hidden, start + kept)]
    sizes += [(steps, hidden, 1 + hidden), (steps, 2 * changed, 1 + hidden)]
    y, c, *stacks = (
        torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True)
        for size in sizes
    )

    def run(y, c, *stacks):
        return glow_pass.glow_pass(y, c if d_cond else None, GlowMatrices(*stacks), recompute)

    assert torch.autograd.gradcheck(run, (y, c, *stacks))


def test_scale_too_small_for_its_logarithm_stays_finite():
    density = FlowDensity(4, 0, steps=1, hidden=8)
    with torch.no_grad():
        density.steps[0].layers()[2].transform_net.layers[4].bias[2:] = -150
    y, _ = vectors(7, 4, 0, torch.float32)
    _, logabsdet = density.encode(y)
    torch.testing.assert_close(logabsdet, torch.full((7,), -296.0), rtol=1e-5, atol=0)
    gradients = torch.autograd.grad(logabsdet.sum(), list(density.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_compiles():
    density = FlowDensity(4, 2, steps=2, hidden=8).double()
    y, c = (v.T[None, :, :, None, None] for v in vectors(11, 4, 2))
    compiled = torch.compile(density, backend="eager")
    torch.testing.assert_close(compiled(y, c), density(y, c))
    compiled(y, c).mean().backward()
    assert all(parameter.grad is not None for parameter in density.parameters())
