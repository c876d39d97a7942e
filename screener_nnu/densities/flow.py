"""Normalising flow in the manner of Glow, voxel by voxel."""

import math

import torch
from nflows.transforms import ActNorm, AffineCouplingTransform, CompositeTransform, Transform
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from screener_nnu.densities.base import ConditionalDensity
from screener_nnu.errors import ScreenerError


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

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Undoes `forward`."""
        return super().inverse(inputs - self._shift_of(context))

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
        lower, upper = self._triangles()
        return (lower @ upper)[self.permutation]

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps vectors (M, d) to W x, (M, d), and log|det W|, (M,)."""
        return F.linear(inputs, self.weight()), self.log_diagonal.sum().expand(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Undoes `forward` by two triangular solves."""
        lower, upper = self._triangles()
        outputs = inputs[:, self.permutation.argsort()].T
        outputs = torch.linalg.solve_triangular(lower, outputs, upper=False, unitriangular=True)
        outputs = torch.linalg.solve_triangular(upper, outputs, upper=True)
        return outputs.T, -self.log_diagonal.sum().expand(len(inputs))

    def _triangles(self) -> tuple[Tensor, Tensor]:
        lower = torch.eye(len(self.signs), dtype=self.signs.dtype, device=self.signs.device)
        lower = lower.index_put((self.below[0], self.below[1]), self.lower_entries)
        upper = torch.diag(self.signs * self.log_diagonal.exp())
        upper = upper.index_put((self.above[0], self.above[1]), self.upper_entries)
        return lower, upper


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

    def _coupling_transform_inverse(
        self, inputs: Tensor, transform_params: Tensor
    ) -> tuple[Tensor, Tensor]:
        shift, raw = transform_params.chunk(2, dim=1)
        log_scale = F.logsigmoid(raw + 2)
        return (inputs - shift) * torch.exp(-log_scale), -log_scale.sum(dim=1)


class GlowStep(CompositeTransform):
    """One step of the flow: activation normalisation, linear map, coupling."""

    def __init__(self, features: int, context_features: int, hidden: int) -> None:
        """Builds the three layers."""
        actnorm = ConditionalActNorm(features, context_features)
        coupling = GlowCoupling(features, context_features, hidden)
        super().__init__([actnorm, PLULinear(features), coupling])

    @torch.no_grad()
    def initialise(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Sets the activation normalisation from a batch (M, d), and returns the outputs."""
        self._transforms[0].initialise(inputs)
        return self(inputs, context)[0]


class FlowDensity(ConditionalDensity):
    """Glow flow on the vector of each voxel, with base N(0, I).

    References:
        Kingma and Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, NeurIPS 2018
        (https://arxiv.org/abs/1807.03039).
        Goncharov et al., Modeling the Density of Pixel-level Self-supervised Embeddings for
        Unsupervised Pathology Segmentation in Medical CT, ICLR 2026, the conditional flow
        (https://arxiv.org/abs/2502.08321).

    Args:
        dim: channels d of the descriptor map, at least 2.
        cond_dim: channels d_cond of the condition map; 0 for an unconditional density.
        steps: of the flow.
        hidden: width of the two hidden layers of each coupling.
        checkpointing: compute the activations of each step again in the backward pass; training
            then needs memory for one step instead of all, and about a third more time.

    Raises:
        ScreenerError: d < 2, which leaves a coupling nothing to split, or no steps.
    """

    def __init__(
        self,
        dim: int,
        cond_dim: int = 0,
        steps: int = 64,
        hidden: int = 512,
        checkpointing: bool = False,
    ) -> None:
        """Builds the steps; `initialise` then normalises their activations."""
        super().__init__(dim, cond_dim)
        if dim < 2 or steps < 1:
            raise ScreenerError(f"a flow needs dim >= 2 and steps >= 1, not {dim} and {steps}")
        self.steps = nn.ModuleList(GlowStep(dim, cond_dim, hidden) for _ in range(steps))
        self.checkpointing = checkpointing

    def encode(self, y: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps vectors (M, d), given (M, d_cond), to the base, (M, d), and log|det|, (M,)."""
        total = y.new_zeros(len(y))
        for step in self.steps:
            if self.checkpointing and torch.is_grad_enabled():
                y, logabsdet = checkpoint(step, y, c, use_reentrant=False, preserve_rng_state=False)
            else:
                y, logabsdet = step(y, c)
            total = total + logabsdet
        return y, total

    def decode(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps vectors of the base, (M, d), back to descriptors, (M, d)."""
        for step in reversed(self.steps):
            z, _ = step.inverse(z, c)  # type: ignore[operator]
        return z

    @torch.no_grad()
    def sample(
        self,
        shape: tuple[int, int, int, int],
        c: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws a descriptor map.

        Args:
            shape: (B, D, H, W) of the map.
            c: condition map, (B, d_cond, D, H, W), or `None`.
            generator: source of randomness, on the device of the density.

        Returns:
            A sample of q(y | c), (B, d, D, H, W).
        """
        like = next(self.parameters())
        z = torch.randn(
            math.prod(shape), self.dim, generator=generator, dtype=like.dtype, device=like.device
        )
        batch, *space = shape
        y, c = self._checked(z.new_empty(batch, self.dim, *space), c)
        with torch.autocast(z.device.type, enabled=False):
            decoded = self.decode(z, None if c is None else _vectors(c))
        return decoded.view(batch, *space, self.dim).movedim(-1, 1)

    def _log_prob(self, y: Tensor, c: Tensor | None) -> Tensor:
        z, logabsdet = self.encode(_vectors(y), None if c is None else _vectors(c))
        base = -0.5 * (z.square().sum(dim=1) + self.dim * math.log(2 * math.pi))
        return (base + logabsdet).view(y.shape[0], *y.shape[2:])

    def _initialise(self, y: Tensor, c: Tensor | None) -> None:
        vectors, context = _vectors(y), None if c is None else _vectors(c)
        for step in self.steps:
            vectors = step.initialise(vectors, context)  # type: ignore[operator]


def _vectors(maps: Tensor) -> Tensor:
    """(B, k, D, H, W) -> (B D H W, k)."""
    return maps.movedim(1, -1).reshape(-1, maps.shape[1])
