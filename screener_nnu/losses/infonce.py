"""InfoNCE on pairs of voxels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class DenseInfoNCE(nn.Module):
    r"""Contrastive loss of N pairs of voxels against all other voxels of both views.

    With l2-normalised embeddings and a temperature, the loss of pair i in view k is

    .. math:: -\log \frac{e^{\langle z_i^1, z_i^2 \rangle / \tau}}
        {e^{\langle z_i^1, z_i^2 \rangle / \tau}
        + \sum_{j \ne i} \sum_{l \in \{1, 2\}} e^{\langle z_i^k, z_j^l \rangle / \tau}}

    averaged over pairs and views.

    References:
        Goncharov et al., Modeling the Density of Pixel-level Self-supervised Embeddings for
        Unsupervised Pathology Segmentation in Medical CT, ICLR 2026, the DenseInfoNCE objective
        (https://arxiv.org/abs/2502.08321).
        van den Oord, Li and Vinyals, Representation Learning with Contrastive Predictive Coding,
        2018, equation 4 (https://arxiv.org/abs/1807.03748).

    Args:
        temperature: tau.
        chunk_rows: rows of the (N, 2N) similarity matrix that exist at once; each chunk is
            computed again in the backward pass. `None` keeps the whole matrix of a view.

    Example:
        >>> loss, terms = DenseInfoNCE()(torch.eye(2), torch.eye(2))
        >>> round(loss.item(), 6), sorted(terms)
        (9.1e-05, ['attraction', 'repulsion'])
    """

    def __init__(self, temperature: float = 0.1, chunk_rows: int | None = 1024) -> None:
        """Stores the settings; there is nothing to learn."""
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        if chunk_rows is not None and chunk_rows < 1:
            raise ValueError(f"chunk_rows must be positive or None, not {chunk_rows}")
        self.temperature = temperature
        self.chunk_rows = chunk_rows

    def forward(self, z1: Tensor, z2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss in float32 (float64 inputs stay float64), under autocast too.

        Args:
            z1: embeddings of the first view, (N, D), of any length (normalised here).
            z2: embeddings of the same voxels in the second view, (N, D).

        Returns:
            The scalar loss, and the two terms whose sum it is, detached: `attraction`, the mean of
            -<z1, z2> / tau, and `repulsion`, the mean logarithm of the denominator.

        Raises:
            ValueError: the shapes differ, are not (N, D), or N < 2.
        """
        if z1.ndim != 2 or z1.shape != z2.shape or len(z1) < 2:
            shapes = f"{tuple(z1.shape)} and {tuple(z2.shape)}"
            raise ValueError(f"InfoNCE needs two (N, D) tensors with N >= 2, got {shapes}")
        with torch.autocast(z1.device.type, enabled=False):
            z1, z2 = (
                F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)
                for z in (z1, z2)
            )
            attraction = -(z1 * z2).sum(dim=1).mean() / self.temperature
            denominators = [self._log_denominators(z1, z2), self._log_denominators(z2, z1)]
            repulsion = torch.cat(denominators).mean()
            loss = attraction + repulsion
        return loss, {"attraction": attraction.detach(), "repulsion": repulsion.detach()}

    def _log_denominators(self, own: Tensor, other: Tensor) -> Tensor:
        """Logarithm of the denominator of every pair, seen from the view `own`, (N,)."""
        rows = self.chunk_rows
        if rows is None or rows >= len(own):
            return _log_denominator_rows(own, other, 0, len(own), self.temperature)
        chunks = []
        for start in range(0, len(own), rows):
            stop = min(start + rows, len(own))
            chunk = checkpoint(
                _log_denominator_rows,
                own,
                other,
                start,
                stop,
                self.temperature,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            chunks.append(chunk)
        return torch.cat(chunks)


def _log_denominator_rows(
    own: Tensor, other: Tensor, start: int, stop: int, temperature: float
) -> Tensor:
    similarity = own[start:stop] @ torch.cat([other, own]).T / temperature
    # Left half, other view: its diagonal is the positive and stays, counted once.
    # Right half, own view: its diagonal is the voxel itself, which is no negative.
    similarity[:, len(own) + start :].fill_diagonal_(-torch.inf)
    return similarity.logsumexp(dim=1)
