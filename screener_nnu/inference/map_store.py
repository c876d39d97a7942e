"""Pooled maps of whole scans, computed once for each network and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from screener_nnu.checkpoints import write_array
from screener_nnu.descriptors.base import EQUALISED
from screener_nnu.errors import CaseError
from screener_nnu.inference.sliding_window import Part
from screener_nnu.inference.volume import Images, stitched_maps
from screener_nnu.plans import Plan, Shape
from screener_nnu.scoring.teacher import FeatureExtractor, weights_hash

# Part of what files are found by.
_LAYOUT = "channels last"


@dataclass(frozen=True)
class MapFiles:
    """Where the maps of a descriptor and a condition lie; worker processes read them.

    Attributes:
        y_folder, c_folder: one file a scan; `c_folder` is None without condition.
        pooling: voxels of the plan's grid that one position covers.
    """

    y_folder: Path
    c_folder: Path | None
    pooling: Shape

    def read(self, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Y (1, d, ...) and c (1, d_cond, ...) of a scan; values are read where they are used.

        Raises:
            CaseError: they are not there, or damaged.
        """
        try:
            y = _mapped(self.y_folder / f"{name}.npy")
            return y, None if self.c_folder is None else _mapped(self.c_folder / f"{name}.npy")
        except (OSError, ValueError, EOFError) as error:
            raise CaseError(name, f"its stored maps cannot be read ({error}); run again") from error


def is_current(path: Path, newer_than: float) -> bool:
    """Whether a stored array is there, whole, and not of before a time (s since the epoch)."""
    try:
        if path.stat().st_mtime < newer_than:
            return False
        np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # not there yet, or damaged
        return False
    return True


def _mapped(path: Path) -> torch.Tensor:
    """Maps (1, channels, d, h, w) of a file (1, d, h, w, channels)."""
    return torch.from_numpy(np.load(path, mmap_mode="c")).movedim(-1, 1)


def positions_of(maps: torch.Tensor, places: np.ndarray) -> torch.Tensor:
    """Positions of a stored map (1, channels, d, h, w) by flat index, as (1, channels, n, 1, 1).

    NumPy takes them from a file that was just opened in half of torch's time, sorted ones sooner.
    """
    taken = maps[0].movedim(0, -1).flatten(0, 2).numpy().take(places, axis=0)
    return torch.from_numpy(np.ascontiguousarray(taken.T))[None, ..., None, None]


def maps_folder(cases_folder: Path) -> Path:
    """Where the maps of a folder of cases are kept: beside it."""
    return cases_folder.with_name(f"{cases_folder.name}_maps")


class MapStore:
    """Maps y and c of scans, one float32 file a scan and network: what densities are fitted to.

    The channels of a position lie side by side in a file: positions that are drawn here and there
    are read in half of the time.

    A network that several densities share is run once. Files are found by a hash of the weights
    and of what else the maps depend on, so that a network trained anew, or cases preprocessed with
    other settings, never meet old maps.

    Args:
        folder: of all stored maps of a set of cases.
        features: the networks.
        plan: for tile, strides and preprocessing.
        device: of the networks.
    """

    def __init__(
        self, folder: Path, features: FeatureExtractor, plan: Plan, device: torch.device
    ) -> None:
        """Hashes both networks."""
        self.features = features
        self.plan = plan
        self.device = device
        condition = features.condition
        self.files = MapFiles(
            folder / self._identity(features.descriptor),
            folder / self._identity(condition) if condition.channels else None,
            features.pooling,
        )

    def maps(
        self,
        name: str,
        images: Images,
        newer_than: float = 0.0,
        part: Callable[[], Part] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Y (1, d, ...) and c (1, d_cond, ...) of a scan, on the CPU.

        Args:
            name: of the scan; the same name must always mean the same image.
            images: of the scan; called when they are needed.
            newer_than: files of before this time (s since the epoch) are made anew.
            part: gives of which scan the image is a part; by default it is the whole scan.
        """
        files = self.files
        kinds = [(files.y_folder, self.features.descriptor_maps, self.features.reads)]
        if files.c_folder is not None:
            kinds.append((files.c_folder, self.features.condition_maps, EQUALISED))
        for folder, function, reads in kinds:
            path = folder / f"{name}.npy"
            if is_current(path, newer_than):
                continue
            image, place = images(reads).to(self.device), None if part is None else part()
            divisor = self.features.divisor(self.plan.divisor)
            made = stitched_maps(
                function,
                self.features.pooling,
                image,
                self.plan,
                part=place,
                divisor=divisor,
                reads=reads,
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            write_array(path, np.ascontiguousarray(made.movedim(1, -1).cpu().numpy()))
        return files.read(name)

    def stored(
        self, name: str, newer_than: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """What `maps` gives if it is on disk already, else None; nothing is made."""
        folders = [f for f in (self.files.y_folder, self.files.c_folder) if f is not None]
        if all(is_current(folder / f"{name}.npy", newer_than) for folder in folders):
            return self.files.read(name)
        return None

    def _identity(self, network: torch.nn.Module) -> str:
        settings = self.plan.settings
        tile, overlap = settings.inference.teacher_tile, settings.inference.overlap
        rest = [_LAYOUT, type(network).__name__, self.features.pooling, tile, overlap]
        rest += [self.features.low_precision_cpu, settings.preprocessing.identity()]
        text = weights_hash(network) + json.dumps(rest)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
