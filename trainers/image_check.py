"""How well a detector of images of one size finds synthetic anomalies in held-out scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from screener_nnu.descriptors.base import EQUALISED, ImageKind
from screener_nnu.errors import CaseError
from screener_nnu.evaluation.metrics import weighted_auroc
from screener_nnu.plans import Plan, Shape
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.trainers.painted_scans import PaintedScans
from screener_nnu.trainers.score_statistics import require_finite


class _Part(NamedTuple):
    """What is scored of a scan: image (C, D, H, W), anomalies and other voxels of the body."""

    image: torch.Tensor
    positive: np.ndarray
    negative: np.ndarray


class ImageCheck(PaintedScans):
    """AUROC of each kind of anomaly in one image around it, of up to 12 validation scans.

    Images are kept in memory in half precision: of pictures the whole, of volumes a crop.

    Args:
        cases: folder of the cases.
        plan: whose split says which scans.
        size: of the images, (z, y, x).
        reads: which image it is.
    """

    def __init__(
        self, cases: CaseFolder, plan: Plan, size: Shape, reads: ImageKind = EQUALISED
    ) -> None:
        """Paints nothing yet; see `prepare`."""
        super().__init__(cases, plan)
        self.size, self.reads = size, reads
        self._parts: dict[tuple[str, str], _Part] = {}

    def _stored(self, case: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        made = self.painted(case, kind)
        shape = np.array(made.mask.shape)
        size = np.minimum(shape, self.size)
        places = np.argwhere(made.mask & made.body)
        if not len(places):
            raise CaseError(case, f"no anomaly of kind {kind} lies in its body")
        middle = places[len(places) // 2]  # their mean may lie between two of them
        first = np.clip(middle - size // 2, 0, shape - size)
        box: Any = (..., *(slice(a, a + n) for a, n in zip(first, size, strict=True)))
        image = made.image(self.reads)[box].half()
        mask, body = made.mask[box], made.body[box]
        part = _Part(image if image.ndim == 4 else image[None], mask & body, body & ~mask)
        self._parts[case, kind] = part
        return part.positive, part.negative

    def auroc(
        self,
        score: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        left_out: Sequence[str] = (),
    ) -> dict[str, float]:
        """AUROC of the body's voxels, pooled over the scans, for each kind and their `mean`.

        Args:
            score: image (1, C, D, H, W) -> (1, D, H, W), higher is more anomalous.
            device: of what scores.
            left_out: kinds that the mean leaves out, unless there are no others.

        Raises:
            ScreenerError: a score is no finite number.
        """
        figures: dict[str, float] = {}
        for kind in self.kinds:
            scores, counted = [], []
            for case in self.names:
                part = self._parts[case, kind]
                found = score(part.image[None].to(device).float())
                require_finite(f"scores of {case} with synthetic anomalies ({kind})", found)
                scores.append(found.cpu().double().numpy().ravel())
                counted.append(np.stack([part.positive.ravel(), part.negative.ravel()]))
            positive, negative = np.concatenate(counted, axis=1).astype(np.float64)
            figures[kind] = float(weighted_auroc(np.concatenate(scores), positive, negative))
        others = [figure for kind, figure in figures.items() if kind not in left_out]
        figures["mean"] = float(np.nanmean(others or list(figures.values())))
        return figures
