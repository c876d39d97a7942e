"""The JSON beside an exported network: all that another program needs to make our map.

This file is the only one that writes it. `make_map.py` reads it, and nothing else but
the body's `body.py`.
Array axes are (z, y, x), spacings likewise (mm); intensities are HU, scores nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from screener_nnu.inference.volume import normalised
from screener_nnu.network_export.graph import INPUT_NAME, OUTPUT_NAME
from screener_nnu.plans import Plan, Shape
from screener_nnu.preprocessing.reading import CANONICAL

FORMAT = "screener_nnu network"
FORMAT_VERSION = 2
_AIR_HU = -1024.0

_STEPS = (
    "Read the scan in HU. Permute and flip its axes to preprocessing.orientation; nothing is "
    "interpolated, an oblique scan keeps its small rotation. All that follows happens there.",
    "Find the body box (preprocessing.body_box) and crop to it.",
    "Clip the crop (preprocessing.image.clip_hu) and resample it to "
    "preprocessing.image.spacing_mm (resampling).",
    "Normalise (preprocessing.normalisation). This is the input of the network.",
    "Run the network on tiles (tiles); its output is the score in nats, the scale is inside.",
    "Find the body mask: clip the crop of step 2 (preprocessing.body_mask.clip_hu), resample "
    "it to preprocessing.body_mask.spacing_mm, apply preprocessing.body_mask.",
    "Resample the scores to the shape of the body box (resampling), and the mask likewise but "
    "to the nearest voxel (resampling.nearest).",
    "Put both into a volume of the size of the scan, filled with "
    "postprocessing.outside_body_nats and 0. Where the mask is 0 the score becomes "
    "postprocessing.outside_body_nats.",
    "Permute and flip the axes back to those of the file.",
)
_RESAMPLING = {
    "order": 1,
    "anti_aliasing": False,
    "align_corners": False,
    "dtype": "float32",
    "shape": "n_out = max(1, round(spacing_in / spacing_out * n_in)) per axis, halves to even",
    "convention": "voxel i of n covers [i, i + 1) / n of the axis. Output voxel i is the linear "
    "interpolation at (i + 0.5) * n_in / n_out - 0.5 input voxels, clamped to 0 .. n_in - 1, per "
    "axis (trilinear). An image that has the wanted shape is left as it is.",
    "nearest": "output voxel i is input voxel floor((2 i + 1) * n_in / (2 n_out)), per axis",
}
_TILE_RULE = (
    "Pad the end of each axis with pad_value to a multiple of the divisor.",
    "Tile per axis: the largest tile, rounded down to a multiple of the divisor (at least "
    "one), and no larger than the padded image. A graph with fixed axes takes exactly its own "
    "shape: pad the image up to that.",
    "Starts per axis: one, 0, if the tile covers the padded axis; else step = max(divisor, "
    "floor(tile * (1 - overlap))), count = ceil((length - tile) / step) + 1 starts, evenly "
    "spaced from 0 to length - tile, each rounded to a multiple of the divisor (halves to "
    "even).",
    "The score of a voxel is the mean over all tiles that hold it, all with equal weight, "
    "float32. Cut off what was padded. The network normalises over what it sees (instance "
    "normalisation), so other tiles give other scores.",
)


@dataclass(frozen=True)
class NetworkModel:
    """What is exported.

    Attributes:
        dataset, plans_name: what the student was trained on and with.
        plan: of the student.
        statistics: of the scores (nats), see `load_student`.
        checkpoint_sha256: of the file that the weights come from.
        license: terms of the weights.
        fixed: shape of the only input that the graph takes; None when its axes are open.
        equalised: whether it reads the images of its teacher, windowed to [0, 1].
    """

    dataset: str
    plans_name: str
    plan: Plan
    statistics: dict[str, float]
    checkpoint_sha256: str
    license: str | None
    fixed: Shape | None
    equalised: bool = False


def describe(
    model: NetworkModel, files: dict[str, dict[str, Any]], versions: dict[str, str]
) -> dict[str, Any]:
    """The values of the JSON.

    Args:
        model: what is exported.
        files: by format: name, bytes, hash and how well it agrees with the student.
        versions: of the packages that wrote the files.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "purpose": "anomaly map (nats) of a CT scan: what is rare, not what is ill; research "
        "software, no medical device",
        "model": {
            "dataset": model.dataset,
            "plans_name": model.plans_name,
            "network": model.plan.architecture["network_class_name"].rpartition(".")[2],
            "checkpoint_sha256": model.checkpoint_sha256,
            "license": model.license,
        },
        "files": files,
        "axes": ["z", "y", "x"],
        "steps": [f"{i}. {text}" for i, text in enumerate(_STEPS, start=1)],
        "preprocessing": _preprocessing(model),
        "resampling": _RESAMPLING,
        "network": _network(model),
        "tiles": _tiles(model),
        "postprocessing": {
            "unit": "nats",
            "score_mean_nats": model.statistics["mean"],
            "score_std_nats": model.statistics["std"],
            "scale_is_in_the_graph": True,
            "outside_body_nats": model.statistics["lowest"],
            "dtype": "float32",
        },
        "precision": "float32. screener_predict computes the UNet in mixed precision on CUDA, and "
        "in bfloat16 on CPUs with such instructions where the plan allows it "
        f"(low_precision_cpu, here {model.plan.settings.low_precision_cpu}).",
        "versions": versions,
    }


