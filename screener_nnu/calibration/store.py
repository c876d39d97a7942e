"""Where a calibration lies, and which weights it belongs to."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from screener_nnu.calibration.annotated import AnnotatedThresholds
from screener_nnu.calibration.record import Calibration, plain_threshold
from screener_nnu.checkpoints import read_checkpoint
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.files import replacing
from screener_nnu.plans import Plan
from screener_nnu.stage_checkpoint import OF_TEACHER, WEIGHTS

logger = logging.getLogger(__name__)

FILE = "calibration.json"
_MAX_BYTES = 16 << 20


def calibration_file(model: ModelRef) -> Path:
    """Beside the checkpoint."""
    folder = model.folder if model.checkpoint is None else model.checkpoint.parent
    return folder / FILE


def model_identity(checkpoint: Mapping[str, Any]) -> str:
    """Hash of what decides a model's scores, 16 hexadecimal digits.

    Of the contents, so that a model that travelled as a file has the hash that it had before: the
    weights, their names, the descriptor and condition that a density belongs to, the scale, and
    whether maps are contrasts.
    """
    digest = hashlib.sha256()
    for weights in (checkpoint[key] for key in WEIGHTS if key in checkpoint):
        for name, value in sorted(weights.items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    rest = [checkpoint.get("features"), checkpoint.get("score_statistics")]
    plan = checkpoint.get("plan", {})  # read already, or plain values
    values = plan.to_dict() if isinstance(plan, Plan) else plan
    inference = values.get("screener", {}).get("inference", {})
    contrast, weight = inference.get("contrast_mm"), inference.get("contrast_weight", 1)
    # Models without keep the hash that they had, and so do those with all of it.
    rest += [list(contrast)] if contrast else []
    rest += [weight] if contrast and weight != 1 else []
    rest += [checkpoint[OF_TEACHER]] if OF_TEACHER in checkpoint else []
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def trained_identity(model: ModelRef) -> str:
    """Hash of a trained model."""
    return model_identity(read_checkpoint(model.file))


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Writes a calibration, whole or not at all.

    Raises:
        ScreenerError: reading would refuse it; the old file stays.
    """
    text = json.dumps(calibration.to_dict(), separators=(",", ":")) + "\n"
    try:
        Calibration.from_dict(json.loads(text))
    except ScreenerError as error:
        raise ScreenerError(f"the calibration is not written, {path} stays: {error}") from error
    with replacing(path) as temporary:
        temporary.write_text(text)


def read_calibration(path: Path) -> Calibration:
    """Reads a calibration, whoever wrote it.

    Raises:
        ScreenerError: it is damaged, or of another version.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ScreenerError(f"{path} has an absurd size")
        return Calibration.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ScreenerError(f"{path} cannot be read ({error}): calibrate again") from error
    except ScreenerError as error:
        raise ScreenerError(f"{path}: {error}") from error


def kept_annotated(path: Path, model: str) -> AnnotatedThresholds | None:
    """Thresholds of annotated cases that a new calibration of the same weights takes over.

    They are nats, and hold for these weights whichever scans are held out. Those that are lost are
    named in a warning.

    Args:
        path: the calibration that is about to be replaced; there may be none.
        model: hash of the weights that are calibrated.
    """
    if not path.is_file():
        return None
    try:
        before = read_calibration(path)
    except ScreenerError as error:
        logger.warning("thresholds of annotated cases, if there were any, are lost: %s", error)
        return None
    if before.annotated is not None and before.model != model:
        logger.warning(
            "thresholds of %d annotated cases are dropped, for they belong to other weights: give "
            "the cases again with --images and --masks",
            before.annotated.cases,
        )
        return None
    return before.annotated


def load_calibration(model: ModelRef) -> Calibration | None:
    """The calibration of a trained model, None where there is none that belongs to it.

    One of other weights, or a damaged one, is named in a warning and not used.
    """
    path = calibration_file(model)
    if not path.is_file():
        return None
    own = model.checkpoint or path.with_name("checkpoint_final.pth")
    try:
        calibration = read_calibration(path)
        identity = model_identity(read_checkpoint(own))
    except ScreenerError as error:
        logger.warning("calibration not used: %s", error)
        return None
    if calibration.model != identity:
        logger.warning(
            "calibration not used: %s belongs to other weights than %s; run\n    %s",
            path,
            own.name,
            model.command("calibrate"),
        )
        return None
    return calibration


def resolve_threshold(text: str, model: ModelRef, volume_ml: float | None = None) -> float:
    """A threshold as a user writes it, as a score; the calibration is read where it is needed.

    Args:
        text: see `Calibration.parse_threshold`.
        model: whose scores it is for.
        volume_ml: least volume (ml) of findings, for `fp`; None for the usual one.

    Raises:
        ScreenerError: no threshold; or one that needs a calibration, which is not there.
    """
    value = plain_threshold(text)
    if value is not None:
        return value
    calibration = load_calibration(model)
    if calibration is None:
        raise ScreenerError(
            f"threshold '{text}' needs a calibration of the {model.detector} of {model.plans}, and "
            f"there is none; run\n    {model.command('calibrate')}\nor give a threshold as a number"
        )
    if volume_ml is None:
        return calibration.parse_threshold(text)
    return calibration.parse_threshold(text, volume_ml)
