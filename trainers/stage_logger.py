"""Loss and validation figure of a stage, kept as nnU-Net keeps its own, and their plot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.training.logging.nnunet_logger import LocalLogger

from screener_nnu.checkpoints import write_whole


class StageLogger(LocalLogger):
    """One value a key and epoch; `reference` is the figure of the untrained network."""

    def __init__(self, figure_name: str) -> None:
        """Starts empty."""
        super().__init__()
        self.figure_name = figure_name
        self.reference = math.nan
        self.my_fantastic_logging: dict[str, list[Any]] = {
            key: []
            for key in (
                "train_losses",
                "figures",
                "validation_terms",
                "lrs",
                "preparation_start_timestamps",
                "preparation_end_timestamps",
                "finish_start_timestamps",
                "finish_end_timestamps",
                "epoch_start_timestamps",
                "epoch_end_timestamps",
            )
        }

    def get_checkpoint(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return {"values": self.my_fantastic_logging, "reference": self.reference}

    def load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the values of a checkpoint."""
        self.my_fantastic_logging |= checkpoint["values"]
        self.reference = checkpoint["reference"]

    def plot_progress_png(self, output_folder: str) -> None:
        """Writes `progress.png`: loss, figure beside the untrained network's, learning rate."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        values = self.my_fantastic_logging
        epochs = range(1, len(values["figures"]) + 1)
        figure = Figure(figsize=(13, 3.6), layout="constrained")
        loss, score, rate = figure.subplots(1, 3)
        loss.plot(epochs, values["train_losses"], color="tab:blue", marker=".")
        loss.set(title="training loss", xlabel="epoch")
        score.plot(epochs, values["figures"], color="tab:green", marker=".", label="trained")
        score.axhline(self.reference, color="gray", linestyle="--", label="untrained network")
        score.set(title=f"validation: {self.figure_name}", xlabel="epoch")
        score.legend()
        rate.plot(epochs, values["lrs"], color="tab:orange", marker=".")
        rate.set(title="learning rate", xlabel="epoch")
        for axis in (loss, score, rate):
            axis.grid(alpha=0.3)
        write_whole(Path(output_folder) / "progress.png", FigureCanvasAgg(figure).print_png)


def training_seconds(values: Mapping[str, Any]) -> float | None:
    """Seconds that a stage took, from the values of its log; None where it does not say.

    Maps that are made before the first epoch count, all epochs of a run that was resumed and the
    measuring of its scores, but not the time between its parts.
    """
    spent = []
    for name in ("preparation", "epoch", "finish"):
        times = (values.get(f"{name}_{what}_timestamps", []) for what in ("start", "end"))
        spent += [end - start for start, end in zip(*times, strict=False)]
    return float(sum(spent)) if spent else None
