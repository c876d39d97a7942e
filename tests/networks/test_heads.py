"""Heads against an explicit NumPy forward pass, and their wiring to the losses."""

import math

import numpy as np
import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.losses import LOSSES
from screener_nnu.networks.heads import Expander, Projector, build_head

torch.set_num_threads(1)


def linears(head):
    return [m for m in head.modules() if isinstance(m, torch.nn.Linear)]


def by_hand(head, voxels, training):
    """Linear, batch norm and GELU by their formulas, from the parameters of the head."""
    x = voxels.numpy()
    norms = [m for m in head.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    *hidden, last = [m.weight.detach().numpy() for m in linears(head)]
    for weight, norm in zip(hidden, norms, strict=True):
        x = x @ weight.T
        mean = x.mean(0) if training else norm.running_mean.numpy()
        var = x.var(0) if training else norm.running_var.numpy()
        x = (x - mean) / np.sqrt(var + norm.eps)
        x = x * norm.weight.detach().numpy() + norm.bias.detach().numpy()
        x = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return x @ last.T


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "head",
    [Expander(5, 12), Projector(5, 12, 7), Expander(5, 9, hidden_layers=1), Projector(5, 8, 3, 3)],
)
def test_equals_the_formulas(head, training):
    head = head.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in [*head.parameters(), *head.buffers()]:
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.copy_(noise + 0.2)
    voxels = torch.randn(11, 5, generator=generator, dtype=torch.float64)
    expected = by_hand(head, voxels, training)
    np.testing.assert_allclose(head.train(training)(voxels).detach().numpy(), expected, rtol=1e-9)
    assert expected.shape == (11, head.out_channels)


@pytest.mark.parametrize(
    "head,widths",
    [
        (build_head("vicreg", 32, 64), [(64, 32), (64, 64), (64, 64)]),
        (build_head("infonce", 32, 256), [(256, 32), (256, 256), (128, 256)]),
        (build_head("infonce", 32, 64), [(64, 32), (64, 64), (64, 64)]),
    ],
)
def test_widths_follow_the_loss(head, widths):
    assert [tuple(m.weight.shape) for m in linears(head)] == widths
    assert all(m.bias is None for m in linears(head))


def test_every_loss_has_a_head():
    assert {name: type(build_head(name, 4, 8)).__name__ for name in LOSSES} == {
        "vicreg": "Expander",
        "infonce": "Projector",
    }


def test_unknown_loss_lists_the_known():
    with pytest.raises(ScreenerError, match="'byol'.*infonce, vicreg"):
        build_head("byol", 4, 8)
