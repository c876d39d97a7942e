"""Pictures with a bright spot, and a predictor of them whose map is easily foretold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from scipy import ndimage
from torch import nn

from screener_nnu.inference.predict import AnomalyMap, Predictor
from screener_nnu.planners.planner import ScreenerPlanner
from screener_nnu.plans import Plan
from screener_nnu.preprocessing.modality import PICTURE
from screener_nnu.preprocessing.pictures import write_picture
from screener_nnu.preprocessing.reading import RawImage, read_image

WIDTH, HEIGHT = 61, 44
SPOT = (40, 12)  # x, y


def pixels(channels: int = 1, bits: int = 8, seed: int = 0, spot: float = 0.9) -> np.ndarray:
    """A soft ramp with noise and a spot, (C, H, W); a dark rim of 4 pixels is no body."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    grey = 0.25 + 0.2 * x / WIDTH + np.random.default_rng(seed).normal(0, 0.02, (HEIGHT, WIDTH))
    grey[(x - SPOT[0]) ** 2 + (y - SPOT[1]) ** 2 <= 16] = spot
    grey[:, :4] = 0
    scales = (1.0, 0.6, 0.5)[:channels]
    top = 2**bits - 1
    kind = np.uint8 if bits == 8 else np.uint16
    return np.stack([np.rint(np.clip(grey * s, 0, 1) * top) for s in scales]).astype(kind)


def write(path: Path, **options: float) -> Path:
    """A picture file in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(pixels(**options), path)  # type: ignore[arg-type]
    return path


def read(path: Path, case: str) -> RawImage:
    """A picture as prediction reads it."""
    return read_image(path, case, PICTURE)


@dataclass(frozen=True)
class Difference(Predictor):
    """Scores a pixel by how much it differs from the median, blurred."""

    def predict(self, raw: RawImage) -> AnomalyMap:
        """The map of one picture."""
        grey = raw.array.reshape(-1, *raw.array.shape[-2:]).mean(axis=0)
        body = grey > 0.05 * grey.max()
        score = ndimage.gaussian_filter(np.abs(grey - np.median(grey[body])), 1.0)
        images = []
        for values in (score.astype(np.float32), body.astype(np.uint8)):
            image = sitk.GetImageFromArray(values[None])
            image.SetSpacing(raw.geometry.spacing)
            images.append(image)
        return AnomalyMap(*images)


def plan() -> Plan:
    """Any plan of pictures: a predictor has one."""
    values = {"mean": 0.0, "median": 0.0, "std": 1.0, "min": 0.0, "max": 1.0}
    values |= {"percentile_00_5": 0.0, "percentile_99_5": 1.0}
    return ScreenerPlanner(
        {
            "modality": PICTURE,
            "highest": 255.0,
            "spacings": [[999.0, 1.0, 1.0]] * 4,
            "body_extents_mm": [[999.0, float(HEIGHT), float(WIDTH)]] * 4,
            "foreground_intensity_properties_per_channel": {"0": values},
            "hu_histogram": {"edges": [0.0, 100.0, 256.0], "counts": [2, 1]},
            "cases": {f"case_{i}": {} for i in range(4)},
        },
        "Dataset901_Pictures",
        preset="cpu",
    ).plan()


def predictor() -> Predictor:
    """A predictor without a network."""
    return Difference(nn.Identity(), plan(), -1.0, torch.device("cpu"))  # type: ignore[arg-type]
