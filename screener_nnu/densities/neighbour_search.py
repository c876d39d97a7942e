"""Exact nearest rows, the same bit for bit however the queries are cut into chunks."""

from __future__ import annotations

import torch
from torch import Tensor

#: A table of one chunk takes so many bytes at most; larger ones do not stay near a core.
CHUNK_BYTES = 16 << 20
_DOUBLE = 8


@torch.no_grad()
def nearest_rows(queries: Tensor, rows: Tensor, k: int, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """Finds the k nearest rows of each query by Euclidean distance.

    Of rows at the same distance, the first are taken. A query's result depends on nothing but the
    query and the rows: not on the other queries, their order or the chunk.

    Args:
        queries: (m, d).
        rows: (n, d).
        k: at most n.
        chunk_bytes: of a table of distances.

    Returns:
        Numbers of the rows, ascending, (m, k).
    """
    if not 1 <= k <= len(rows):
        raise ValueError(f"{k} neighbours of {len(rows)} rows")
    rows = rows.double()
    height = max(chunk_bytes // (_DOUBLE * len(rows)), 1)
    parts = [
        _nearest(queries[first : first + height].double(), rows, k)
        for first in range(0, len(queries), height)
    ]
    return torch.cat(parts) if parts else torch.empty(0, k, dtype=torch.long, device=rows.device)


def row_distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distance of each row (m, d) to the row at the same place in another table, (m,)."""
    return _exact(first[:, None], second[:, None]).view(-1)


def table_of_distances(first: Tensor, second: Tensor) -> Tensor:
    """Distances (m, n) of rows (m, d) and (n, d); each depends on its two rows alone."""
    return _exact(first, second)


def _exact(first: Tensor, second: Tensor) -> Tensor:
    # By matrix products, a distance depends on the shape of the table, and that of a row to itself
    # is not 0.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _nearest(queries: Tensor, rows: Tensor, k: int) -> Tensor:
    """Of one chunk, float64: by matrix product, and again where rounding could decide."""
    if k == len(rows):
        return torch.arange(k, device=rows.device).expand(len(queries), k)
    lengths = rows.square().sum(dim=1)
    partial = torch.addmm(lengths, queries, rows.T, alpha=-2)
    nearest = partial.topk(k + 1, dim=1, largest=False)
    found = nearest.indices[:, :k].sort(dim=1).values
    gap = nearest.values[:, k] - nearest.values[:, k - 1]
    # Bounds the rounding of a sum of d products and of a squared length, for both sides of the gap.
    longest = lengths.max()
    scale = longest + 2 * longest.sqrt() * queries.square().sum(dim=1).sqrt()
    unclear = gap <= 4 * (rows.shape[1] + 2) * torch.finfo(rows.dtype).eps * scale
    if unclear.any():
        ordered = table_of_distances(queries[unclear], rows).sort(dim=1, stable=True)
        found[unclear] = ordered.indices[:, :k].sort(dim=1).values
    return found
