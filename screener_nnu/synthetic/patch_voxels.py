"""All voxels of the patches of a batch in one list, however large each patch is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from screener_nnu.synthetic.patch_boxes import PatchBoxes


@dataclass(frozen=True)
class PatchVoxels:
    """N voxels of P patches, patch by patch; coordinates are z, y and x.

    Attributes:
        patch: of each voxel, (N,).
        place: of each voxel, counted from the first one of its patch, (3, N).
        size: edges of its patch, (3, N).
        start, source_start: first voxel of its patch, and of where that is taken from, (3, N).
        image, source_image: that it is pasted into, and that it is taken from, (N,).
        lengths: voxels of each patch, (P,).
    """

    patch: torch.Tensor
    place: torch.Tensor
    size: torch.Tensor
    start: torch.Tensor
    source_start: torch.Tensor
    image: torch.Tensor
    source_image: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def of(cls, boxes: PatchBoxes, count: int) -> PatchVoxels:
        """Lists the voxels of some patches, so many in all."""
        lengths = boxes.size.prod(1)
        patches = torch.arange(len(lengths), device=lengths.device)
        patch = patches.repeat_interleave(lengths, output_size=count)
        first = lengths.cumsum(0) - lengths
        single = torch.stack([boxes.image, boxes.source_image, first], 1)
        table = torch.cat([boxes.size, boxes.start, boxes.source_start, single], 1)
        # index_select takes a fraction of the time of indexing on processors.
        rows_of = table.index_select(0, patch).T.contiguous()
        size, start, source_start, single = rows_of.split(3)
        image, source_image, first = single
        rest = torch.arange(count, device=lengths.device) - first
        rows, columns = size[1], size[2]
        line = rest // columns
        slices = line // rows
        place = torch.stack([slices, line - slices * rows, rest - line * columns])
        return cls(patch, place, size, start, source_start, image, source_image, lengths)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Values (..., P) of the patches as ones (..., N) of their voxels."""
        return values.index_select(-1, self.patch)

    def target(self, shape: torch.Size) -> torch.Tensor:
        """Where the voxels are pasted: (C, N) numbers of those of images (B, C, D, H, W)."""
        return _number(self.image, self.start + self.place, shape) + _colours(shape, self.image)

    def sample(self, images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Values of the patches' sources, linear between voxels; those of whole places are exact.

        Args:
            images: (B, C, D, H, W).
            places: in the source's patch, counted from its first voxel and none beyond its last
                one, (3, N).

        Returns:
            (C, N).
        """
        shape, low = images.shape, places.long()
        has_next, part = low + 1 < self.size, places - low
        number = _number(self.source_image, self.source_start + low, shape)[None]
        weight = torch.ones_like(part[:1])
        for axis, stride in enumerate((shape[3] * shape[4], shape[4], 1)):
            if shape[2 + axis] > 1:
                number = torch.cat([number, number + stride * has_next[axis]])
                weight = torch.cat([weight * (1 - part[axis]), weight * part[axis]])
        # Of 2, 4 or 8 neighbours, (C, neighbours, N).
        number = number + _colours(shape, low)[:, None]
        values = images.reshape(-1).index_select(0, number.flatten()).view(number.shape)
        return (values * weight).sum(1)


def _number(image: torch.Tensor, place: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Numbers (N,) of voxels (3, N) of images (N,) of that shape, in their first colour."""
    _, colours, depth, rows, columns = shape
    z, y, x = place
    return ((image * colours * depth + z) * rows + y) * columns + x


def _colours(shape: torch.Size, like: torch.Tensor) -> torch.Tensor:
    """How far (C, 1) the colours of a voxel are from the first one."""
    colours = torch.arange(shape[1], device=like.device)
    return colours[:, None] * (shape[2] * shape[3] * shape[4])
