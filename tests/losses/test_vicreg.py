"""DenseVICReg against loops, its two covariance paths, gradients and precision."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from screener_nnu.losses import DenseVICReg, build_loss
from screener_nnu.losses.vicreg import _energy_by_covariance, _energy_by_gram, off_diagonal_energy
from screener_nnu.networks.heads import build_head
from screener_nnu.plans import ContrastSettings, OptimiserSettings

torch.set_num_threads(1)


class LargestResult(TorchDispatchMode):
    """Remembers the most elements that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def pair(n, d, seed=0, dtype=torch.float64, scale=0.7):
    generator = torch.Generator().manual_seed(seed)
    z1 = scale * torch.randn(n, d, generator=generator, dtype=dtype) + 3
    return z1, z1 + 0.3 * torch.randn(n, d, generator=generator, dtype=dtype)


def loops(z1, z2, weights=(25.0, 25.0, 1.0), eps=1e-4, reduction="mean"):
    """The definition, entry by entry."""
    n, d = z1.shape
    invariance = sum((z1[p, i] - z2[p, i]) ** 2 for p in range(n) for i in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (z1, z2):
        means = [sum(z[p, i] for p in range(n)) / n for i in range(d)]
        for i in range(d):
            for j in range(d):
                products = ((z[p, i] - means[i]) * (z[p, j] - means[j]) for p in range(n))
                c = sum(products) / (n - 1)
                if i == j:
                    variance += max(0.0, 1.0 - math.sqrt(c + eps)) / d
                else:
                    covariance += c * c / d
    if reduction == "mean":
        variance, covariance = variance / 2, covariance / 2
    total = weights[0] * invariance + weights[1] * variance + weights[2] * covariance
    return total, {"invariance": invariance, "variance": variance, "covariance": covariance}


@pytest.mark.parametrize("n,d", [(2, 3), (5, 9), (9, 5), (6, 6)])
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (2.0, 3.0, 5.0)])
@pytest.mark.parametrize("eps", [1e-4, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equals_the_definition(n, d, weights, eps, reduction):
    z1, z2 = pair(n, d, seed=n)
    loss, terms = DenseVICReg(*weights, eps=eps, view_reduction=reduction)(z1, z2)
    expected, expected_terms = loops(z1.numpy(), z2.numpy(), weights, eps, reduction)
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected_terms, rel=1e-10)
    assert expected_terms["variance"] > 0 and expected_terms["covariance"] > 0
    assert not any(term.requires_grad for term in terms.values())


def test_defaults_are_the_published_ones():
    z1, z2 = pair(7, 4)
    loss, _ = build_loss(ContrastSettings(OptimiserSettings(1, 1, 0)))(z1, z2)
    assert loss.item() == pytest.approx(loops(z1.numpy(), z2.numpy())[0], rel=1e-10)


@pytest.mark.parametrize("n,d", [(4, 16), (16, 16), (40, 16), (15, 16)])
def test_gram_path_equals_direct_path_in_value_and_gradient(n, d):
    z, _ = pair(n, d, seed=d)
    z = (z - z.mean(0)).requires_grad_()
    by_gram, by_covariance = _energy_by_gram(z), _energy_by_covariance(z)
    cov = np.cov(z.detach().numpy(), rowvar=False)
    expected = (cov**2).sum() - (np.diag(cov) ** 2).sum()
    assert by_gram.item() == pytest.approx(expected, rel=1e-10)
    assert by_covariance.item() == pytest.approx(expected, rel=1e-10)
    (gradient,) = torch.autograd.grad(by_gram, z)
    torch.testing.assert_close(gradient, torch.autograd.grad(by_covariance, z)[0])
    assert gradient.abs().min() > 0


@pytest.mark.parametrize("n,d", [(8, 600), (600, 8)])
def test_never_builds_the_larger_matrix(n, d):
    z = torch.randn(n, d, requires_grad=True)
    with LargestResult() as largest:
        off_diagonal_energy(z).backward()
    assert largest.elements == n * d


def test_small_covariances_survive_float32():
    # Decorrelated columns: the off-diagonal part is 1e-9 of the diagonal, below float32's digits.
    basis, _ = torch.linalg.qr(torch.randn(64, 5, dtype=torch.float64))
    z = basis - basis.mean(0)
    z = torch.linalg.qr(z)[0] * 63**0.5
    z = z + 3e-5 * z.roll(1, dims=1)
    expected = _energy_by_covariance(z)
    assert 0 < expected < 1e-7
    assert off_diagonal_energy(z.float()).item() == pytest.approx(expected.item(), rel=0.05)


@pytest.mark.parametrize("n,d", [(5, 3), (3, 5)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradcheck(n, d, reduction):
    inputs = tuple(z.requires_grad_() for z in pair(n, d))
    loss = DenseVICReg(view_reduction=reduction)
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b)[0], inputs)


def test_gradient_is_finite_where_the_variance_is_zero():
    z = torch.ones(4, 3, requires_grad=True)
    DenseVICReg()(z, z)[0].backward()
    assert torch.isfinite(z.grad).all()


def test_every_parameter_of_the_head_learns():
    torch.manual_seed(0)
    head = build_head("vicreg", in_channels=6, width=24)
    z1, z2 = pair(20, 6, dtype=torch.float32)
    DenseVICReg()(head(z1), head(z2))[0].backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().max() > 1e-4, name


def test_autocast_leaves_it_in_float32():
    z1, z2 = pair(50, 20, dtype=torch.float32)
    expected, _ = DenseVICReg()(z1, z2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, terms = DenseVICReg()(z1, z2)
        from_half, _ = DenseVICReg()(z1.bfloat16(), z2.bfloat16())
    rounded, _ = DenseVICReg()(z1.bfloat16().float(), z2.bfloat16().float())
    assert loss.dtype == from_half.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert torch.equal(loss, expected)
    assert torch.equal(from_half, rounded)


@pytest.mark.parametrize("shapes", [((1, 3), (1, 3)), ((4, 3), (4, 2)), ((4, 3, 1), (4, 3, 1))])
def test_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match="N >= 2"):
        DenseVICReg()(torch.randn(shapes[0]), torch.randn(shapes[1]))


def test_refuses_another_reduction():
    with pytest.raises(ValueError, match="view_reduction"):
        DenseVICReg(view_reduction="max")
