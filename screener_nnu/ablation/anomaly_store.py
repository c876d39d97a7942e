"""Synthetic anomalies in the scans of a plan's split, painted when needed, their masks kept."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from screener_nnu.checkpoints import write_bytes
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import ScreenerSettings
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.synthetic.cases import (
    FAMILIES,
    PAINTED,
    PLAIN_VERSION,
    VERSIONS,
    AnomalousCase,
    anomalous_case,
    plain_case,
    read_hu_and_body,
)
from screener_nnu.synthetic.painting_scale import PaintingScale, blob_settings

logger = logging.getLogger(__name__)
#: In place of a kind of anomalies: the scan as it is.
NONE = "none"


class AnomalyStore:
    """The same anomalies for every method that is compared.

    Args:
        cases: folder of the cases.
        names: scans to paint into; they give each other foreign tissue.
        settings: of the plan.
        seed: of the anomalies.
        folder: where masks are kept.
        family: of the anomalies, one of `FAMILIES`.

    Attributes:
        kinds: of the anomalies.
        left_out: scans that cannot be read or have no room for a kind, see `fill`.

    Raises:
        ScreenerError: there is no scan to paint into.
    """

    def __init__(
        self,
        cases: CaseFolder,
        names: tuple[str, ...],
        settings: ScreenerSettings,
        seed: int,
        folder: Path,
        family: str = PAINTED,
    ) -> None:
        """Paints nothing yet."""
        if not names:
            raise ScreenerError(
                "the plan keeps no scan for evaluation: plan with --num_test N, or add "
                "--use validation"
            )
        self.cases, self.names, self.settings, self.seed = cases, names, settings, seed
        self.folder, self.family, self.kinds = folder, family, FAMILIES[family]
        self.left_out: list[str] = []

    @property
    def identity(self) -> str:
        """Hash of what the anomalies depend on; a case that was prepared again is another one."""
        blob = blob_settings(self.settings.preprocessing)
        settings = [self.settings.preprocessing.identity(), asdict(blob), VERSIONS[self.family]]
        cases = [(name, self.cases.changed(name)) for name in self.names]
        values = [cases, self.seed, self.settings.data_identifier, *settings]
        # Painted ones, the first family, keep the name that earlier versions gave them.
        values += [] if self.family == PAINTED else [self.family]
        return _hash(values)

    def identity_of(self, case: str, kind: str) -> str:
        """Hash of what one scan with anomalies depends on.

        Without anomalies it is the same for all families. What is painted depends on all scans,
        of which one gives foreign tissue, what is altered on the scan alone.
        """
        if kind != NONE and self.family == PAINTED:
            return self.identity
        settings = self.settings.preprocessing.identity(), self.settings.data_identifier
        values: list[object] = [case, self.cases.changed(case), *settings]
        if kind == NONE:
            values += [PLAIN_VERSION]
        else:
            values += [self.seed, self.family, VERSIONS[self.family]]
        return _hash(values)

    def fill(self) -> None:
        """Paints all anomalies and keeps their masks.

        A scan that cannot be read, or has no room for one of the kinds, is left out of all of them
        and named: every method is judged on the same scans.

        Raises:
            ScreenerError: no scan is left.
        """
        while self.names:
            try:
                self._paint_all()
                return
            except CaseError as error:
                logger.warning("left out: %s", error)
                # Of the case, or of its donor. The others are painted anew: donors of foreign
                # tissue are drawn among them.
                self.names = tuple(name for name in self.names if name != error.case)
                self.left_out.append(error.case)
        raise ScreenerError(
            "synthetic anomalies cannot be painted into any scan: plan with more or larger ones"
        )

    def _paint_all(self) -> None:
        pairs = [(name, kind) for name in self.names for kind in self.kinds]
        for name, kind in tqdm(pairs, desc=f"anomalies ({self.family})", unit="scan"):
            self.masks(name, kind)

    def paint(self, case: str, kind: str) -> AnomalousCase:
        """Paints a case by draws that seed, case and kind decide; none of them for `NONE`."""
        settings = self.settings.preprocessing
        if kind == NONE:
            return plain_case(self.cases, case)
        return anomalous_case(self.cases, case, self.names, kind, settings, self.seed)

    def masks(self, case: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Anomalies, and the voxels that count: those and the body's, both bool (D, H, W)."""
        if kind == NONE:
            body = read_hu_and_body(self.cases, case)[1]
            return np.zeros_like(body), body
        mask, counted = self._stored(case, kind, "mask", "counted")
        return mask, counted

    def change(self, case: str, kind: str) -> np.ndarray:
        """How much each anomalous voxel has changed within the window, (n,) float32, in order.

        In HU, or in what stands for them, see `PaintingScale`.
        """
        return np.zeros(0, np.float32) if kind == NONE else self._stored(case, kind, "change")[0]

    def _stored(self, case: str, kind: str, *keys: str) -> list[np.ndarray]:
        """Some of the arrays that are kept; the others are not unpacked."""
        path = self.folder / f"{case}__{kind}_{self.identity_of(case, kind)}.npz"
        if path.is_file():
            with np.load(path) as stored:
                if "change" in stored:  # earlier versions did not keep it
                    return [stored[key] for key in keys]
        made = self.paint(case, kind)
        arrays = {
            "mask": made.mask,
            "counted": made.body | made.mask,
            "change": self._change(case, made),
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, buffer.getvalue())
        return [arrays[key] for key in keys]

    def _change(self, case: str, made: AnomalousCase) -> np.ndarray:
        before = read_hu_and_body(self.cases, case)[0]
        canvas = PaintingScale.of(before, self.settings.preprocessing)
        images = (canvas.painted(values)[made.mask] for values in (before, made.hu))
        first, second = (np.clip(v, *canvas.painted_window).astype(np.float32) for v in images)
        return np.abs(second - first)


def _hash(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
