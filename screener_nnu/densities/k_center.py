"""Greedy choice of rows that leave no row far from a chosen one."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from screener_nnu.densities.neighbour_search import table_of_distances


def greedy_k_center(rows: Tensor, count: int) -> Tensor:
    """Chooses rows one after the other, each the farthest from those chosen before.

    The largest distance of a row to its nearest chosen one is at most twice the smallest that is
    possible. The first row is the one nearest to the mean, so that the choice does not depend on
    the order of rows. Once every row equals a chosen one, no more are chosen.

    References:
        Gonzalez, Clustering to minimize the maximum intercluster distance, Theoretical Computer
        Science 1985.

    Args:
        rows: (N, d), float32.
        count: rows to choose at most.

    Returns:
        Their indices in the order of choice, (<= count,).

    Example:
        >>> greedy_k_center(torch.tensor([[0.0], [1.0], [9.0], [4.0]]), 3).tolist()
        [3, 2, 0]
    """
    mean = rows.cpu().double().mean(dim=0).to(rows)
    chosen = [table_of_distances(rows, mean[None])[:, 0].argmin()]
    nearest = torch.full_like(rows[:, 0], torch.inf)
    for _ in tqdm(range(count - 1), desc="choosing rows", unit="row", disable=None, leave=False):
        torch.minimum(nearest, table_of_distances(rows, rows[chosen[-1]][None])[:, 0], out=nearest)
        farthest = nearest.argmax()
        if nearest[farthest] == 0:
            break
        chosen.append(farthest)
    return torch.stack(chosen)
