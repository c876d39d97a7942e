"""Layers of a Glow flow, each a transform of nflows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nflows.transforms import ActNorm, AffineCouplingTransform, CompositeTransform, Transform
from torch import Tensor, nn
from torch.nn import functional as F

from screener_nnu.densities.glow_pass import GlowMatrices


class ConditionalActNorm(ActNorm):
    """Activation normalisation, plus a shift that is linear in the condition.

    x -> exp(log_scale) x + shift + A c, with A zero at the start. The shift does not touch the
    determinant. Unlike its base, it takes starting values only when `initialise` is called.

    References:
        Kingma and Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, NeurIPS 2018,
        section 3.1 (https://arxiv.org/abs/1807.03039).

    Args:
        features: d.
        context_features: d_cond, 0 for none.
    """

    def __init__(self, features: int, context_features: int) -> None:
        """Builds the identity."""
        super().__init__(features)
        # The base would otherwise take its values from whatever batch comes first in train mode.
        self.initialized.fill_(True)
        self.context_shift: nn.Linear | None = None
        if context_features:
            self.context_shift = nn.Linear(context_features, features, bias=False)
            nn.init.zeros_(self.context_shift.weight)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps vectors (M, d) to (M, d) and log|det| (M,)."""
        # Not the base's, which asks a GPU in every step whether it is initialised, and waits.
        scale, shift = self._broadcastable_scale_shift(inputs)
        logabsdet = self.log_scale.sum() * inputs.new_ones(len(inputs))
        return scale * inputs + shift + self._shift_of(context), logabsdet

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Makes the outputs of this batch (M, d), without condition, zero-mean, unit-variance."""
        # A constant channel has no scale to take; the bound keeps its logarithm finite.
        std = inputs.std(dim=0, correction=0).clamp_min(1e-6)
        self.log_scale.copy_(-std.log())
        self.shift.copy_(-inputs.mean(dim=0) / std)

    def _shift_of(self, context: Tensor | None) -> Tensor | float:
        return 0.0 if self.context_shift is None else self.context_shift(context)


class PLULinear(Transform):
    """Invertible linear map W = P L (U + diag(sign exp(log_diagonal))), orthogonal at the start.

    P is a fixed permutation, L unit lower and U strictly upper triangular, so that log|det W| is
    the sum of the log-diagonal, where a free matrix costs a factorisation in every pass. There is
    no bias, because the next activation normalisation has one.

    References:
        Kingma and Dhariwal, Glow, NeurIPS 2018, equation 10 (https://arxiv.org/abs/1807.03039).

    Args:
        features: d.
    """

    permutation: Tensor
    signs: Tensor

    def __init__(self, features: int) -> None:
        """Draws a random orthogonal matrix and factorises it."""
        super().__init__()
        weight = nn.init.orthogonal_(torch.empty(features, features, dtype=torch.float64))
        p, lower, upper = torch.linalg.lu(weight)
        below = torch.tril_indices(features, features, offset=-1)
        above = torch.triu_indices(features, features, offset=1)
        dtype = torch.get_default_dtype()
        self.register_buffer("below", below, persistent=False)
        self.register_buffer("above", above, persistent=False)
        self.register_buffer("permutation", p.argmax(dim=1))
        self.register_buffer("signs", upper.diagonal().sign().to(dtype))
        self.lower_entries = nn.Parameter(lower[below[0], below[1]].to(dtype))
        self.upper_entries = nn.Parameter(upper[above[0], above[1]].to(dtype))
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log().to(dtype))

    def weight(self) -> Tensor:
        """The matrix W, (d, d)."""
        return stacked_weights([self])[0]

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps vectors (M, d) to W x, (M, d), and log|det W|, (M,)."""
        return F.linear(inputs, self.weight()), self.log_diagonal.sum().expand(len(inputs))


def stacked_weights(layers: Sequence[PLULinear]) -> Tensor:
    """The matrices W of S layers, (S, d, d), in a few operations for all."""
    below, above = layers[0].below, layers[0].above
    log_diagonal = torch.stack([layer.log_diagonal for layer in layers])
    lower = torch.diag_embed(torch.ones_like(log_diagonal))
    lower[:, below[0], below[1]] = torch.stack([layer.lower_entries for layer in layers])
    upper = torch.diag_embed(torch.stack([layer.signs for layer in layers]) * log_diagonal.exp())
    upper[:, above[0], above[1]] = torch.stack([layer.upper_entries for layer in layers])
    permutations = torch.stack([layer.permutation for layer in layers])
    return torch.take_along_dim(lower @ upper, permutations[:, :, None], dim=1)


class CouplingNet(nn.Module):
    """MLP with two hidden layers that reads the untouched half of a vector and the condition."""

    def __init__(self, in_features: int, out_features: int, hidden: int) -> None:
        """Builds the layers, the last one at zero."""
        super().__init__()
        last = nn.Linear(hidden, out_features)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        # In place, since these activations are most of the memory of a training step.
        self.layers = nn.Sequential(
            nn.Linear(in_features, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            last,
        )

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps (M, in) and the condition (M, d_cond) to shifts and raw scales, (M, out)."""
        return self.layers(inputs if context is None else torch.cat([inputs, context], dim=1))


class GlowCoupling(AffineCouplingTransform):
    """Affine coupling of the second half of a vector with scale exactly sigmoid(s + 2).

    The base adds a constant to the scale and takes the logarithm afterwards, which loses digits
    for a scale near zero.

    References:
        Kingma and Dhariwal, Glow, NeurIPS 2018, section 3.3 (https://arxiv.org/abs/1807.03039).
    """

    def __init__(self, features: int, context_features: int, hidden: int) -> None:
        """Builds a coupling that starts with shift 0 and scale sigmoid(2)."""
        mask = torch.arange(features) >= features - features // 2
        super().__init__(mask, lambda i, o: CouplingNet(i + context_features, o, hidden))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps vectors (M, d) to (M, d) and log|det| (M,)."""
        # Slices, for the base gathers by index, which takes most of the time of a narrow step.
        kept, changed = inputs.tensor_split([self.num_identity_features], dim=1)
        changed, logabsdet = self._coupling_transform_forward(
            inputs=changed, transform_params=self.transform_net(kept, context)
        )
        return torch.cat([kept, changed], dim=1), logabsdet

    def _coupling_transform_forward(
        self, inputs: Tensor, transform_params: Tensor
    ) -> tuple[Tensor, Tensor]:
        shift, raw = transform_params.chunk(2, dim=1)
        log_scale = F.logsigmoid(raw + 2)
        return inputs * log_scale.exp() + shift, log_scale.sum(dim=1)


class GlowStep(CompositeTransform):
    """One step of the flow: activation normalisation, linear map, coupling."""

    def __init__(self, features: int, context_features: int, hidden: int) -> None:
        """Builds the three layers."""
        actnorm = ConditionalActNorm(features, context_features)
        coupling = GlowCoupling(features, context_features, hidden)
        super().__init__([actnorm, PLULinear(features), coupling])

    def layers(self) -> tuple[ConditionalActNorm, PLULinear, GlowCoupling]:
        """The three layers in their order."""
        actnorm, linear, coupling = self._transforms
        return actnorm, linear, coupling

    @torch.no_grad()
    def initialise(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Sets the activation normalisation from a batch (M, d), and returns the outputs."""
        self._transforms[0].initialise(inputs)
        return self(inputs, context)[0]


def stacked_matrices(steps: Sequence[GlowStep]) -> tuple[GlowMatrices, Tensor]:
    """All steps as matrices, for `glow_pass`, and the part of log|det| that no voxel changes.

    With scale e, shift b and condition map A, a step's first two layers are one affine map,
    W diag(e) x + W (b + A c).
    """
    actnorms, linears, couplings = zip(*(step.layers() for step in steps), strict=True)
    log_scale = torch.stack([layer.log_scale for layer in actnorms])
    columns = [torch.stack([layer.shift for layer in actnorms])[:, :, None]]
    if actnorms[0].context_shift is not None:
        columns.append(torch.stack([layer.context_shift.weight for layer in actnorms]))
    columns.append(torch.diag_embed(log_scale.exp()))
    affine = stacked_weights(linears) @ torch.cat(columns, dim=2)
    log_diagonal = torch.stack([layer.log_diagonal for layer in linears])

    nets = [layer.transform_net.layers for layer in couplings]
    (b1, w1), (b2, w2), (b3, w3) = (
        (
            torch.stack([net[index].bias for net in nets])[:, :, None],
            torch.stack([net[index].weight for net in nets]),
        )
        for index in (0, 2, 4)
    )
    kept = couplings[0].num_identity_features
    # sigmoid(s + 2) costs nothing more when the bias holds the 2.
    two = torch.zeros_like(b3)
    two[:, two.shape[1] // 2 :] = 2
    matrices = GlowMatrices(
        affine,
        torch.cat([b1, w1[:, :, kept:], w1[:, :, :kept]], dim=2),
        torch.cat([b2, w2], dim=2),
        torch.cat([b3 + two, w3], dim=2),
    )
    return matrices, log_scale.sum() + log_diagonal.sum()
