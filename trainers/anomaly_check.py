"""How well a density finds synthetic anomalies in held-out scans: a figure without labels."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from screener_nnu.checkpoints import write_array
from screener_nnu.evaluation.metrics import weighted_auroc
from screener_nnu.inference.map_store import MapStore, positions_of
from screener_nnu.inference.sliding_window import Part
from screener_nnu.inference.volume import body_cells
from screener_nnu.plans import Plan
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.cases import PAINTING_VERSION, AnomalousCase
from screener_nnu.synthetic.painting_scale import blob_settings
from screener_nnu.trainers.painted_scans import PaintedScans
from screener_nnu.trainers.score_statistics import require_finite
from screener_nnu.trainers.storing import Networks, painted_elsewhere, store_all

#: Of the parts of scans that are looked at; raised with every change, as PAINTING_VERSION is.
_PARTS_VERSION = 2

Score = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


class AnomalyCheck(PaintedScans):
    """AUROC of each kind of anomaly in up to 12 validation scans.

    The frozen networks see every scan with anomalies once; an epoch then costs one pass of the
    density. `fill` does that work and may be shared by processes, before `prepare` reads it.

    Args:
        store: of the maps.
        cases: folder of the cases.
        plan: whose split says which scans.
    """

    def __init__(self, store: MapStore, cases: CaseFolder, plan: Plan) -> None:
        """Takes the validation scans of the plan."""
        super().__init__(cases, plan)
        self.store = store
        # The donors of foreign tissue are among them, so other names are other anomalies.
        values = [self.settings.seed, self.names, PAINTING_VERSION, _PARTS_VERSION]
        values += [
            asdict(blob_settings(self.settings.preprocessing)),
            self.settings.inference.teacher_tile,
        ]
        self._key = f"{zlib.crc32(json.dumps(values).encode()):08x}"

    def fill(self, rank: int = 0, ranks: int = 1, networks: Networks | None = None) -> None:
        """Paints every `ranks`-th scan and stores its maps; those on disk stay.

        Args:
            rank, ranks: the share.
            networks: for workers in place of this process, where there are some.
        """
        pairs = [(case, kind) for kind in KINDS for case in self.names][rank::ranks]
        items = {f"{case} ({kind})": (case, kind) for case, kind in pairs}
        elsewhere = networks and partial(painted_elsewhere, networks=networks)
        here = lambda _, item: self.store_painted(*item)  # noqa: E731
        lost = "no synthetic anomalies"
        store_all(items, here, "synthetic anomalies", lost, elsewhere)

    def store_painted(self, case: str, kind: str) -> None:
        """Stores the maps of a scan with a kind of anomalies.

        Raises:
            CaseError: it has no place for them.
        """
        self._stored(case, kind)

    def auroc(self, score: Score, reach: int = 1) -> dict[str, float]:
        """AUROC of the body's voxels, pooled over the scans, for each kind and their `mean`.

        Args:
            score: (y, c) -> (1, d, h, w), higher is more anomalous.
            reach: positions on each side that it looks at; with 0, only those of the body are
                scored, as maps (1, channels, n, 1, 1).

        Raises:
            ScreenerError: a score is no finite number.
        """
        if not self._voxels:
            self.prepare()
        figures = {}
        progress = tqdm(
            total=len(self.kinds) * len(self.names),
            desc="figure",
            unit="scan",
            delay=10,
            leave=False,
        )
        for kind in self.kinds:
            scores, pairs = [], []
            for case in self.names:
                progress.update()
                voxels = np.stack([counts.ravel() for counts in self._voxels[case, kind]])
                y, c = self.store.files.read(self._name(case, kind))
                if not reach:
                    body = np.flatnonzero(voxels.any(axis=0))
                    voxels = voxels[:, body]
                    y, c = positions_of(y, body), None if c is None else positions_of(c, body)
                device = self.store.device
                found = score(y.to(device), None if c is None else c.to(device))
                require_finite(f"scores of {case} with synthetic anomalies ({kind})", found)
                scores.append(found.cpu().double().numpy().ravel())
                pairs.append(voxels)
            positive, negative = np.concatenate(pairs, axis=1)
            figures[kind] = float(weighted_auroc(np.concatenate(scores), positive, negative))
        progress.close()
        figures["mean"] = float(np.nanmean(list(figures.values())))
        return figures

    def _name(self, case: str, kind: str) -> str:
        return f"{case}__{kind}_{self._key}"

    def _anomalous(self, case: str, kind: str) -> tuple[AnomalousCase, Part]:
        """A case with anomalies; of a large one, two tiles an axis around them, and which."""
        made = self.painted(case, kind)
        shape = np.array(made.mask.shape)
        size = np.minimum(shape, 2 * np.array(self.settings.inference.teacher_tile))
        middle = np.rint(np.mean(np.nonzero(made.mask), axis=1)).astype(int)
        first = np.clip(middle - size // 2, 0, shape - size)
        # On the grid of the whole scan's positions, so that a position has the maps it has there.
        first -= first % np.array(self.store.features.pooling)
        box: Any = (..., *(slice(a, a + n) for a, n in zip(first, size, strict=True)))
        part = Part(tuple(first.tolist()), made.mask.shape)  # type: ignore[arg-type]
        images = (made.hu, made.equalised, made.mask, made.body)
        return AnomalousCase(*(image[box] for image in images)), part

    def _stored(self, case: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Voxels of anomalies and other voxels of the body in each position; maps are there then.

        Counts are kept beside the maps, so that they always speak of the same painting.
        """
        changed = self.cases.changed(case)
        path = self.store.files.y_folder / f"{self._name(case, kind)}_voxels.npy"
        painted = cache(lambda: self._anomalous(case, kind))
        self.store.maps(
            self._name(case, kind),
            lambda kind: painted()[0].image(kind),
            changed,
            lambda: painted()[1],
        )
        if not path.is_file() or path.stat().st_mtime < changed:
            write_array(path, np.stack(self._counts(painted()[0])))
        positive, negative = np.load(path).astype(np.float64)
        return positive, negative

    def _counts(self, made: AnomalousCase) -> tuple[np.ndarray, np.ndarray]:
        """Voxels of anomalies and other voxels of the body in each position."""
        cell = self.store.features.pooling
        masks = (made.mask & made.body, made.body & ~made.mask)
        counts = [body_cells(mask, made.mask.shape, cell) for mask in masks]
        positive, negative = (count.numpy() * np.prod(cell) for count in counts)
        return positive, negative