def _normalisation(model: NetworkModel) -> dict[str, Any]:
    """From HU to what the network sees."""
    rule = "(min(max(hu, clip_hu[0]), clip_hu[1]) - mean_hu) / std_hu"
    if model.equalised:
        low, high = model.plan.settings.preprocessing.hu_window
        name, numbers = "window to [0, 1]", (low, high, low, high - low)
    else:
        values = model.plan.intensities
        name = "CTNormalization of nnU-Net"
        numbers = values.low, values.high, values.mean, max(values.std, 1e-8)
    clip, mean, std = list(numbers[:2]), *numbers[2:]
    return {"name": name, "rule": rule, "clip_hu": clip, "mean_hu": mean, "std_hu": std}


def _preprocessing(model: NetworkModel) -> dict[str, Any]:
    settings = model.plan.settings.preprocessing
    clip = settings.hu_window if model.equalised else settings.hu_clip
    return {
        "orientation": {
            "code": CANONICAL,
            "meaning": "array axes (z, y, x) point to head, back and left: DICOM's and ITK's LPS "
            "with identity direction",
        },
        "body_box": {
            "threshold_hu": settings.body_threshold,
            "block_mm": settings.body_block_mm,
            "rule": "body_box() of body.py",
        },
        "image": {"clip_hu": list(clip), "spacing_mm": list(settings.spacing)},
        "normalisation": _normalisation(model),
        "body_mask": {
            "clip_hu": list(settings.hu_window),
            "spacing_mm": list(settings.storage_spacing),
            "threshold_hu": settings.body_threshold,
            "rule": "body_mask() of body.py",
        },
    }


def _network(model: NetworkModel) -> dict[str, Any]:
    shape: list[Any] = ["batch", "z", "y", "x"] if model.fixed is None else [1, *model.fixed]
    return {
        "dynamic": model.fixed is None,
        "divisor": list(model.plan.divisor),
        "input": {
            "name": INPUT_NAME,
            "dtype": "float32",
            "shape": [shape[0], 1, *shape[1:]],
            "content": "normalised HU",
        },
        "output": {
            "name": OUTPUT_NAME,
            "dtype": "float32",
            "shape": shape,
            "content": "anomaly score of each voxel, nats",
        },
    }


def _tiles(model: NetworkModel) -> dict[str, Any]:
    inference = model.plan.settings.inference
    pad = 0.0
    if not model.equalised:
        pad = float(normalised(torch.full((1, 1, 1, 1, 1), _AIR_HU), model.plan))
    return {
        "largest": list(model.fixed or inference.student_tile),
        "overlap": inference.overlap,
        "pad_value": pad,
        "pad_hu": _AIR_HU,
        "average": "equal weights",
        "rule": list(_TILE_RULE),
    }
