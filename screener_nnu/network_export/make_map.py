"""The anomaly map of one CT scan from network.onnx and network.json, without screener_nnu or torch.

    pip install numpy scipy SimpleITK onnxruntime
    python make_map.py network.json scan.nii.gz map.nii.gz

It writes the map (float32, nats) and beside it the body mask, in the geometry of the scan. It is
written to be read: all settings come from the JSON, whose rules it follows step by step. What is
body says body.py, which has to lie beside it.
Arrays are (z, y, x), spacings likewise (mm).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import SimpleITK as sitk  # noqa: N813
from body import body_box, body_mask

Triple = tuple[int, ...]
FORMAT = ("screener_nnu network", 2)


def read_description(path: Path) -> dict[str, Any]:
    """The JSON, if this program knows its format."""
    values = json.loads(path.read_text())
    if (values["format"], values["format_version"]) != FORMAT:
        raise SystemExit(f"{path} is not of the format {FORMAT}")
    return values


def open_network(description: dict[str, Any], folder: Path, threads: int) -> Any:
    """The network, if it is the file that the JSON belongs to."""
    file = description["files"]["onnx"]
    content = (folder / file["file"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != file["sha256"]:
        raise SystemExit(f"{file['file']} does not belong to this JSON")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


# Resampling


def new_shape(shape: Triple, spacing: tuple[float, ...], wanted: list[float]) -> Triple:
    """Voxels per axis at another spacing."""
    sizes = zip(shape, spacing, wanted, strict=True)
    return tuple(max(1, int(round(old / new * n))) for n, old, new in sizes)


def resample(image: np.ndarray, shape: Triple) -> np.ndarray:
    """Trilinear, centres of voxels, edges held; float32 throughout."""
    image = image.astype(np.float32)
    for axis in (2, 1, 0):
        if shape != image.shape:
            image = _linear(image, axis, shape[axis])
    return image


def _linear(image: np.ndarray, axis: int, size: int) -> np.ndarray:
    n = image.shape[axis]
    step = np.float32(n) / np.float32(size)
    places = step * (np.arange(size, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    places = places.clip(0, n - 1)
    low = places.astype(int)
    part = (places - low.astype(np.float32)).reshape([-1 if a == axis else 1 for a in range(3)])
    high = np.minimum(low + 1, n - 1)
    return (1 - part) * image.take(low, axis) + part * image.take(high, axis)


def resample_nearest(mask: np.ndarray, shape: Triple) -> np.ndarray:
    """The voxel whose span holds the centre of each new one."""
    return mask[np.ix_(*[
        (2 * np.arange(m) + 1) * n // (2 * m) for n, m in zip(mask.shape, shape, strict=True)
    ])]  # fmt: skip


# Network


def tile_starts(length: int, tile: int, overlap: float, divisor: int) -> list[int]:
    """Starts of the tiles along one axis."""
    if tile >= length:
        return [0]
    step = max(divisor, int(tile * (1 - overlap)))
    count = int(np.ceil((length - tile) / step)) + 1
    exact = np.linspace(0, length - tile, count)
    return sorted({round(float(start) / divisor) * divisor for start in exact})


def windows(padded: Triple, tile: Triple, overlap: float, divisor: Triple) -> Iterator[Any]:
    """All tiles of a padded image as slices."""
    axes = zip(padded, tile, divisor, strict=True)
    starts = (tile_starts(n, t, overlap, d) for n, t, d in axes)
    for corner in product(*starts):
        yield tuple(slice(a, a + t) for a, t in zip(corner, tile, strict=True))


def score(image: np.ndarray, session: Any, description: dict[str, Any]) -> np.ndarray:
    """Step 5: scores of a normalised image, in nats."""
    rule, network = description["tiles"], description["network"]
    divisor = np.array(network["divisor"])
    padded = -(-np.array(image.shape) // divisor) * divisor
    tile = np.maximum(np.array(rule["largest"]) // divisor, 1) * divisor
    if network["dynamic"]:
        tile = np.minimum(tile, padded)
    else:
        padded = np.maximum(tile, padded)
    missing = [(0, int(p) - n) for p, n in zip(padded, image.shape, strict=True)]
    filled = np.pad(image, missing, constant_values=np.float32(rule["pad_value"]))
    total, count = np.zeros_like(filled), np.zeros_like(filled)
    names = [network["output"]["name"]], network["input"]["name"]
    for window in windows(tuple(padded), tuple(tile), rule["overlap"], tuple(divisor)):
        piece = np.ascontiguousarray(filled[window])[None, None]
        total[window] += session.run(names[0], {names[1]: piece})[0][0]
        count[window] += 1
    return (total / count)[tuple(slice(0, n) for n in image.shape)]


def make_map(
    scan: sitk.Image, session: Any, description: dict[str, Any]
) -> tuple[sitk.Image, sitk.Image]:
    """All steps: map (float32, nats) and body mask (uint8) in the geometry of the scan."""
    rules, lowest = description["preprocessing"], description["postprocessing"]["outside_body_nats"]
    turned = sitk.DICOMOrient(scan, rules["orientation"]["code"])
    hu, spacing = sitk.GetArrayFromImage(turned).astype(np.float32), turned.GetSpacing()[::-1]
    rule = rules["body_box"]
    box = body_box(hu, spacing, rule["threshold_hu"], rule["block_mm"])
    crop = hu[box]

    grid = new_shape(crop.shape, spacing, rules["image"]["spacing_mm"])
    image = resample(crop.clip(*rules["image"]["clip_hu"]), grid)
    norm = rules["normalisation"]
    mean, std = np.float32(norm["mean_hu"]), np.float32(norm["std_hu"])
    scores = score((image.clip(*norm["clip_hu"]) - mean) / std, session, description)

    rule = rules["body_mask"]
    mask_grid = new_shape(crop.shape, spacing, rule["spacing_mm"])
    clipped = resample(crop.clip(*rule["clip_hu"]), mask_grid)
    body = body_mask(clipped, rule["spacing_mm"], rule["threshold_hu"])

    whole_body = np.zeros(hu.shape, np.uint8)
    whole_body[box] = resample_nearest(body, crop.shape)
    whole = np.full(hu.shape, lowest, np.float32)
    whole[box] = resample(scores, crop.shape)
    whole[whole_body == 0] = lowest
    return _turn_back(whole, turned, scan), _turn_back(whole_body, turned, scan)


def _turn_back(array: np.ndarray, turned: sitk.Image, scan: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(turned)
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(scan.GetDirection())
    image = sitk.DICOMOrient(image, code)
    image.CopyInformation(scan)
    return image


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Anomaly map of a CT scan.")
    parser.add_argument("description", type=Path, help="network.json, with the network beside it")
    parser.add_argument("scan", type=Path, help="CT in HU, any 3D file that SimpleITK reads")
    parser.add_argument("map", type=Path, help="*.nii.gz")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    arguments = parser.parse_args()
    description = read_description(arguments.description)
    session = open_network(description, arguments.description.parent, arguments.threads)
    score_map, body = make_map(sitk.ReadImage(str(arguments.scan)), session, description)
    name = arguments.map.name.removesuffix(".nii.gz")
    sitk.WriteImage(score_map, str(arguments.map), useCompression=True)
    sitk.WriteImage(body, str(arguments.map.with_name(f"{name}_body.nii.gz")), useCompression=True)


if __name__ == "__main__":
    main()
