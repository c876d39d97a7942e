"""Bins and thresholds of every method, shared by all cases of an evaluation and beyond it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.records import DAMAGED
from screener_nnu.files import replacing

BINS_FILE = "bins.npz"


@dataclass(frozen=True)
class MethodBins:
    """Where the scores of one method are counted.

    Attributes:
        edges: lower bounds of the bins `(K,)`.
        froc_thresholds: rising thresholds of the detections `(T,)`.
    """

    edges: NDArray[np.float32]
    froc_thresholds: NDArray[np.float32]

    @cached_property
    def digest(self) -> str:
        """Hash that is equal for equal bins and thresholds."""
        content = self.edges.tobytes() + b"|" + self.froc_thresholds.tobytes()
        return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True)
class Bins:
    """Bins of all methods of an evaluation.

    Attributes:
        methods: bins by method, the maps first and then the baselines.
        signature: hash of the files and settings that the bins were placed by.
        skipped: cases found unusable while the bins were placed, with the reason.
    """

    methods: Mapping[str, MethodBins]
    signature: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes the bins so that a reader sees the old file or the whole new one."""
        about = {
            "methods": list(self.methods),
            "signature": self.signature,
            "skipped": dict(self.skipped),
        }
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
        for number, bins in enumerate(self.methods.values()):
            arrays[f"edges_{number}"] = bins.edges
            arrays[f"froc_thresholds_{number}"] = bins.froc_thresholds
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Bins:
        """Reads bins from their file, or from the folder of an evaluation.

        Raises:
            ScreenerError: when there are none or the file is damaged.
        """
        path = path / BINS_FILE if path.is_dir() else path
        if not path.is_file():
            raise ScreenerError(f"{path} does not exist; name the {BINS_FILE} of an evaluation")
        try:
            with np.load(path, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                methods = {
                    method: MethodBins(
                        stored[f"edges_{number}"], stored[f"froc_thresholds_{number}"]
                    )
                    for number, method in enumerate(about["methods"])
                }
        except (*DAMAGED, TypeError, zipfile.LargeZipFile) as error:
            raise ScreenerError(f"{path} holds no bins or is damaged; evaluate again") from error
        return cls(methods, about["signature"], about["skipped"])

    def restrict(self, names: list[str]) -> Bins:
        """Bins of some methods, in their order.

        Raises:
            ScreenerError: when one of them has no bins here.
        """
        if missing := [name for name in names if name not in self.methods]:
            raise ScreenerError(
                f"no bins of {', '.join(missing)} in --bins, which holds "
                f"{', '.join(self.methods)}; give the maps the same names in both evaluations"
            )
        return Bins({name: self.methods[name] for name in names})
