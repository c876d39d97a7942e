"""How well a density finds synthetic anomalies in held-out scans: a figure without labels."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from screener_nnu.evaluation.weighted import weighted_auroc
from screener_nnu.inference.map_store import MapStore
from screener_nnu.plans import ScreenerSettings, Shape
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.cases import AnomalousCase, anomalous_case
from screener_nnu.trainers.score_statistics import body_cells

_MAX_SCANS = 12

Score = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


class AnomalyCheck:
    """AUROC of each kind of anomaly in up to 12 validation scans.

    The frozen networks see every scan with anomalies once; an epoch then costs one pass of the
    density. Large scans are cut to two tiles of prediction an axis.

    Args:
        store: of the maps.
        cases: folder of the cases.
        plan: nnU-Net's plan dictionary.
    """

    def __init__(self, store: MapStore, cases: CaseFolder, plan: dict[str, Any]) -> None:
        """Takes the validation scans of the plan."""
        self.store, self.cases = store, cases
        self.settings = ScreenerSettings.from_dict(plan["screener"])
        names = self.settings.split.validation
        places = np.linspace(0, len(names) - 1, min(_MAX_SCANS, len(names))).astype(int)
        self.names = tuple(names[i] for i in places)
        # The donors of foreign tissue are among them, so other names are other anomalies.
        self._key = f"{self.settings.seed}_{zlib.crc32(' '.join(self.names).encode()):08x}"
        self._voxels: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def prepare(self) -> None:
        """Paints the anomalies and computes all maps."""
        pairs = [(case, kind) for kind in KINDS for case in self.names]
        for case, kind in tqdm(pairs, desc="synthetic anomalies", unit="scan"):
            self._counted(case, kind)

    def auroc(self, score: Score) -> dict[str, float]:
        """AUROC of the body's voxels, pooled over the scans, for each kind and their `mean`.

        Args:
            score: (y, c) -> (1, d, h, w), higher is more anomalous.
        """
        figures = {}
        for kind in KINDS:
            scores: list[np.ndarray] = []
            positive: list[np.ndarray] = []
            negative: list[np.ndarray] = []
            for case in self.names:
                y, c = self._maps(case, kind, None)
                device = self.store.device
                found = score(y.to(device), None if c is None else c.to(device))
                scores.append(found.cpu().double().numpy().ravel())
                anomalous, other = self._counted(case, kind)
                positive.append(anomalous.ravel())
                negative.append(other.ravel())
            pooled = (np.concatenate(values) for values in (scores, positive, negative))
            figures[kind] = weighted_auroc(*pooled)
        figures["mean"] = float(np.mean(list(figures.values())))
        return figures

    def _anomalous(self, case: str, kind: str) -> AnomalousCase:
        made = anomalous_case(
            self.cases, case, self.names, kind, self.settings.preprocessing, self.settings.seed
        )
        limit = 2 * np.array(self.settings.inference.teacher_tile)
        size = np.minimum(made.hu.shape, limit)
        first = (np.array(made.hu.shape) - size) // 2
        box = tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))
        return AnomalousCase(made.hu[box], made.equalised[box], made.mask[box], made.body[box])

    def _maps(
        self, case: str, kind: str, made: AnomalousCase | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        def image() -> torch.Tensor:
            return torch.from_numpy((made or self._anomalous(case, kind)).equalised)

        return self.store.maps(f"{case}__{kind}_{self._key}", image)

    def _counted(self, case: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Voxels of each position, counted once; the maps are stored on the way."""
        if (case, kind) not in self._voxels:
            made = self._anomalous(case, kind)
            y, _ = self._maps(case, kind, made)
            self._voxels[case, kind] = self._counts(made, tuple(y.shape[2:]))  # type: ignore[arg-type]
        return self._voxels[case, kind]

    def _counts(self, made: AnomalousCase, cells: Shape) -> tuple[np.ndarray, np.ndarray]:
        """Voxels of anomalies and other voxels of the body in each position."""
        cell = self.store.features.pooling
        grid: Shape = made.hu.shape  # type: ignore[assignment]
        masks = (made.mask & made.body, made.body & ~made.mask)
        counts = [
            body_cells(torch.from_numpy(m.astype(np.uint8)), grid, cell, cells) for m in masks
        ]
        positive, negative = (count.double().numpy() * np.prod(cell) for count in counts)
        return positive, negative
