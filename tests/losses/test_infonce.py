"""DenseInfoNCE against loops, its chunks, gradients and precision."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from screener_nnu.losses import DenseInfoNCE, build_loss
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


def pair(n, d, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    z1 = 2 * torch.randn(n, d, generator=generator, dtype=dtype)
    return z1, z1 + torch.randn(n, d, generator=generator, dtype=dtype)


def loops(z1, z2, temperature):
    """The definition, pair by pair."""
    views = []
    for z in (z1, z2):
        rows = [[float(v) for v in row] for row in z]
        views.append([[v / math.hypot(*row) for v in row] for row in rows])
    n = len(z1)

    def similarity(i, k, j, m):
        dot = sum(a * b for a, b in zip(views[k][i], views[m][j], strict=True))
        return math.exp(dot / temperature)

    total = 0.0
    for k in range(2):
        for i in range(n):
            positive = similarity(i, 0, i, 1)
            negatives = sum(similarity(i, k, j, m) for j in range(n) if j != i for m in range(2))
            total -= math.log(positive / (positive + negatives))
    return total / (2 * n)


@pytest.mark.parametrize("n,d", [(2, 3), (7, 4), (4, 7)])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("chunk_rows", [None, 1, 3, 100])
def test_equals_the_definition(n, d, temperature, chunk_rows):
    z1, z2 = pair(n, d, seed=n)
    loss, terms = DenseInfoNCE(temperature, chunk_rows)(z1, z2)
    assert loss.item() == pytest.approx(loops(z1, z2, temperature), rel=1e-9)
    assert loss.item() == pytest.approx(sum(t.item() for t in terms.values()), rel=1e-9)
    cosine = torch.cosine_similarity(z1, z2).mean().item()
    assert terms["attraction"].item() == pytest.approx(-cosine / temperature, rel=1e-9)
    assert not any(term.requires_grad for term in terms.values())


def test_defaults_are_the_published_ones():
    z1, z2 = pair(6, 4)
    settings = ContrastSettings(OptimiserSettings(1, 1, 0), loss="infonce")
    assert build_loss(settings)(z1, z2)[0].item() == pytest.approx(loops(z1, z2, 0.1), rel=1e-9)


@pytest.mark.parametrize("chunk_rows", [None, 2])
def test_gradcheck(chunk_rows):
    inputs = tuple(z.requires_grad_() for z in pair(5, 3))
    loss = DenseInfoNCE(chunk_rows=chunk_rows)
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b)[0], inputs)


def test_chunks_bound_the_memory_of_forward_and_backward():
    z1, z2 = (z.requires_grad_() for z in pair(256, 4))
    with LargestResult() as whole:
        DenseInfoNCE(chunk_rows=None)(z1, z2)[0].backward()
    assert whole.elements == 256 * 512
    with LargestResult() as chunked:
        DenseInfoNCE(chunk_rows=16)(z1, z2)[0].backward()
    assert chunked.elements == 16 * 512


def test_chunks_are_not_kept_for_the_backward_pass():
    kept = []
    z1, z2 = (z.requires_grad_() for z in pair(256, 4))
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        DenseInfoNCE(chunk_rows=16)(z1, z2)
    assert max(kept) <= 256 * 4


def test_stable_at_a_low_temperature():
    z1, z2 = pair(5, 4, dtype=torch.float32)
    z1.requires_grad_()
    loss, _ = DenseInfoNCE(temperature=1e-3)(z1, z2)
    loss.backward()
    expected, _ = DenseInfoNCE(temperature=1e-3)(z1.detach().double(), z2.double())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-3)
    assert torch.isfinite(z1.grad).all()


def test_every_parameter_of_the_head_learns():
    torch.manual_seed(0)
    head = build_head("infonce", in_channels=6, width=24)
    z1, z2 = pair(20, 6, dtype=torch.float32)
    DenseInfoNCE()(head(z1), head(z2))[0].backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().max() > 1e-5, name


def test_autocast_leaves_it_in_float32():
    z1, z2 = pair(50, 20, dtype=torch.float32)
    expected, _ = DenseInfoNCE(chunk_rows=16)(z1, z2)
    a, b = z1.clone().requires_grad_(), z1.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, terms = DenseInfoNCE(chunk_rows=16)(a, z2)
        from_half, _ = DenseInfoNCE()(z1.bfloat16(), z2.bfloat16())
    loss.backward()
    DenseInfoNCE(chunk_rows=16)(b, z2)[0].backward()
    rounded, _ = DenseInfoNCE()(z1.bfloat16().float(), z2.bfloat16().float())
    assert loss.dtype == from_half.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert torch.equal(loss, expected)
    assert torch.equal(from_half, rounded)
    assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("shapes", [((1, 3), (1, 3)), ((4, 3), (4, 2)), ((4, 3, 1), (4, 3, 1))])
def test_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match="N >= 2"):
        DenseInfoNCE()(torch.randn(shapes[0]), torch.randn(shapes[1]))


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"chunk_rows": 0}])
def test_refuses_settings_without_meaning(settings):
    with pytest.raises(ValueError, match="positive"):
        DenseInfoNCE(**settings)
