"""Writes the student for other programs: graph files, their JSON and a program that uses them."""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from screener_nnu.descriptors.base import EQUALISED
from screener_nnu.descriptors.network_files import load_network
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.files import file_sha256, replacing
from screener_nnu.network_export.agreement import check_agreement
from screener_nnu.network_export.description import NetworkModel, describe
from screener_nnu.network_export.graph import AnyStudent, torch_export_bytes, trace
from screener_nnu.network_export.onnx_file import OPSET, onnx_bytes, require_onnx
from screener_nnu.ownership import own_folder
from screener_nnu.paths import dataset_name, finished_checkpoint
from screener_nnu.plans import Plan, Shape
from screener_nnu.preprocessing import body
from screener_nnu.preprocessing.modality import CT, MODALITIES

JSON_NAME = "network.json"
FILES = {"onnx": "network.onnx", "torch_export": "network.pt2"}
PROGRAM, BODY = "make_map.py", "body.py"
_PACKAGES = ("screener_nnu", "nnunetv2", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class NetworkRequest:
    """What to write.

    Attributes:
        dataset: data set that the model learned from, number or name.
        plans_name: plan of the student.
        formats: keys of `FILES`.
        dynamic: leave batch and spatial axes open; otherwise one tile of the plan.
        license: terms of the weights.
    """

    dataset: int | str
    plans_name: str
    formats: tuple[str, ...] = ("onnx",)
    dynamic: bool = True
    license: str | None = None


def export_network(request: NetworkRequest, folder: Path) -> dict[str, Any]:
    """Writes the files into a folder; each is checked against the student before any appears.

    Returns:
        The values of the JSON.

    Raises:
        ScreenerError: the student has not been trained or is not one of CT, a package is missing, a
            written graph does not give the student's scores, or the folder cannot be written.
    """
    if "onnx" in request.formats:
        require_onnx()
    dataset = dataset_name(request.dataset)
    checkpoint = finished_checkpoint(dataset, "distillation", request.plans_name)
    reference = ModelRef(dataset, request.plans_name)
    student, plan, statistics = reference.load(torch.device("cpu"))
    _require_ct(plan)
    if plan.settings.inference.contrast_mm:
        raise ScreenerError(
            f"maps of {request.plans_name} are contrasts of scores (inference.contrast_mm), which "
            "a graph of the network does not give: export a plan without it"
        )
    if student.reads == EQUALISED:
        _require_plain_images(plan, student.cell)
    model = NetworkModel(
        dataset,
        request.plans_name,
        plan,
        statistics,
        file_sha256(checkpoint),
        request.license,
        None if request.dynamic else _whole_tile(plan),
        student.reads == EQUALISED,
    )
    contents = _graphs(student, model, request.formats)
    files = {
        kind: _file_values(kind, content, student, model) for kind, content in contents.items()
    }
    values = describe(model, files, _versions())
    written = {FILES[kind]: content for kind, content in contents.items()}
    written[BODY] = Path(body.__file__).read_bytes()
    if "onnx" in contents:
        written[PROGRAM] = Path(__file__).with_name(PROGRAM).read_bytes()
    _write(folder, {**written, JSON_NAME: json.dumps(values, indent=2).encode() + b"\n"})
    return values


def _require_ct(plan: Plan) -> None:
    modality = plan.settings.preprocessing.modality
    if modality != CT:
        raise ScreenerError(
            f"{plan.dataset} was planned for {MODALITIES[modality].title}, and what stands in "
            f"{JSON_NAME} and {PROGRAM} is for CT alone: pass the model on with "
            "screener_export_model"
        )


def _require_plain_images(plan: Plan, cell: Shape) -> None:
    """Refuses a student of images that one clipping and scaling does not make, or of odd cells."""
    settings = plan.settings.preprocessing
    reasons = []
    if settings.equalisation != "none":
        reasons.append(f"the contrast of its images is equalised ({settings.equalisation})")
    if settings.storage_spacing != settings.spacing:
        reasons.append("they are kept at another voxel size than that of the network")
    if any(n % c for n, c in zip(plan.divisor, cell, strict=True)):
        reasons.append(f"its positions of {list(cell)} voxels do not fit the network's strides")
    if reasons:
        raise ScreenerError(
            f"the student of {plan.name} reads its teacher's images, and {', and '.join(reasons)}, "
            "which no graph holds: export a student of distillation.learns=score"
        )


def _whole_tile(plan: Plan) -> Shape:
    """The plan's tile, as large as the network's strides allow."""
    tile = plan.settings.inference.student_tile
    z, y, x = (max(n // d, 1) * d for n, d in zip(tile, plan.divisor, strict=True))
    return z, y, x


def _graphs(student: AnyStudent, model: NetworkModel, formats: tuple[str, ...]) -> dict[str, bytes]:
    program = trace(student, model.plan.divisor, model.fixed)
    contents = {}
    if "torch_export" in formats:
        contents["torch_export"] = torch_export_bytes(program)
    if "onnx" in formats:
        properties = {
            "description": f"anomaly score in nats; {JSON_NAME} beside it says how to use it",
            "checkpoint_sha256": model.checkpoint_sha256,
            "license": model.license or "not stated",
        }
        contents["onnx"] = onnx_bytes(program, properties)
    return contents


def _file_values(
    kind: str, content: bytes, student: AnyStudent, model: NetworkModel
) -> dict[str, Any]:
    """What the JSON says of a file, after it was read back and run."""
    network = load_network(Path(FILES[kind]), content)
    divisor = model.plan.divisor
    std = model.statistics["std"]
    agreement = check_agreement(network, student, divisor, model.fixed, FILES[kind], std)
    values: dict[str, Any] = {
        "file": FILES[kind],
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    if kind == "onnx":
        values["opset"] = OPSET
    if model.fixed is None:
        # The tracer takes it for granted that no axis of the deepest layer has one voxel.
        least = 1 if kind == "onnx" else 2
        values["smallest_axes"] = [least * n for n in divisor]
    reference = "PyTorch float32 on the CPU, on noise in air"
    return {**values, "agreement": {**asdict(agreement), "reference": reference}}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    """All files or none: each takes its place when all have been written, the last one last."""
    own_folder(folder)
    with ExitStack() as stack:
        # Leaving the stack puts the files into place in the opposite order.
        for name, content in reversed(contents.items()):
            stack.enter_context(replacing(folder / name)).write_bytes(content)
