"""Contrast of whole images in classes, seen from the centres of the classes: PMSACL."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# A shorter difference from a centre has no direction.
_SHORTEST = 1e-6


class ClassContrast(nn.Module):
    r"""Draws views of one changed image together and all others apart, less within a class.

    With :math:`u_a` the N embeddings of unit length, :math:`P(a)` the positives of view a,
    :math:`F(a)` the other views of its class that are no positives, and :math:`O(a)` those of other
    classes,

    .. math:: L = \frac{1}{N} \sum_a \Big[ -\frac{1}{|P(a)|} \sum_{p \in P(a)} u_a u_p / \tau
        + \log \Big( \sum_{b \in P(a) \cup O(a)} e^{u_a u_b / \tau}
        + \sum_{b \in F(a)} e^{u_a u_b / (\alpha \tau)} \Big) \Big]

    `pairs` has one positive, the other view of the same changed image; the loss is then above 0,
    with alpha 1 it is NT-Xent over all views, and a higher alpha lets views of a class repel each
    other less. `classes` has all other views of the class as positives: SupCon; alpha
    has no effect then.

    References:
        Tian et al., Self-supervised Pseudo Multi-class Pre-training for Unsupervised Anomaly
        Detection and Segmentation in Medical Images, 2021, equations 5 and 7, with 1 / tau where
        they print 1/2 (https://arxiv.org/abs/2109.01303).
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML
        2020, equation 1 (https://arxiv.org/abs/2002.05709).
        Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2, as a mean over
        views (https://arxiv.org/abs/2004.11362).

    Args:
        temperature: tau.
        alpha: of the temperature between views of a class; `math.inf` for none between them.
        positives: `pairs` or `classes`.

    Raises:
        ValueError: a temperature or an alpha that is not positive, or another name.

    Example:
        >>> u = torch.eye(2).repeat_interleave(2, dim=0)
        >>> numbers = torch.tensor([0, 0, 1, 1])
        >>> loss, terms = ClassContrast()(u, numbers, numbers)
        >>> round(loss.item(), 4), sorted(terms)
        (0.0134, ['attraction', 'repulsion'])
    """

    def __init__(
        self, temperature: float = 0.2, alpha: float = 1.0, positives: str = "pairs"
    ) -> None:
        """Stores the settings; there is nothing to learn."""
        super().__init__()
        if not (temperature > 0 and alpha > 0):
            raise ValueError(
                f"temperature and alpha must be positive, not {temperature} and {alpha}"
            )
        if positives not in ("pairs", "classes"):
            raise ValueError(f"positives must be 'pairs' or 'classes', not {positives!r}")
        self.temperature = temperature
        self.alpha = alpha
        self.positives = positives
        self._checked = False

    def forward(
        self, u: Tensor, sources: Tensor, classes: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss in float32 (float64 inputs stay float64), under autocast too.

        Args:
            u: embeddings of unit length, (N, D), in any order, also of several processes.
            sources: number of the changed image that a view is of, (N,): the same for two views
                of one image in one class, and for no others.
            classes: class of each view, (N,).

        Returns:
            The scalar loss, and the two terms whose sum it is, detached: `attraction`, the mean of
            -<u_a, u_p> / tau, and `repulsion`, the mean logarithm of the sum of exponentials.

        Raises:
            ValueError: the shapes differ; in the first call, of `pairs`, a source that has other
                than two views or these in two classes; of `classes`, a class of one view.
        """
        if u.ndim != 2 or not sources.shape == classes.shape == u.shape[:1]:
            shapes = ", ".join(str(tuple(values.shape)) for values in (u, sources, classes))
            raise ValueError(f"a contrast needs (N, D), (N,) and (N,) tensors, got {shapes}")
        others = ~torch.eye(len(u), dtype=torch.bool, device=u.device)
        of_class = (classes[:, None] == classes) & others
        positive = self._positives(sources, of_class, others)
        with torch.autocast(u.device.type, enabled=False):
            u = u.to(torch.promote_types(u.dtype, torch.float32))
            similarity = u @ u.T / self.temperature
            number = positive.sum(dim=1)
            attraction = -((similarity * positive).sum(dim=1) / number).mean()
            scaled = torch.where(of_class & ~positive, similarity / self.alpha, similarity)
            repulsion = scaled.masked_fill(~others, -math.inf).logsumexp(dim=1).mean()
            loss = attraction + repulsion
        return loss, {"attraction": attraction.detach(), "repulsion": repulsion.detach()}

    def _positives(self, sources: Tensor, of_class: Tensor, others: Tensor) -> Tensor:
        """Which views (N, N) a view is drawn to; they are checked in the first call."""
        positive = (
            of_class if self.positives == "classes" else (sources[:, None] == sources) & others
        )
        if not self._checked:  # the only look at the device
            self._check(positive, of_class)
            self._checked = True
        return positive

    def _check(self, positive: Tensor, of_class: Tensor) -> None:
        """Refuses batches that are made otherwise than a loss of this kind needs."""
        if self.positives == "classes" and not positive.any(dim=1).all():
            raise ValueError("a class of one view has no positives: give two views or more")
        paired = (positive.sum(dim=1) == 1) & (positive & of_class).any(dim=1)
        if self.positives == "pairs" and not paired.all():
            raise ValueError("each source needs exactly two views, and these in one class")


def centred(z: Tensor, centres: Tensor | None, classes: Tensor) -> Tensor:
    """Directions of embeddings as seen from the centres of their classes.

    Computed in float32 (float64 inputs stay float64), under autocast too.

    Args:
        z: embeddings, (N, D), of any length.
        centres: (C, D), constant; `None` for directions as seen from the origin.
        classes: class of each embedding, (N,), below C.

    Returns:
        (z - c) / max(||z - c||, 1e-6), (N, D); 0 where an embedding is its centre.

    References:
        Tian et al. 2021, equation 6 (https://arxiv.org/abs/2109.01303).
    """
    with torch.autocast(z.device.type, enabled=False):
        return F.normalize(_from_centres(z, centres, classes), dim=1, eps=_SHORTEST)


def centring_loss(z: Tensor, centres: Tensor, classes: Tensor) -> Tensor:
    """Mean over views of the squared distance ||z - c||^2 to the centre of the own class.

    Args:
        z, centres, classes: as `centred` takes them.

    Returns:
        A scalar in float32 or better, under autocast too.

    References:
        Tian et al. 2021, equation 3 (https://arxiv.org/abs/2109.01303).
    """
    with torch.autocast(z.device.type, enabled=False):
        return _from_centres(z, centres, classes).square().sum(dim=1).mean()


def _from_centres(z: Tensor, centres: Tensor | None, classes: Tensor) -> Tensor:
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    return z if centres is None else z - centres.to(z.dtype)[classes]


def class_means(z: Tensor, classes: Tensor, count: int) -> Tensor:
    """Mean embedding of each class, in float64 on the CPU, so that it is that of every device.

    Args:
        z: embeddings, (N, D), on any device.
        classes: class of each, (N,).
        count: of classes, C.

    Returns:
        (C, D), where `z` is, in its precision but float32 at least.

    Raises:
        ValueError: a class without views.
    """
    members = (classes.cpu() == torch.arange(count)[:, None]).double()
    sizes = members.sum(dim=1, keepdim=True)
    if not sizes.all():
        empty = (sizes[:, 0] == 0).nonzero().flatten().tolist()
        raise ValueError(f"classes without views have no mean: {', '.join(map(str, empty))}")
    means = members @ z.detach().cpu().double() / sizes
    return means.to(z.device, torch.promote_types(z.dtype, torch.float32))


def random_centres(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Unit vectors (count, dim) of random directions, on the generator's device."""
    drawn = torch.randn(count, dim, generator=generator, device=generator.device)
    return F.normalize(drawn, dim=1)


def equidistant_centres(count: int, dim: int) -> Tensor:
    """Unit vectors (count, dim) with equal distances: a simplex around the origin.

    Raises:
        ValueError: `dim` is below `count` - 1, where there is none.

    Example:
        >>> equidistant_centres(2, 3).tolist()
        [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
    """
    if dim < max(1, count - 1):
        raise ValueError(f"{count} equidistant centres need {count - 1} dimensions, not {dim}")
    centres = torch.zeros(count, dim, dtype=torch.float64)
    # Each axis parts one corner from all later ones, which share what is left of the unit sphere.
    radius = 1.0
    for axis in range(count - 1):
        later = count - 1 - axis
        centres[axis, axis] = radius
        centres[axis + 1 :, axis] = -radius / later
        radius *= math.sqrt(1 - 1 / later**2)
    if count == 1:
        centres[0, 0] = 1.0
    return centres.float()
