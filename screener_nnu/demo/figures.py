"""Pictures of the page: maps over CT slices, and how the stages learned.

Arrays are `(z, y, x)` of a scan in LPS (x to the patient's left, y to the back, z to the head).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

HU_WINDOW = (-400.0, 250.0)
SHOWN_PERCENTILES = (80.0, 99.8)
_PIXELS_PER_MM = 1.3
_LESION_COLOUR = "#27e0d0"
_COLOURS = "inferno"
_OPACITY = 0.85

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class OverlayCase:
    """A test scan with its maps.

    Attributes:
        image_hu: CT in HU.
        spacing: voxel size (z, y, x) in mm.
        body: body mask.
        lesions: annotation; all false in a normal scan.
        maps: anomaly map of each method.
    """

    image_hu: NDArray[Any]
    spacing: tuple[float, float, float]
    body: NDArray[np.bool_]
    lesions: NDArray[np.bool_]
    maps: dict[str, FloatArray]


@dataclass(frozen=True)
class StageCurve:
    """How a stage learned.

    Attributes:
        stage: its name.
        figure_name: what its validation figure is.
        losses, figures: values after each epoch.
        reference: the figure of the untrained network.
        seconds: training time.
    """

    stage: str
    figure_name: str
    losses: Sequence[float]
    figures: Sequence[float]
    reference: float
    seconds: float


def score_window(cases: Sequence[OverlayCase], method: str) -> tuple[float, float]:
    """Scores that are transparent at most and in full colour at least, the same in all cases."""
    inside = np.concatenate([case.maps[method][case.body] for case in cases])
    low, high = np.percentile(inside, SHOWN_PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


def shown_slice(case: OverlayCase, axis: int, method: str) -> int:
    """The slice with most of a lesion; in a normal scan the one with the highest score."""
    others = tuple(other for other in range(3) if other != axis)
    if case.lesions.any():
        return int(case.lesions.sum(axis=others).argmax())
    inside = np.where(case.body, case.maps[method], -np.inf)
    return int(np.unravel_index(inside.argmax(), inside.shape)[axis])


def draw_slice(
    case: OverlayCase,
    axis: int,
    index: int,
    method: str | None = None,
    window: tuple[float, float] = (0.0, 1.0),
) -> bytes:
    """PNG of a CT slice with the outlines of its lesions, and a map over it.

    Args:
        case: the scan.
        axis: 0 for an axial, 1 for a coronal slice.
        index: of the slice.
        method: whose map lies over it; None for the CT alone.
        window: of `score_window`.
    """
    step = [s for other, s in enumerate(case.spacing) if other != axis]
    image = _plane(case.image_hu, axis, index)
    height, width = (n * s * _PIXELS_PER_MM / 100 for n, s in zip(image.shape, step, strict=True))
    figure = Figure(figsize=(width, height), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    shape: dict[str, Any] = {"aspect": "auto", "interpolation": "bilinear"}
    axes.imshow(image, cmap="gray", vmin=HU_WINDOW[0], vmax=HU_WINDOW[1], **shape)
    if method is not None:
        scores, body = (_plane(v, axis, index) for v in (case.maps[method], case.body))
        axes.imshow(_coloured(scores, body, window), **shape)
    lesions = _plane(case.lesions, axis, index)
    if lesions.any():
        axes.contour(lesions, levels=[0.5], colors=_LESION_COLOUR, linewidths=1.2)
    return _png(figure)


def _plane(array: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """A slice as it is looked at: front or head on top."""
    plane = array.take(index, axis)
    return plane[::-1] if axis else plane


def _coloured(
    scores: FloatArray, body: NDArray[np.bool_], window: tuple[float, float]
) -> NDArray[np.float64]:
    """RGBA `(rows, columns, 4)`; the higher the score, the less of the CT is seen."""
    level = np.clip((scores - window[0]) / (window[1] - window[0]), 0, 1)
    colours = np.asarray(colormaps[_COLOURS](0.25 + 0.75 * level), dtype=np.float64)
    colours[..., 3] = np.where(body, _OPACITY * np.sqrt(level), 0)
    return colours


def colour_stops(count: int = 6) -> list[str]:
    """Colours of the maps from low to high, as in a style sheet."""
    levels = np.linspace(0.25, 1, count)
    return ["#{:02x}{:02x}{:02x}".format(*c[:3]) for c in colormaps[_COLOURS](levels, bytes=True)]


def draw_curve(curve: StageCurve) -> bytes:
    """PNG of training loss and validation figure of a stage, beside the untrained network's."""
    figure = Figure(figsize=(6.4, 2.6), dpi=110, layout="constrained")
    loss, score = figure.subplots(1, 2)
    loss.plot(range(1, len(curve.losses) + 1), curve.losses, color="#2b6cb0", marker=".")
    loss.set_title("training loss", fontsize=10)
    epochs = range(1, len(curve.figures) + 1)
    score.plot(epochs, curve.figures, color="#2f855a", marker=".", label="trained")
    if math.isfinite(curve.reference):
        score.axhline(curve.reference, color="#718096", linestyle="--", label="untrained")
    score.set_title(curve.figure_name, fontsize=10)
    score.legend(fontsize=8, frameon=False)
    for axes in (loss, score):
        axes.set_xlabel("epoch", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_xlim(0.5, max(len(curve.losses), 2) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    stream = BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
