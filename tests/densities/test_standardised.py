"""StandardisedDensity against scikit-learn, SciPy and NumPy."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.preprocessing import StandardScaler

from screener_nnu.densities import FlowDensity, GaussianDensity, StandardisedDensity

torch.set_num_threads(1)


def maps(batch=2, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(batch, 3, 2, 3, 4, generator=generator)
    y = y * torch.tensor([0.1, 1.0, 20.0]).view(1, -1, 1, 1, 1) + 5
    c = 3 * torch.randn(batch, 2, 2, 3, 4, generator=generator) - 2
    return y.to(dtype), c.to(dtype)


def conditional(noise=0.1):
    """A Gaussian of the paper's form whose mean is the first condition channel."""
    density = GaussianDensity(3, 2, hidden=4, kernel_size=1)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in density.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return StandardisedDensity(density, noise)


def vectors(x):
    return x.double().movedim(1, -1).flatten(0, -2).numpy()


def with_statistics(density, batches):
    for y, c in batches:
        density.accumulate(y, c)
    density.finish_statistics()
    return density


def test_streamed_statistics_equal_those_of_all_at_once():
    batches = [maps(batch=b, seed=b) for b in (1, 4, 2)]
    density = with_statistics(conditional(), batches)
    for index, name in enumerate("yc"):
        scaler = StandardScaler().fit(np.concatenate([vectors(b[index]) for b in batches]))
        mean, std = getattr(density, f"{name}_mean"), getattr(density, f"{name}_std")
        np.testing.assert_allclose(mean.numpy(), scaler.mean_, rtol=1e-6)
        np.testing.assert_allclose(std.numpy(), scaler.scale_, rtol=1e-6)


def test_large_means_do_not_cancel():
    y, c = maps()
    density = with_statistics(conditional(), [(y.double() + 1e7, c), (y.double() + 1e7, c)])
    np.testing.assert_allclose(density.y_std.numpy(), vectors(y).std(0), rtol=1e-5)


def test_statistics_start_anew_after_finishing():
    density = with_statistics(conditional(), [maps(seed=1)])
    with_statistics(density, [maps(seed=2)])
    np.testing.assert_allclose(density.y_mean.numpy(), vectors(maps(seed=2)[0]).mean(0), rtol=1e-6)


def test_constant_channel_is_only_centred():
    y, c = maps()
    y[:, 1] = 4.0
    density = with_statistics(conditional(), [(y, c)])
    assert density.y_std[1] == 1 and density.y_mean[1] == 4


def test_eval_equals_the_gaussian_of_standardised_maps():
    density = StandardisedDensity(GaussianDensity(3), noise=0.5).eval()
    y, _ = maps()
    with_statistics(density, [maps(seed=5)[:1] + (None,)])
    mean, std = density.y_mean.numpy(), density.y_std.numpy()
    expected = stats.norm.logpdf((vectors(y) - mean) / std).sum(1).reshape(2, 2, 3, 4)
    np.testing.assert_allclose(density.log_prob(y).numpy(force=True), expected, rtol=1e-5)


def test_differs_from_the_density_of_raw_maps_by_a_constant():
    density = StandardisedDensity(GaussianDensity(3)).eval()
    y, _ = maps()
    with_statistics(density, [(y, None)])
    raw = stats.norm(density.y_mean.numpy(), density.y_std.numpy()).logpdf(vectors(y)).sum(1)
    gap = density.log_prob(y).numpy(force=True).ravel() - raw
    np.testing.assert_allclose(gap, density.y_std.log().sum().item(), rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("noise", [0.1, 0.7, 0.0])
def test_noise_on_both_maps_in_training_only(training, noise):
    density = with_statistics(conditional(noise), [maps(seed=3)]).train(training)
    y, c = maps()
    actual = density(y, c, generator=torch.Generator().manual_seed(11))
    generator = torch.Generator().manual_seed(11)
    expected_maps = []
    for name, x in (("y", y), ("c", c)):
        mean = getattr(density, f"{name}_mean").view(1, -1, 1, 1, 1)
        std = getattr(density, f"{name}_std").view(1, -1, 1, 1, 1)
        x = (x - mean) / std
        sigma = noise if training else 0.0
        expected_maps.append(x + sigma * torch.randn(x.shape, generator=generator))
    expected = density.density.log_prob(*expected_maps)
    torch.testing.assert_close(actual, expected)
    clean = density.eval().log_prob(y, c)
    assert torch.equal(clean, actual) is (not training or noise == 0)


def test_default_noise_is_the_published_one():
    assert StandardisedDensity(GaussianDensity(3)).noise == 0.1


@pytest.mark.parametrize("training", [True, False])
def test_initialise_sees_what_training_sees(training):
    density = StandardisedDensity(FlowDensity(3, 2, steps=2, hidden=4), noise=2.0)
    y, c = maps(batch=20)
    with_statistics(density, [(y, c)]).train(training)
    density.initialise(y, c, torch.Generator().manual_seed(4))
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    scaled = (vectors(y) - density.y_mean.numpy()) / density.y_std.numpy() + 2 * vectors(noise)
    first = density.density.steps[0]._transforms[0]
    np.testing.assert_allclose(first.log_scale.numpy(force=True), -np.log(scaled.std(0)), atol=1e-5)


def test_state_dict_carries_the_statistics():
    density = with_statistics(conditional(), [maps(seed=3)]).eval()
    copy = conditional().eval()
    copy.load_state_dict(density.state_dict())
    y, c = maps()
    assert torch.equal(copy.log_prob(y, c), density.log_prob(y, c))


def test_half_maps_are_standardised_in_float32():
    density = with_statistics(conditional(), [maps(seed=3)]).eval()
    y, c = (x.half() for x in maps())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = density.log_prob(y, c)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, density.log_prob(y.float(), c.float()))


def test_needs_statistics_first():
    density = conditional()
    y, c = maps()
    with pytest.raises(RuntimeError, match="statistics"):
        density.log_prob(y, c)
    with pytest.raises(RuntimeError, match="accumulate"):
        density.finish_statistics()
    density.accumulate(y)
    with pytest.raises(RuntimeError, match="accumulate"):
        density.finish_statistics()


def test_noise_of_samples_that_are_joined_is_their_own() -> None:
    torch.manual_seed(5)
    parts = [(torch.randn(1, 3, n, 1, 1), torch.randn(1, 2, n, 1, 1)) for n in (4, 7)]
    joined = [torch.cat(maps, dim=2) for maps in zip(*parts, strict=True)]
    density = conditional(0.3).train()
    density.accumulate(*joined)
    density.finish_statistics()
    sources = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    expected = [
        density(*maps, generator=one).flatten() for maps, one in zip(parts, sources, strict=True)
    ]
    again = [(torch.Generator().manual_seed(seed), n) for seed, n in ((1, 4), (2, 7))]
    found = density(*joined, generator=again).flatten()
    torch.testing.assert_close(found, torch.cat(expected))
    assert not torch.allclose(found, density.eval()(*joined).flatten())
