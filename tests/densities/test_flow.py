"""FlowDensity against NumPy, numerical integration and autograd."""

import copy

import numpy as np
import pytest
import torch

from screener_nnu.densities import FlowDensity, build_density
from screener_nnu.densities.glow import PLULinear
from screener_nnu.errors import ScreenerError

torch.set_num_threads(1)


def maps(d, d_cond, shape=(2, 3, 4, 5), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    batch, *space = shape
    y = 1.5 * torch.randn(batch, d, *space, generator=generator, dtype=dtype) + 0.7
    if d_cond == 0:
        return y, None
    return y, torch.randn(batch, d_cond, *space, generator=generator, dtype=dtype)


def perturbed(density, scale=0.3, seed=1):
    """The flow in float64 with no parameter left at its start."""
    generator = torch.Generator().manual_seed(seed)
    density = density.double()
    with torch.no_grad():
        for parameter in density.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter += scale * noise
    return density


def by_hand(density, y, c):
    """log q of one vector in NumPy, from the parameters and buffers of the flow."""
    state = {k: v.numpy() for k, v in density.state_dict().items()}
    d, log_density = len(y), 0.0
    for step in range(len(density.steps)):
        names = f"steps.{step}._transforms."
        act, plu, net = names + "0.", names + "1.", names + "2.transform_net.layers."
        y = np.exp(state[act + "log_scale"]) * y + state[act + "shift"]
        log_density += state[act + "log_scale"].sum()
        if c is not None:
            y = y + state[act + "context_shift.weight"] @ c

        lower, upper, permutation = np.eye(d), np.zeros((d, d)), np.zeros((d, d))
        lower[np.tril_indices(d, -1)] = state[plu + "lower_entries"]
        upper[np.triu_indices(d, 1)] = state[plu + "upper_entries"]
        upper += np.diag(state[plu + "signs"] * np.exp(state[plu + "log_diagonal"]))
        permutation[np.arange(d), state[plu + "permutation"]] = 1
        weight = permutation @ lower @ upper
        y = weight @ y
        log_density += np.linalg.slogdet(weight)[1]

        kept = d - d // 2
        hidden = y[:kept] if c is None else np.concatenate([y[:kept], c])
        for layer in (0, 2):
            hidden = state[net + f"{layer}.weight"] @ hidden + state[net + f"{layer}.bias"]
            hidden = np.maximum(hidden, 0)
        out = state[net + "4.weight"] @ hidden + state[net + "4.bias"]
        scale = 1 / (1 + np.exp(-(out[d // 2 :] + 2)))
        y = np.concatenate([y[:kept], y[kept:] * scale + out[: d // 2]])
        log_density += np.log(scale).sum()
    return log_density - 0.5 * (y @ y) - 0.5 * d * np.log(2 * np.pi)


@pytest.mark.parametrize("d", [2, 3, 6])
@pytest.mark.parametrize("d_cond", [0, 2])
def test_equals_numpy(d, d_cond):
    density = perturbed(FlowDensity(d, d_cond, steps=3, hidden=5))
    y, c = maps(d, d_cond)
    actual = density.log_prob(y, c).detach().numpy()
    assert actual.shape == (2, 3, 4, 5)
    for b, z, i, j in np.ndindex(*actual.shape):
        vector = None if c is None else c[b, :, z, i, j].numpy()
        expected = by_hand(density, y[b, :, z, i, j].numpy(), vector)
        assert actual[b, z, i, j] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("condition", [None, (0.0, 0.0), (1.0, -2.0), (-1.5, 0.5)])
def test_integrates_to_one(condition):
    density = perturbed(FlowDensity(2, 0 if condition is None else 2, steps=3, hidden=8), 0.2)
    edge, points = 25.0, 801
    axis = torch.linspace(-edge, edge, points, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).view(1, 2, 1, points, points)
    c = None
    if condition is not None:
        c = torch.tensor(condition, dtype=torch.float64).view(1, 2, 1, 1, 1).expand_as(grid)
    with torch.no_grad():
        mass = density.log_prob(grid, c).exp().sum() * (2 * edge / (points - 1)) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("d,d_cond", [(4, 3), (5, 0)])
def test_log_determinant_equals_that_of_the_jacobian(d, d_cond):
    density = perturbed(FlowDensity(d, d_cond, steps=3, hidden=8))
    y = torch.randn(3, d, dtype=torch.float64)
    c = torch.randn(3, d_cond, dtype=torch.float64) if d_cond else None
    _, logabsdet = density.encode(y, c)
    for n in range(len(y)):
        row = None if c is None else c[n : n + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda v, row=row: density.encode(v[None], row)[0][0], y[n]
        )
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(logabsdet[n].item())


@pytest.mark.parametrize("features", [1, 2, 7, 32])
def test_linear_starts_orthogonal_and_keeps_a_cheap_determinant(features):
    linear = PLULinear(features)
    weight = linear.weight().double()
    torch.testing.assert_close(
        weight @ weight.T, torch.eye(features, dtype=torch.float64), atol=1e-5, rtol=0
    )
    linear = perturbed(linear)
    x = torch.randn(5, features, dtype=torch.float64)
    y, logabsdet = linear(x)
    torch.testing.assert_close(y, x @ linear.weight().T)
    expected = torch.linalg.slogdet(linear.weight())[1].expand(5)
    torch.testing.assert_close(logabsdet, expected)


@pytest.mark.parametrize("d_cond", [0, 2])
@pytest.mark.parametrize("training", [True, False])
def test_initialise_normalises_every_step_in_turn(d_cond, training):
    density = FlowDensity(4, d_cond, steps=3, hidden=8).double().train(training)
    y, c = maps(4, d_cond)
    y = y * torch.tensor([0.1, 1, 10, 100], dtype=y.dtype).view(1, -1, 1, 1, 1)
    density.initialise(y, c)
    vectors, context = (None if m is None else m.movedim(1, -1).flatten(0, 3) for m in (y, c))
    for step in density.steps:
        outputs, _ = step.layers()[0](vectors, context)
        torch.testing.assert_close(outputs.mean(0), torch.zeros(4).double(), atol=1e-9, rtol=0)
        torch.testing.assert_close(outputs.std(0, correction=0), torch.ones(4).double())
        vectors, _ = step(vectors, context)


def test_only_initialise_takes_values_from_data_and_only_once():
    density = FlowDensity(3, 2, steps=2, hidden=8).double().train()
    y, c = maps(3, 2)
    before = copy.deepcopy(density.state_dict())
    density.log_prob(y, c)
    assert all(torch.equal(before[k], v) for k, v in density.state_dict().items())
    density.initialise(y, c)
    resumed = FlowDensity(3, 2, steps=2, hidden=8).double()
    resumed.load_state_dict(density.state_dict())
    resumed.initialise(10 * y, c)
    assert torch.equal(resumed.log_prob(y, c), density.log_prob(y, c))


def test_constant_channel_stays_finite():
    density = FlowDensity(3, steps=2, hidden=8)
    y, _ = maps(3, 0, dtype=torch.float32)
    y[:, 1] = 4.0
    density.initialise(y)
    assert torch.isfinite(density.log_prob(y)).all()


@pytest.mark.parametrize("d_cond", [0, 2])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_for_every_parameter_and_eval_equals_train(d_cond, checkpointing):
    density = perturbed(FlowDensity(4, d_cond, steps=2, hidden=8, checkpointing=checkpointing))
    y, c = maps(4, d_cond)
    log_prob = density.train()(y, c)
    log_prob.mean().backward()
    for name, parameter in density.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name
    assert torch.equal(density.eval().log_prob(y, c), log_prob)


def test_what_starts_at_zero_learns_at_once():
    density = FlowDensity(4, 2, steps=2, hidden=8).double()
    y, c = maps(4, 2)
    density.initialise(y, c)
    density.log_prob(y, c).mean().backward()
    for step in density.steps:
        assert step._transforms[0].context_shift.weight.abs().max() == 0
        assert step._transforms[0].context_shift.weight.grad.abs().max() > 1e-6
        last = step._transforms[2].transform_net.layers[-1]
        assert last.weight.abs().max() == 0
        # Raw scales come second; the shifts have no gradient while activations are centred.
        assert last.weight.grad.abs().max(dim=1).values.min() > 1e-6
        assert last.bias.grad[2:].abs().min() > 1e-6


def test_checkpointing_changes_memory_only():
    y, c = maps(4, 2)
    gradients, saved = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        density = perturbed(FlowDensity(4, 2, steps=3, hidden=8, checkpointing=checkpointing))
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            density.log_prob(y, c).mean().backward()
        gradients.append([p.grad for p in density.parameters()])
        saved.append(sum(sizes))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    # Both hidden layers of all steps, at least.
    assert saved[0] - saved[1] > 3 * 2 * 8 * 120


@pytest.mark.parametrize("checkpointing", [False, True])
def test_autocast_and_half_inputs_give_float32(checkpointing):
    density = perturbed(FlowDensity(4, 2, 3, 16, checkpointing)).float()
    y, c = maps(4, 2, dtype=torch.float32)
    y, c = y.bfloat16(), c.bfloat16()
    expected = density.log_prob(y.float(), c.float())
    expected_gradients = torch.autograd.grad(expected.mean(), list(density.parameters()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = density.log_prob(y, c)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)
    gradients = torch.autograd.grad(actual.mean(), list(density.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True))


def test_float32_is_close_to_float64_at_full_depth():
    torch.manual_seed(0)
    density = FlowDensity(8, 4, steps=64, hidden=16)
    y, c = maps(8, 4, dtype=torch.float32)
    density.initialise(y, c)
    exact = copy.deepcopy(density).double().log_prob(y.double(), c.double())
    torch.testing.assert_close(density.log_prob(y, c).double(), exact, rtol=1e-4, atol=1e-3)


def test_learns_a_density_that_no_gaussian_fits():
    # A ring around a centre that the condition gives; its entropy is known.
    torch.manual_seed(0)
    angle = 2 * torch.pi * torch.rand(1, 1, 1, 1, 2000)
    radius = 2 + 0.1 * torch.randn(1, 1, 1, 1, 2000)
    c = torch.randn(1, 2, 1, 1, 2000)
    y = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1) + c
    density = FlowDensity(2, 2, steps=6, hidden=32)
    density.initialise(y, c)
    optimiser = torch.optim.Adam(density.parameters(), lr=5e-3)
    for _ in range(150):
        optimiser.zero_grad()
        loss = -density.log_prob(y, c).mean()
        loss.backward()
        optimiser.step()
    residual = (y - c)[0, :, 0, 0]
    best_gaussian = 0.5 * torch.logdet(2 * torch.pi * torch.e * torch.cov(residual))
    assert loss.item() < best_gaussian.item() - 0.3


def test_build_by_name_and_bounds():
    density = build_density("flow", 4, 2, steps=3, hidden=8)
    assert len(density.steps) == 3
    with pytest.raises(ScreenerError, match="dim >= 2"):
        build_density("flow", 1, 0)
    with pytest.raises(ScreenerError, match="steps >= 1"):
        build_density("flow", 4, 0, steps=0)
