"""GaussianDensity against SciPy and plain loops."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from screener_nnu.densities import GaussianDensity, build_density
from screener_nnu.errors import ScreenerError

torch.set_num_threads(1)


def maps(d, d_cond, shape=(2, 3, 4, 5), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    batch, *space = shape
    y = torch.randn(batch, d, *space, generator=generator, dtype=dtype)
    y = y * torch.linspace(0.5, 2, d, dtype=dtype).view(1, -1, 1, 1, 1) + 0.7
    if d_cond == 0:
        return y, None
    return y, torch.randn(batch, d_cond, *space, generator=generator, dtype=dtype)


def perturbed(density, seed=1, scale=0.3):
    """The density in float64 with no parameter left at its start."""
    generator = torch.Generator().manual_seed(seed)
    density = density.double()
    with torch.no_grad():
        for parameter in density.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter += scale * noise
    return density


def network_by_hand(density, c):
    """Mean and log-variance (B, 2, d, D, H, W) from the parameters, position by position."""
    w1, b1, w2, b2, w3, b3 = (p.detach().numpy() for p in density.net.parameters())
    c = c.numpy()
    batch, _, *space = c.shape
    k = w1.shape[-1]
    out = np.empty((batch, w3.shape[0], *space))
    for b in range(batch):
        for z, y, x in np.ndindex(*space):
            hidden = b1.copy()
            for i, j, m in np.ndindex(k, k, k):
                # Beyond the border the nearest voxel counts.
                p = [
                    min(max(q + o - k // 2, 0), s - 1)
                    for q, o, s in zip((z, y, x), (i, j, m), space, strict=True)
                ]
                hidden += w1[:, :, i, j, m] @ c[b, :, p[0], p[1], p[2]]
            hidden = np.maximum(hidden, 0)
            hidden = np.maximum(w2[:, :, 0, 0, 0] @ hidden + b2, 0)
            out[b, :, z, y, x] = w3[:, :, 0, 0, 0] @ hidden + b3
    mean, raw = np.split(out, 2, axis=1)
    return mean, 7 * np.tanh(raw / 7)


def test_unconditional_equals_scipy():
    density = perturbed(GaussianDensity(3), scale=1.5)
    y, _ = maps(3, 0)
    mean = density.mean.detach().numpy()
    log_variance = 7 * np.tanh(density.raw_log_variance.detach().numpy() / 7)
    expected = stats.multivariate_normal(mean, np.diag(np.exp(log_variance))).logpdf(
        y.movedim(1, -1).numpy()
    )
    np.testing.assert_allclose(density.log_prob(y).detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_conditional_equals_scipy_and_loops(kernel_size):
    density = perturbed(GaussianDensity(3, 2, hidden=6, kernel_size=kernel_size))
    y, c = maps(3, 2)
    mean, log_variance = network_by_hand(density, c)
    expected = stats.norm(mean, np.exp(log_variance / 2)).logpdf(y.numpy()).sum(axis=1)
    actual = density.log_prob(y, c)
    assert actual.shape == (2, 3, 4, 5)
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("d_cond", [0, 2])
@pytest.mark.parametrize("training", [True, False])
def test_starts_from_the_gaussian_of_the_first_batch(d_cond, training):
    density = GaussianDensity(3, d_cond, hidden=6).double().train(training)
    y, c = maps(3, d_cond)
    density.initialise(y, c)
    vectors = y.movedim(1, -1).numpy()
    mean, std = vectors.mean((0, 1, 2, 3)), vectors.std((0, 1, 2, 3))
    expected = stats.norm(mean, std).logpdf(vectors).sum(-1)
    np.testing.assert_allclose(density.log_prob(y, c).detach().numpy(), expected, rtol=1e-10)


def test_initialises_once_even_after_a_resume():
    density = GaussianDensity(3).double()
    density.initialise(*maps(3, 0))
    before = density.mean.clone()
    resumed = GaussianDensity(3).double()
    resumed.load_state_dict(density.state_dict())
    resumed.initialise(maps(3, 0)[0] + 5)
    assert torch.equal(resumed.mean, before)


def test_constant_channel_stays_finite_and_keeps_its_gradient():
    density = GaussianDensity(2).double()
    y, _ = maps(2, 0)
    y[:, 1] = 4.0
    density.initialise(y)
    log_variance = density.parameters_of(None)[1].flatten()
    assert log_variance[1].item() == pytest.approx(-0.99 * 7)
    (-density.log_prob(y).mean()).backward()
    assert density.raw_log_variance.grad[1] > 1e-3


@pytest.mark.parametrize("raw", [-40.0, 40.0])
def test_log_variance_is_limited_and_gradients_reach(raw):
    density = GaussianDensity(1).double()
    with torch.no_grad():
        density.raw_log_variance.fill_(raw)
    log_variance = density.parameters_of(None)[1]
    assert abs(log_variance.item()) <= 7
    log_variance.sum().backward()
    assert density.raw_log_variance.grad.item() == pytest.approx(1 / math.cosh(raw / 7) ** 2)
    assert density.raw_log_variance.grad.item() > 0


@pytest.mark.parametrize("d_cond", [0, 2])
def test_gradient_for_every_parameter_and_eval_equals_train(d_cond):
    density = perturbed(GaussianDensity(3, d_cond, hidden=6))
    y, c = maps(3, d_cond)
    log_prob = density.train()(y, c)
    log_prob.mean().backward()
    for name, parameter in density.named_parameters():
        assert parameter.grad.abs().max() > 1e-4, name
    assert torch.equal(density.eval().log_prob(y, c), log_prob)


def test_autocast_and_half_inputs_give_float32():
    density = perturbed(GaussianDensity(3, 2, hidden=16)).float()
    y, c = maps(3, 2, dtype=torch.float32)
    y, c = y.bfloat16(), c.bfloat16()
    expected = density.log_prob(y.float(), c.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = density.log_prob(y, c)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


def test_state_dict_names_each_parameter_once():
    density = GaussianDensity(3, 2, hidden=6)
    parameters = {name for name, _ in density.named_parameters()}
    assert set(density.state_dict()) == parameters | {"initialised"}


@pytest.mark.parametrize(
    "d_cond,y_shape,c_shape",
    [
        (0, (1, 4, 2, 2, 2), None),
        (0, (1, 3, 2, 2), None),
        (0, (1, 3, 2, 2, 2), (1, 2, 2, 2, 2)),
        (2, (1, 3, 2, 2, 2), None),
        (2, (1, 3, 2, 2, 2), (1, 3, 2, 2, 2)),
        (2, (1, 3, 2, 2, 2), (1, 2, 2, 2, 1)),
    ],
)
def test_refuses_other_shapes(d_cond, y_shape, c_shape):
    density = GaussianDensity(3, d_cond, hidden=4)
    c = None if c_shape is None else torch.zeros(c_shape)
    with pytest.raises(ValueError, match="must be|was given"):
        density.log_prob(torch.zeros(y_shape), c)


def test_build_by_name():
    density = build_density("gaussian", 3, 2, hidden=8, kernel_size=1)
    assert density.net[0].weight.shape == (8, 2, 1, 1, 1)
    with pytest.raises(ScreenerError, match="'spline'.*flow.*gaussian"):
        build_density("spline", 3, 0)
    with pytest.raises(ScreenerError, match="odd"):
        build_density("gaussian", 3, 2, kernel_size=2)
    with pytest.raises(ScreenerError, match="dim >= 1"):
        build_density("gaussian", 0, 2)
