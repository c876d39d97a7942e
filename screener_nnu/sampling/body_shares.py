"""How much of a box lies in a body, for many boxes at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class BodyShares:
    """Shares of boxes that lie in bodies, by sums over all voxels before a corner.

    Args:
        bodies: masks (B, D, H, W), or None where all is body.
    """

    def __init__(self, bodies: torch.Tensor | None) -> None:
        """Sums up the bodies."""
        self._sums = None
        if bodies is not None:
            sums = (bodies > 0).int()
            for axis in (1, 2, 3):
                sums = sums.cumsum(axis, dtype=torch.int32)
            self._sums = F.pad(sums, (1, 0, 1, 0, 1, 0))

    def of(self, image: torch.Tensor, start: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """Shares of boxes.

        Args:
            image: of the batch, (B,).
            start: first voxel of each box, (B, N, 3).
            size: edges of each box, of a shape that broadcasts to (B, N, 3).

        Returns:
            (B, N), from 0 to 1.
        """
        if self._sums is None:
            return torch.ones(start.shape[:2], device=start.device)
        ends = torch.stack([start, start + size])
        z, y, x = ends[:, None, None, ..., 0], ends[:, None, ..., 1], ends[..., 2]
        corners = self._sums[image[:, None], z, y, x]  # (2, 2, 2, B, N)
        return corners.diff(dim=0).diff(dim=1).diff(dim=2)[0, 0, 0] / size.prod(-1)
