"""Centres of the classes of image-level pre-training, and how they are measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from screener_nnu.losses.pmsacl import class_means, equidistant_centres, random_centres
from screener_nnu.pretext_settings import MethodSettings
from screener_nnu.sampling.randomness import torch_generator

# Images that centres are the means of: twice the training set, and not too many.
_PASSES, _MOST = 2, 2000
# At least so many, and else no more than this part of the images that training draws.
_LEAST, _PART = 64, 8


class Centres:
    """One centre a class, or none at all.

    Attributes:
        values: (classes, width), float32; None of a method without centres.
        measured: whether they are means of embeddings.
    """

    def __init__(self, method: MethodSettings, width: int, seed: int, device: torch.device) -> None:
        """Draws or places those that are not measured."""
        kind = method.centring if method.has_centres else "none"
        self.measured = kind in ("initial", "reestimated")
        self.values: torch.Tensor | None = None
        if self.measured:
            self.values = torch.zeros(method.classes, width, device=device)
        elif kind == "random":
            generator = torch_generator(torch.device("cpu"), seed, "pretext random centres", 0)
            self.values = random_centres(method.classes, width, generator).to(device)
        elif kind == "equidistant":
            self.values = equidistant_centres(method.classes, width).to(device)
        self._rows: list[torch.Tensor] = []
        self._classes: list[torch.Tensor] = []

    @staticmethod
    def images(training: int, drawn: int) -> int:
        """How many images the means are made of.

        Args:
            training: images of the training set.
            drawn: images that the whole training draws; measuring must not take as long.
        """
        return min(_PASSES * training, _MOST, max(_LEAST, drawn // _PART))

    @contextmanager
    def measuring(self, model: nn.Module) -> Iterator[None]:
        """Begins a measurement; what `add` gets meanwhile is averaged.

        Batch normalisation uses the statistics of each batch, as in training, and its running
        statistics stay as they were.
        """
        assert self.values is not None
        self._rows, self._classes = [], []
        kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
        mode = model.training
        model.train()
        try:
            yield
        finally:
            model.train(mode)
            for buffer, value in kept:
                buffer.copy_(value)
        rows, classes = torch.cat(self._rows), torch.cat(self._classes)
        self.values = class_means(rows, classes, len(self.values))

    def add(self, rows: torch.Tensor, classes: torch.Tensor) -> None:
        """Counts rows (N, width) to the means of their classes (N,)."""
        self._rows.append(rows.float())
        self._classes.append(classes)

    def distances(self, rows: torch.Tensor, classes: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean distance of rows to the centre of each class, for the log."""
        assert self.values is not None
        lengths = (rows - self.values[classes]).norm(dim=1)
        found = {}
        for label in range(len(self.values)):
            own = classes == label
            found[f"distance_{label}"] = (lengths * own).sum() / own.sum().clamp_min(1)
        return found

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The centres, where there are some."""
        return {} if self.values is None else {"centres": self.values}

    def load_state_dict(self, heads: dict[str, torch.Tensor]) -> None:
        """Takes the centres out of what a checkpoint holds beside the encoder."""
        stored = heads.pop("centres", None)
        if stored is not None and self.values is not None:
            self.values = stored.to(self.values.device)
