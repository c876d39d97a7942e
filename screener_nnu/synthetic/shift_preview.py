"""A contact sheet of the classes of image-level pre-training: images, patches and weak views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from screener_nnu.files import replacing
from screener_nnu.plans import Plan
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.sampling.views import weak_views
from screener_nnu.synthetic.shifts import Shift

# Inches of a picture on the sheet; the colour of the patches' outlines.
_INCHES, _OUTLINE = 1.6, "orange"


@dataclass(frozen=True)
class PreviewColumn:
    """Images (B, C, D, H, W) of one class, or their views, and masks (B, 1, D, H, W)."""

    title: str
    images: torch.Tensor
    masks: torch.Tensor


def preview_columns(
    images: torch.Tensor, bodies: torch.Tensor, shift: Shift, classes: int, plan: Plan, seed: int
) -> list[PreviewColumn]:
    """Images of every class, each followed by one weak view.

    Args:
        images: (B, C, D, H, W) in [0, 1].
        bodies: masks (B, D, H, W).
        shift: that makes the classes.
        classes: how many.
        plan: whose settings hold.
        seed: of all draws.
    """
    settings, pretext = plan.settings, plan.settings.pretext
    columns = []
    for label in range(classes):
        generator = torch_generator(images.device, seed, "preview", label)
        changed, masks = shift(images, bodies, label, generator, pretext.medmix)
        views, seen = weak_views(
            changed,
            generator,
            shift.views(pretext.views),
            settings.jitter,
            settings.preprocessing.spacing,
            masks,
        )
        assert seen is not None
        name = f"{label} patches" if shift.of_patches else f"class {label}"
        name = {"0 patches": "no patch", "1 patches": "1 patch"}.get(name, name)
        columns += [PreviewColumn(name, changed, masks), PreviewColumn("weak view", views, seen)]
    return columns


def write_sheet(
    path: Path, title: str, names: Sequence[str], columns: Sequence[PreviewColumn], aspect: float
) -> None:
    """Writes the sheet: a row a case; of volumes the slice with most patch.

    Args:
        path: of the PNG.
        title: above it.
        names: of the cases.
        columns: from left to right.
        aspect: height of a voxel over its width.

    Raises:
        OutputError: it cannot be written.
        ScreenerError: a file is there that is not ours.
    """
    # Imported here: it takes seconds.
    from matplotlib.figure import Figure

    height = columns[0].images.shape[3] * aspect / columns[0].images.shape[4]
    figure = Figure(
        figsize=(_INCHES * len(columns), _INCHES * height * len(names) + 0.8),
        layout="constrained",
        facecolor="black",
    )
    figure.suptitle(title, color="white", fontsize=9)
    axes = figure.subplots(len(names), len(columns), squeeze=False)
    for row, (name, line) in enumerate(zip(names, axes, strict=True)):
        for axis, column in zip(line, columns, strict=True):
            _draw(axis, column.images[row], column.masks[row, 0], aspect)
            if row == 0:
                axis.set_title(column.title, color="white", fontsize=8)
        line[0].set_ylabel(name, color="white", fontsize=6)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _draw(axis: Any, image: torch.Tensor, mask: torch.Tensor, aspect: float) -> None:
    """One image with the outlines of its patches."""
    z = shown_slice(mask.numpy())
    colours = np.moveaxis(image[:, z].numpy(), 0, -1).clip(0, 1)
    axis.imshow(colours, cmap="gray", aspect=aspect, vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])
    outline = mask[z].numpy() > 0
    if outline.any() and not outline.all():
        axis.contour(outline, levels=[0.5], colors=_OUTLINE, linewidths=0.8)


def shown_slice(mask: np.ndarray) -> int:
    """The slice with most patch; of those that are equal the one nearest to the middle."""
    covered = (mask > 0).sum(axis=(1, 2))
    middle = np.abs(np.arange(len(mask)) - (len(mask) - 1) / 2)
    return int(np.lexsort((middle, -covered))[0])
