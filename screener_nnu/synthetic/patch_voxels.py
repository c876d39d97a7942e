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
    def of(cls, boxes: PatchBoxes) -> PatchVoxels:
        """Lists the voxels of some patches."""
        lengths = boxes.size.prod(1)
        patches = torch.arange(len(lengths), device=lengths.device)
        patch = patches.repeat_interleave(lengths, output_size=boxes.voxels)
        first = lengths.cumsum(0) - lengths
        table = torch.cat(
            [
                *(boxes.size.T, boxes.start.T, boxes.source_start.T),
                torch.stack([boxes.image, boxes.source_image, first]),
            ]
        )
        size, start, source_start, single = table[:, patch].split(3)
        image, source_image, first = single
        rest = torch.arange(boxes.voxels, device=lengths.device) - first
        rows, columns = size[1], size[2]
        line = rest // columns
        place = torch.stack([line // rows, line % rows, rest % columns])
        return cls(patch, place, size, start, source_start, image, source_image, lengths)

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
        strides = low.new_tensor([shape[3] * shape[4], shape[4], 1])
        ahead = (low + 1 < self.size) * strides[:, None]
        part = places - low
        number = _number(self.source_image, self.source_start + low, shape)[None]
        weight = torch.ones_like(part[:1])
        for axis in range(3):
            if shape[2 + axis] > 1:
                number = torch.cat([number, number + ahead[axis]])
                weight = torch.cat([weight * (1 - part[axis]), weight * part[axis]])
        # Of 2, 4 or 8 neighbours, (C, neighbours, N).
        values = images.reshape(-1)[number + _colours(shape, low)[:, None]]
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
