"""Maps of all detectors side by side, on one slice of every kind of anomaly."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from screener_nnu.ablation.anomaly_store import AnomalyStore
from screener_nnu.ablation.counting import ScanVoxels
from screener_nnu.ablation.judged import Judged
from screener_nnu.synthetic.painting_scale import PaintingScale

# Shares of the voxels with a higher score, from dark to bright.
_SHARES = (0.5, 0.1, 0.01, 0.001)
_WIDTH = 2.0


@dataclass
class _Panel:
    """A slice (H, W) of a scan with anomalies of a kind, and the maps of detectors on it."""

    family: str
    kind: str
    image: np.ndarray
    mask: np.ndarray
    shape: float
    maps: dict[str, np.ndarray] = field(default_factory=dict)


class SlicesFigure:
    """Gathers one slice a kind from every detector, and draws them.

    Args:
        stores: anomalies of each family.
    """

    def __init__(self, stores: Sequence[AnomalyStore]) -> None:
        """Paints the scans again."""
        self.panels = [_panel(store, kind) for store in stores for kind in store.kinds]

    def add(self, detector: str, judged: Mapping[str, Judged]) -> None:
        """Takes the slices of one more detector, by family."""
        for panel in self.panels:
            panel.maps[detector] = judged[panel.family].slices[panel.kind]

    def draw(self, names: Sequence[str]) -> bytes:
        """The picture, a row a kind and a column for each of some detectors."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        heights = [
            panel.image.shape[0] / panel.image.shape[1] * panel.shape for panel in self.panels
        ]
        size = _WIDTH * (1 + len(names)) + 1.2, _WIDTH * sum(heights) + 0.1 * len(heights) + 0.4
        figure = Canvas(figsize=size, layout="constrained")
        rows = figure.subplots(
            len(self.panels), 1 + len(names), squeeze=False, height_ratios=heights
        )
        shown = None
        for number, (row, panel) in enumerate(zip(rows, self.panels, strict=True)):
            for axis in row:
                axis.set(xticks=[], yticks=[])
            row[0].imshow(panel.image, cmap="gray", vmin=0, vmax=1, aspect=panel.shape)
            row[0].contour(panel.mask, [0.5], colors="tab:red", linewidths=0.8)
            row[0].set_ylabel(panel.kind, fontsize=9)
            for axis, name in zip(row[1:], names, strict=True):
                limits = {"vmin": -np.log10(_SHARES[0]), "vmax": -np.log10(_SHARES[-1])}
                shown = axis.imshow(panel.maps[name], cmap="inferno", aspect=panel.shape, **limits)
                axis.set_facecolor("black")
                axis.contour(panel.mask, [0.5], colors="cyan", linewidths=0.5)
                if number == 0:
                    axis.set_title(name, fontsize=9)
        rows[0][0].set_title("scan, anomalies", fontsize=9)
        if shown is not None:
            bar = figure.colorbar(shown, ax=rows, ticks=[-np.log10(s) for s in _SHARES], aspect=40)
            bar.ax.set_yticklabels([f"{100 * share:g} %" for share in _SHARES], fontsize=8)
            bar.set_label("voxels of the scan that score higher", fontsize=8)
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        return buffer.getvalue()


def shown_slice(scores: np.ndarray, scan: ScanVoxels) -> np.ndarray:
    """The slice (H, W) of a map with most anomalous voxels, float32, NaN where no voxel counts.

    It shows for each voxel how few of this scan score higher, so that units do not matter.

    Args:
        scores: of the voxels of the scan that count (n,).
        scan: which they are.
    """
    mask, whole = np.zeros(scan.counted.shape, bool), np.zeros(scan.counted.shape)
    mask[scan.counted], whole[scan.counted] = scan.annotated, scores
    middle = _middle(mask)
    inside = scan.counted[middle]
    shown = np.full(inside.shape, np.nan, np.float32)
    shown[inside] = brightness_of(whole[middle][inside], scores)
    return shown


def _middle(mask: np.ndarray) -> int:
    return int(mask.sum(axis=(1, 2)).argmax())


def brightness_of(shown: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Minus the decimal logarithm of the share of scores that are as high as each shown one.

    Args:
        shown: some of the scores (n,).
        scores: all of a scan (m,).
    """
    ordered = np.sort(scores)
    above = scores.size - np.searchsorted(ordered, shown, side="left")
    return np.asarray(-np.log10(np.maximum(above, 1) / scores.size))


def _panel(store: AnomalyStore, kind: str) -> _Panel:
    case = store.names[0]
    made, (mask, _) = store.paint(case, kind), store.masks(case, kind)
    middle = _middle(mask)
    scale = PaintingScale.of(made.hu, store.settings.preprocessing)
    low, high = scale.painted_window
    image = (scale.painted(made.hu)[middle].astype(np.float32) - low) / (high - low)
    return _Panel(
        store.family,
        kind,
        image.clip(0, 1),
        mask[middle],
        scale.spacing[1] / scale.spacing[2],
    )
