"""`ProbeTrainer`: a light head on a frozen network, fitted in seconds, validated by nnU-Net."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from tqdm import tqdm

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import unwrap
from screener_nnu.finetuning.probe import (
    Voxels,
    cut,
    draw_corner,
    draw_places,
    fit_head,
    weights_of,
)
from screener_nnu.finetuning.settings import ProbeSettings
from screener_nnu.networks.probed import ProbedUNet
from screener_nnu.plans import write_json
from screener_nnu.trainers.stock_named import StockNamedTrainer

# Of drawn features; of many cases, labels and channels fewer voxels of a patch are drawn.
_MOST_BYTES = 1 << 30


class ProbeTrainer(StockNamedTrainer):
    """Fits the head of a `ProbedUNet` on voxels of patches of the training cases.

    Patches are of the plan's size, so that the frozen network works as in prediction; half of them
    lie around a voxel of a class, each class alike likely. Features are computed once, then the
    head is fitted; there are no epochs. Predictions are not mirrored, which would take eight times
    as long.
    """

    dataset_class: Any

    settings_class: ClassVar[type[ProbeSettings]] = ProbeSettings

    @cached_property
    def probe(self) -> ProbeSettings:
        """Settings, which the plan holds."""
        return self.settings_class.of_plan(self.plans_manager.plans)

    def initialize(self) -> None:
        """Builds the network, which has one output."""
        self.enable_deep_supervision = False
        super().initialize()

    def _do_i_compile(self) -> bool:
        """Not for a few patches."""
        return False

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """The network has one output."""

    @property
    def probed(self) -> ProbedUNet:
        """The network.

        Raises:
            ScreenerError: the plan is none of a probe.
        """
        network = unwrap(self.network)
        if not isinstance(network, ProbedUNet):
            name = self.plans_manager.plans_name
            raise ScreenerError(f"{name} plans no probe: make its plan by --init NAME:probe")
        return network

    def run_training(self) -> None:
        """Draws voxels, fits the head and writes the final checkpoint."""
        self._write_descriptions()
        self.fit()
        self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_final.pth"))

    def fit(self) -> None:
        """Draws voxels and fits the head."""
        if not self.was_initialized:
            self.initialize()
        network = self.probed.eval()
        voxels, exclusive = self._voxels(network), not self.label_manager.has_regions
        seed = int(torch.randint(1 << 31, (1,)))
        self.print_to_log_file(f"fitting the head on {len(voxels.features)} voxels")
        network.set_head(*fit_head(voxels, self.probe, exclusive, seed))

    def went_astray(self, reason: str) -> str:
        """What is said of weights that are no numbers."""
        return f"the head went astray: {reason}. Fit it anew (--restart) with a lower learning_rate"

    def _write_descriptions(self) -> None:
        """Plan and data set, which nnU-Net reads beside a model."""
        model = Path(self.output_folder_base)
        Path(self.output_folder).mkdir(parents=True, exist_ok=True)
        write_json(model / "plans.json", self.plans_manager.plans)
        write_json(model / "dataset.json", self.dataset_json)
        name = "dataset_fingerprint.json"
        shutil.copyfile(Path(self.preprocessed_dataset_folder_base) / name, model / name)

    def _voxels(self, network: ProbedUNet) -> Voxels:
        """Features, targets and weights of drawn voxels of all training cases."""
        folder = self.preprocessed_dataset_folder
        if self.dataset_class is None:
            self.dataset_class = infer_dataset_class(folder)
        names, _ = self.do_split()
        cases = self.dataset_class(folder, names)
        patch = tuple(self.configuration_manager.patch_size)
        rng = np.random.default_rng(int(torch.randint(1 << 31, (1,))))
        features, labels, counts = [], [], dict[int, int]()
        number_of_labels = len(self.label_manager.all_labels)
        room = _MOST_BYTES // (4 * sum(network.widths) * number_of_labels)
        most = max(1, min(self.probe.voxels, room // (len(names) * self.probe.patches)))
        with tqdm(total=len(names) * self.probe.patches, desc="features", unit="patch") as bar:
            for name in names:
                image, own = self._case(cases, name)
                for label, voxels in zip(*np.unique(own, return_counts=True), strict=True):
                    counts[int(label)] = counts.get(int(label), 0) + int(voxels)
                known = own != self._ignored
                for number in range(self.probe.patches):
                    corner = draw_corner(own.shape, patch, own * known, rng, number % 2 == 0)
                    seen, inside = cut(own, corner, patch), cut(known, corner, patch)
                    places = draw_places(seen, inside, most, rng)
                    found = torch.from_numpy(cut(image, corner, patch)).float()[None]
                    where = torch.from_numpy(places).to(self.device)
                    features.append(network.features(found.to(self.device), where))
                    labels.append(seen.ravel()[places])
                    bar.update()
        all_labels = np.concatenate(labels)
        if not (all_labels > 0).any():
            raise ScreenerError(
                "no labelled voxel was drawn from the training cases: give more cases, or larger "
                "probe settings patches and voxels (-o)"
            )
        weights = torch.from_numpy(weights_of(all_labels, counts)).float()
        targets = torch.from_numpy(self._targets(all_labels)).float()
        device = self.device
        return Voxels(torch.cat(features), targets.to(device), weights.to(device))

    def _case(self, cases: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Normalised image (C, ...) and labels (...) of a case, 0 outside what nnU-Net kept."""
        data, segmentation, _, _ = cases.load_case(name)
        image, labels = np.asarray(data[:]), np.maximum(np.asarray(segmentation[0]), 0)
        if len(self.configuration_manager.patch_size) == 2:
            return image[:, 0], labels[0]
        return image, labels

    @property
    def _ignored(self) -> int:
        """The label that means unknown; -1 where there is none."""
        manager = self.label_manager
        return int(manager.ignore_label) if manager.has_ignore_label else -1

    def _targets(self, labels: np.ndarray) -> np.ndarray:
        """1 where a voxel (n,) belongs to a head, (n, heads)."""
        manager = self.label_manager
        if manager.has_regions:
            groups = [np.atleast_1d(region) for region in manager.foreground_regions]
        else:
            groups = [np.array([label]) for label in manager.all_labels]
        return np.stack([np.isin(labels, group) for group in groups], axis=1)
