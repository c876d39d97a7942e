"""Mahalanobis distance to a Gaussian in the space of principal components."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from screener_nnu.densities.gaussian_pca import GaussianPcaDensity, GaussianPcaSettings
from screener_nnu.densities.neighbour_search import CHUNK_BYTES, row_distances

_LONG = 8


def new_gaussian(dim: int, settings: GaussianPcaSettings) -> GaussianPcaDensity:
    """The Gaussian that settings with more than its own ask for, not yet fitted."""
    own = {field.name: getattr(settings, field.name) for field in fields(GaussianPcaSettings)}
    return GaussianPcaDensity(dim, **own)


@torch.no_grad()
def mahalanobis(gaussian: GaussianPcaDensity, rows: Tensor) -> Tensor:
    """Mahalanobis distances (m,) of rows (m, d); each depends on its row alone.

    Example:
        >>> gaussian = GaussianPcaDensity(1)
        >>> gaussian.fit(torch.tensor([[-1.0], [0.0], [1.0]]), None, torch.Generator())
        >>> mahalanobis(gaussian, torch.tensor([[3.0]])).round(decimals=2).tolist()
        [3.0]
    """
    parts = [
        _projected(part - gaussian.mean, gaussian.components.T.contiguous())
        for part in rows.split(max(CHUNK_BYTES // (_LONG * rows.shape[1]), 1))
    ]
    whitened = torch.cat(parts) / gaussian.variances.sqrt()
    return row_distances(whitened, torch.zeros_like(whitened))


def _projected(rows: Tensor, matrix: Tensor) -> Tensor:
    """The product of rows (m, d) and a matrix (d, r), each row added up by itself.

    A matrix product sums in an order that may depend on the number of rows and a row's place.
    """
    index = torch.arange(rows.shape[1], device=rows.device).expand_as(rows).contiguous()
    return embedding_bag(index, matrix, mode="sum", per_sample_weights=rows)
