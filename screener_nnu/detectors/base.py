"""What prediction asks of a detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from screener_nnu.plans import Plan, Shape

if TYPE_CHECKING:
    import torch


class Detector(Protocol):
    """A module that scores scans on the plan's grid; higher is more anomalous.

    One that also has a score of a scan as a whole has a method `image_scores(image, body)`, which
    gives it by name for an image (1, C, D, H, W) and its body mask (1, 1, D, H, W).

    Attributes:
        reads: which image of a case it sees: the `equalised` one, `hu`, or HU `normalised` as
            stock nnU-Net does.
        cell: voxels per axis that one score stands for.
        by_position: whether scores are made of pooled maps position by position, so that maps of
            overlapping tiles are averaged and not scores.
        low_precision_cpu: see `networks.unet.low_precision`.

    One that sees images of one size alone has an attribute `tile`, (z, y, x), which takes the place
    of the plan's tile.
    """

    reads: Literal["equalised", "hu", "normalised"]
    cell: Shape
    by_position: bool
    low_precision_cpu: bool

    def __call__(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """Scores (B, d, h, w) of a tile (B, 1, D, H, W), see `Condition.forward`."""


class LoadedDetector(NamedTuple):
    """A trained detector and what belongs to it.

    Attributes:
        module: on the device, in evaluation mode.
        plan: that it was trained with.
        statistics: `mean`, `std`, `lowest` and `highest` of its scores in the bodies of training
            scans, in its unit.
    """

    module: Any
    plan: Plan
    statistics: dict[str, float]

    @property
    def map_statistics(self) -> dict[str, float]:
        """The same of its maps, which may be contrasts of scores: most of their mean is gone.

        Their deviation, lowest and highest value are bounds then.
        """
        inference = self.plan.settings.inference
        if not inference.contrast_mm:
            return self.statistics
        taken = inference.contrast_weight * self.statistics["mean"]
        return {k: v if k == "std" else v - taken for k, v in self.statistics.items()}
