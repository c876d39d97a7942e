"""Pooled maps of whole scans, computed once for each network and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from screener_nnu.checkpoints import write_array
from screener_nnu.inference.volume import stitched_maps
from screener_nnu.plans import ScreenerSettings
from screener_nnu.scoring.teacher import FeatureExtractor, weights_hash

MapFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class MapStore:
    """Maps y and c of scans, one float32 file a scan and network: what densities are fitted to.

    A network that several densities share is run once. Files are found by a hash of the weights
    and of what else the maps depend on, so that a network trained anew never meets old maps.

    Args:
        folder: of all stored maps of a set of cases.
        features: the networks.
        plan: nnU-Net's plan dictionary, for tile and strides.
        device: of the networks.
    """

    def __init__(
        self, folder: Path, features: FeatureExtractor, plan: dict[str, Any], device: torch.device
    ) -> None:
        """Hashes both networks."""
        self.folder = folder
        self.features = features
        self.plan = plan
        self.device = device
        self._y_folder = folder / self._identity(features.descriptor)
        self._c_folder = folder / self._identity(features.condition)

    def maps(
        self, name: str, image: Callable[[], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Y (1, d, ...) and c (1, d_cond, ...) of a scan, on the CPU.

        Args:
            name: of the scan; the same name must always mean the same image.
            image: makes the equalised image (D, H, W) on the plan's grid; called when it is needed.
        """
        y = self._map(self._y_folder / f"{name}.npy", image, self.features.descriptor_maps)
        if not self.features.condition.channels:
            return y, None
        return y, self._map(self._c_folder / f"{name}.npy", image, self.features.condition_maps)

    def _map(
        self, path: Path, image: Callable[[], torch.Tensor], function: MapFunction
    ) -> torch.Tensor:
        try:
            return torch.from_numpy(np.load(path, mmap_mode="c"))  # read where it is looked at
        except (OSError, ValueError, EOFError):  # not there yet, or damaged
            cell = self.features.pooling
            made = stitched_maps(function, cell, image().to(self.device), self.plan).cpu()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_array(path, made.numpy())
        return made

    def _identity(self, network: torch.nn.Module) -> str:
        settings = ScreenerSettings.from_dict(self.plan["screener"])
        tile, overlap = settings.inference.teacher_tile, settings.inference.overlap
        rest = [type(network).__name__, self.features.pooling, tile, overlap]
        rest.append(self.features.low_precision_cpu)
        text = weights_hash(network) + json.dumps(rest)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
