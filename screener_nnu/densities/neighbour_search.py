"""Exact nearest rows, the same bit for bit however the queries are cut into chunks."""

from __future__ import annotations

import torch
from torch import Tensor

#: A table of one chunk takes so many bytes at most; larger ones do not stay near a core.
CHUNK_BYTES = 16 << 20
# Largest relative error of rounding, by the precision that products of float32 are allowed.
_ROUNDING = {"highest": 2.0**-24, "high": 2.0**-11, "medium": 2.0**-8}


@torch.no_grad()
def nearest_rows(
    queries: Tensor,
    rows: Tensor,
    k: int,
    chunk_bytes: int = CHUNK_BYTES,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Finds the k nearest rows of each query by Euclidean distance.

    Of rows at the same distance, the first are taken. A query's result depends on nothing but the
    query and the rows: not on the other queries, their order or the chunk. For rows are searched by
    a matrix product, whose rounding depends on its shape, but where rounding could decide, all of
    them are measured one by one.

    Args:
        queries: (m, d).
        rows: (n, d).
        k: at most n.
        chunk_bytes: of a table of distances.
        dtype: that distances are compared in.

    Returns:
        Numbers of the rows, ascending, (m, k).
    """
    if not 1 <= k <= len(rows):
        raise ValueError(f"{k} neighbours of {len(rows)} rows")
    if k == len(rows):
        return torch.arange(k, device=rows.device).repeat(len(queries), 1)
    rows = rows.to(dtype)
    # Far from the origin, products cancel.
    centre = rows.mean(dim=0)
    centred = rows - centre
    lengths = centred.square().sum(dim=1)
    found = torch.empty(len(queries), k, dtype=torch.long, device=rows.device)
    height = max(chunk_bytes // (rows.element_size() * len(rows)), 1)
    for some, part in zip(queries.split(height), found.split(height), strict=True):
        some = some.to(dtype)
        part[:], unclear = _searched(some - centre, centred, lengths, k)
        if unclear.any():
            part[unclear] = _compared_with_all(some[unclear], rows, k)
    return found


def row_distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distance of each row (m, d) to the row at the same place in another table, (m,)."""
    return table_of_distances(first[:, None], second[:, None]).view(-1)


def table_of_distances(first: Tensor, second: Tensor) -> Tensor:
    """Distances (..., m, n) of rows (..., m, d) and (..., n, d); each depends on its two alone."""
    # By matrix products, a distance depends on the shape of the table, and that of a row to itself
    # is not 0.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _searched(queries: Tensor, rows: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Nearest rows (m, k) by a product, and of which queries rounding could decide them, (m,).

    Args:
        queries, rows: around the rows' mean.
        lengths: squared, of the rows.
        k: below their number.
    """
    nearest = torch.addmm(lengths, queries, rows.T, alpha=-2).topk(k + 1, dim=1, largest=False)
    gap = nearest.values[:, k] - nearest.values[:, k - 1]
    single = rows.dtype == torch.float32
    error = _ROUNDING[torch.get_float32_matmul_precision()] if single else 2.0**-53
    # Of a sum of d products, a squared length, a distance measured and the shift to the mean, for
    # both sides of the gap.
    error *= 4 * (rows.shape[1] + 4)
    unclear = gap <= error * (lengths.max().sqrt() + queries.square().sum(dim=1).sqrt()).square()
    return nearest.indices[:, :k].sort(dim=1).values, unclear


def _compared_with_all(queries: Tensor, rows: Tensor, k: int) -> Tensor:
    """Nearest rows (m, k) by their distances, of equals the first."""
    distances = table_of_distances(queries, rows)
    last = distances.topk(k, dim=1, largest=False).values[:, -1:]
    nearer, tied = distances < last, distances == last
    room = k - nearer.sum(dim=1, keepdim=True)
    chosen = nearer | tied & (tied.cumsum(dim=1, dtype=torch.int32) <= room)
    return chosen.nonzero()[:, 1].view(-1, k)
