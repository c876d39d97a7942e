"""The control of distillation: a target that nothing was learned for, how rare a voxel's HU is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.baselines import BaselineInput, hu_rarity, training_histogram
from screener_nnu.plans import Spacing
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.sampling.spread import spread
from screener_nnu.trainers.score_statistics import MOST_SCANS, statistics_of


class RarityTarget:
    """Minus log density of HU in the bodies of all planned scans, see `evaluation.baselines`.

    Args:
        dataset: whose fingerprint holds the histogram.
        spacing: of the plan's grid (mm).
    """

    def __init__(self, dataset: str, spacing: Spacing) -> None:
        """Reads the histogram."""
        self.histogram = training_histogram(dataset)
        self.spacing = spacing

    def scores(self, hu: torch.Tensor) -> torch.Tensor:
        """Scores (D, H, W) in nats of HU values, on the CPU."""
        values = hu.cpu().numpy()
        inside = np.ones(values.shape, bool)
        edges, counts = self.histogram.edges, self.histogram.counts
        given = BaselineInput(values, inside, self.spacing, edges, counts)
        return torch.from_numpy(hu_rarity(given))

    def statistics(self, cases: CaseFolder, names: Iterable[str]) -> dict[str, float]:
        """Mean, standard deviation, lowest and highest score (nats) in the body of some scans."""
        values = []
        for case in spread(names, MOST_SCANS):
            try:
                hu, body = cases.read(case, "hu"), cases.read(case, "body")
            except CaseError:
                continue  # the reader reports it
            if body.shape == hu.shape:
                values.append(self.scores(torch.from_numpy(hu))[torch.from_numpy(body) > 0])
        if not values:
            raise ScreenerError(
                "hu_rarity as a target needs body masks on the plan's grid: plan with "
                "preprocessing.storage_spacing equal to preprocessing.spacing"
            )
        return statistics_of(values)
