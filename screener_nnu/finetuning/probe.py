"""A perceptron on frozen features of a few labelled scans: what to sample, and how it is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from screener_nnu.finetuning.settings import ProbeSettings


class Voxels(NamedTuple):
    """Voxels to learn from.

    Attributes:
        features: (n, d) float32.
        targets: (n, heads) float32, 1 where a voxel belongs to the class or region of a head.
        weights: (n,) how many voxels of the scans each stands for, with mean 1.
    """

    features: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def draw_corner(
    shape: Sequence[int],
    patch: Sequence[int],
    labels: NDArray[np.integer],
    rng: np.random.Generator,
    around: bool,
) -> tuple[int, ...]:
    """First voxel of a patch, which may lie before the scan's where the scan is smaller.

    Args:
        shape: of the scan.
        patch: its size.
        labels: of the scan.
        rng: of the draw.
        around: whether a voxel of a class, each class alike likely, is to lie in the patch.
    """
    least = [min(0, (n - p) // 2) for n, p in zip(shape, patch, strict=True)]
    most = [max(n - p, low) for n, p, low in zip(shape, patch, least, strict=True)]
    classes = np.unique(labels[labels > 0]) if around else np.array([])
    if classes.size:
        voxels = np.argwhere(labels == rng.choice(classes))
        voxel = voxels[rng.integers(len(voxels))]
        corner = voxel - [int(rng.integers(p)) for p in patch]
    else:
        corner = [int(rng.integers(low, high + 1)) for low, high in zip(least, most, strict=True)]
    return tuple(int(v) for v in np.clip(corner, least, most))


def cut(values: NDArray[Any], corner: Sequence[int], patch: Sequence[int]) -> NDArray[Any]:
    """A patch (..., *patch) of an array, 0 where it reaches beyond."""
    made = np.zeros((*values.shape[: -len(patch)], *patch), values.dtype)
    source: list[Any] = [...]
    target: list[Any] = [...]
    for first, length, size in zip(corner, patch, values.shape[-len(patch) :], strict=True):
        low, high = max(first, 0), min(first + length, size)
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    made[tuple(target)] = values[tuple(source)]
    return made


def draw_places(
    labels: NDArray[np.integer], inside: NDArray[np.bool_], most: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Flat indices of up to `most` voxels of each label of a patch, without replacement.

    Args:
        labels: of the patch.
        inside: True where it lies in the scan and a label was drawn.
        most: of a label.
        rng: of the draw.
    """
    flat, usable = labels.ravel(), np.flatnonzero(inside.ravel())
    found = []
    for label in np.unique(flat[usable]):
        own = usable[flat[usable] == label]
        found.append(rng.choice(own, min(most, own.size), replace=False))
    return np.concatenate(found) if found else np.zeros(0, np.intp)


def weights_of(labels: NDArray[np.integer], counts: dict[int, int]) -> NDArray[np.float64]:
    """What voxels (n,), drawn alike often from rare and frequent labels, stand for; mean 1.

    Args:
        labels: of the drawn voxels.
        counts: voxels of each label in the scans.
    """
    weights = np.zeros(labels.size)
    for label in np.unique(labels):
        own = labels == label
        weights[own] = counts[int(label)] / own.sum()
    return weights / weights.mean()


def fit_head(
    voxels: Voxels, settings: ProbeSettings, exclusive: bool, seed: int
) -> tuple[nn.Linear, nn.Linear]:
    """Fits a perceptron of one hidden layer by cross-entropy and soft Dice, as nnU-Net's loss is.

    Features are standardised by the mean and deviation of the drawn voxels; the first layer is
    given back for features as they are.

    Args:
        voxels: to learn from.
        settings: width, steps, rate.
        exclusive: whether heads exclude each other (classes) or may overlap (regions).
        seed: of initial weights and batches.

    Returns:
        The first and the last layer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = nn.Linear(voxels.features.shape[1], settings.hidden)
        last = nn.Linear(settings.hidden, voxels.targets.shape[1])
    device = voxels.features.device
    first, last = first.to(device), last.to(device)
    mean, deviation = voxels.features.mean(0), voxels.features.std(0).clamp(min=1e-6)
    parameters = [*first.parameters(), *last.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    generator = torch.Generator(device).manual_seed(seed)
    count, kept = len(voxels.features), 1 - settings.dropout
    size = min(settings.batch, count), settings.hidden
    for _ in range(settings.steps):
        some = torch.randint(count, size[:1], generator=generator, device=device)
        features = (voxels.features[some] - mean) / deviation
        left = torch.rand(size, generator=generator, device=device) < kept
        hidden = F.gelu(first(features)) * left / kept
        loss = _loss(last(hidden), voxels.targets[some], voxels.weights[some], exclusive)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        first.bias.sub_(first.weight @ (mean / deviation))
        first.weight.div_(deviation)
    return first, last


def _loss(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, exclusive: bool
) -> torch.Tensor:
    """Weighted cross-entropy less the mean soft Dice of the foreground of a batch."""
    if exclusive:
        entropy = (F.cross_entropy(logits, targets, reduction="none") * weights).mean()
        chances, wanted = logits.softmax(1)[:, 1:], targets[:, 1:]
    else:
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        entropy = (each.mean(1) * weights).mean()
        chances, wanted = logits.sigmoid(), targets
    shared = (weights[:, None] * chances * wanted).sum(0)
    both = (weights[:, None] * (chances + wanted)).sum(0)
    return entropy - (2 * shared / both.clamp(min=1e-8)).mean()
