"""The check of a stranger's checkpoint: tensors and plain values, fitting the plan's network."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from screener_nnu.baselines import OPTIONS, method_class
from screener_nnu.baselines.base import build_method
from screener_nnu.densities import density_class, new_density
from screener_nnu.descriptors.image_encoder import build_image_encoder
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import STOCK_TRAINER
from screener_nnu.inference.igd import empty_igd
from screener_nnu.inference.models import stage_unet
from screener_nnu.inference.reading_student import StudentParts, read_entry
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import DensitySettings, Plan
from screener_nnu.sharing.manifest import StageFile
from screener_nnu.sharing.plan_check import check_plan, same_values
from screener_nnu.sharing.scrub import KEPT
from screener_nnu.stage_checkpoint import (
    DENSITY,
    HEAD,
    OF_TEACHER,
    WEIGHTS,
    check_statistics,
    check_weights,
)
from screener_nnu.stages import trainer_name

_MAX_CHANNELS = 4096
_MAX_PICKLE_BYTES = 64 << 20
_MAX_VALUES = 1_000_000


def read_stage(path: Path, file: StageFile) -> dict[str, Any]:
    """Reads a checkpoint of a model file and checks everything in it; its plan is a `Plan`.

    Raises:
        ScreenerError: it holds code, swells when read, or does not fit its plan.
    """
    try:
        _check_container(path)
        checkpoint = _load(path)
        _check_amount({k: v for k, v in checkpoint.items() if k not in WEIGHTS})
        _check_entries(checkpoint, file)
        checkpoint["plan"] = check_plan(checkpoint["plan"], file.plans_name)
        _check_plain_parts(checkpoint, file)
        for key, network in _networks(checkpoint, file.stage).items():
            check_weights(checkpoint[key], network)
    except ScreenerError as error:
        raise ScreenerError(f"{file.member}: {error}") from error
    except Exception as error:  # whatever nonsense makes of networks and comparisons
        raise ScreenerError(f"{file.member} is no checkpoint of ours ({error!r})") from error
    return checkpoint


def _check_container(path: Path) -> None:
    """Refuses what torch would decompress, and its old format, which is a bare pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except zipfile.BadZipFile as error:
        raise ScreenerError("is no checkpoint of this format, or damaged") from error
    swelling = any(r.compress_type or r.compress_size != r.file_size for r in records)
    if swelling or sum(r.file_size for r in records) > path.stat().st_size:
        raise ScreenerError("holds compressed records, which no checkpoint of ours does")
    if any(r.file_size > _MAX_PICKLE_BYTES for r in records if r.filename.endswith(".pkl")):
        raise ScreenerError("holds an absurd amount of plain values")


def _load(path: Path) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ScreenerError(
            "holds more than tensors and plain values, or is damaged; such a file could run code "
            "of a stranger and is not read"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ScreenerError("is no checkpoint of ours")
    return checkpoint


def _check_amount(values: Any) -> None:
    """Refuses values that contain each other over and over, small on disk and endless to read."""
    left, waiting = _MAX_VALUES, [values]
    while waiting:
        value = waiting.pop()
        inner = list(value.values()) if isinstance(value, dict) else value
        if isinstance(inner, (list, tuple, set)):
            left -= 1 + len(inner)
            waiting.extend(inner)
        if left < 0:
            raise ScreenerError("holds an absurd amount of plain values")


def _check_entries(checkpoint: Mapping[Any, Any], file: StageFile) -> None:
    known = {*KEPT, "plan", "init_args"}
    needed = {"network_weights", "plan", "init_args", "trainer_name"}
    needed |= {
        "density": {"score_statistics", "channels"},
        "igd": {"score_statistics", "scales"},
        "baseline": {"score_statistics"},
        "distillation": {"score_statistics"},
    }.get(file.stage, set())
    # A student that reads its condition has all three of them, any other none.
    read = {HEAD, DENSITY, OF_TEACHER}
    if file.stage == "distillation" and read & set(checkpoint):
        needed |= read
    else:
        known -= read
    odd = sorted(str(key) for key in (set(checkpoint) - known) | (needed - set(checkpoint)))
    if odd:
        raise ScreenerError(f"entries {', '.join(odd[:5])} are missing or do not belong there")


def _check_plain_parts(checkpoint: Mapping[str, Any], file: StageFile) -> None:
    """What nnU-Net and we read of a checkpoint beside its weights."""
    arguments, plan = checkpoint["init_args"], checkpoint["plan"]
    if not isinstance(arguments, dict) or not same_values(arguments.get("plans"), plan.values):
        raise ScreenerError("holds two plans that differ")
    made_by = (arguments.get("configuration"), arguments.get("fold"))
    if made_by != (plan.configuration_name, "all"):
        raise ScreenerError("was made by no stage of ours")
    if checkpoint["trainer_name"] not in (STOCK_TRAINER, trainer_name(file.stage)):
        raise ScreenerError(f"names the trainer {checkpoint['trainer_name']!r}, which is not ours")
    if "nnssl_adaptation_plan" in checkpoint:
        block = plan.architecture
        stated = checkpoint["nnssl_adaptation_plan"].get("architecture_plans", {})
        named = (stated.get("arch_class_name"), stated.get("arch_kwargs_requiring_import"))
        if named != (block["network_class_name"], block["_kw_requires_import"]) or not same_values(
            stated.get("arch_kwargs"), block["arch_kwargs"]
        ):
            raise ScreenerError("describes its network in two ways that differ")
    if "score_statistics" in checkpoint:
        check_statistics(checkpoint["score_statistics"])
    if "scales" in checkpoint:
        _check_scales(checkpoint["scales"], plan)


def _check_scales(values: Any, plan: Plan) -> None:
    """Refuses what is not two numbers above 0 of each model."""
    names = set(plan.settings.igd.names)
    numbers = [list(pair) for pair in values.values()] if isinstance(values, dict) else []
    plain = all(
        len(pair) == 2 and all(type(n) is float and 0 < n < math.inf for n in pair)
        for pair in numbers
    )
    if not numbers or set(values) != names or not plain:
        raise ScreenerError(f"its scales are no two numbers above 0 of {', '.join(sorted(names))}")


def _networks(checkpoint: Mapping[str, Any], stage: str) -> dict[str, dict[str, torch.Tensor]]:
    """State dictionaries that prediction will fill, by the key of the weights."""
    plan: Plan = checkpoint["plan"]
    reads = plan.settings.distillation.reads_condition
    if stage == "distillation" and reads != (OF_TEACHER in checkpoint):
        raise ScreenerError("is another kind of student than its plan says")
    if OF_TEACHER not in checkpoint:
        return {"network_weights": _network(checkpoint, stage)}
    settings, channels = read_entry(checkpoint[OF_TEACHER])
    _check_channels(channels)
    # Names and shapes alone.
    with torch.device("meta"):
        parts = StudentParts(plan, settings, channels)
    density = _density(checkpoint[DENSITY], channels, settings)
    made = {"network_weights": parts.unet, HEAD: parts.head, DENSITY: density}
    return {key: network.state_dict() for key, network in made.items()}


def _network(checkpoint: Mapping[str, Any], stage: str) -> dict[str, torch.Tensor]:
    """State dictionary that prediction will fill from these weights."""
    plan: Plan = checkpoint["plan"]
    if stage == "density":
        channels = checkpoint["channels"]
        _check_channels(channels)
        return _density(checkpoint["network_weights"], channels, plan.settings.density).state_dict()
    if stage == "baseline":
        return _method(checkpoint, plan).state_dict()
    # Names and shapes alone: no memory is taken and nothing is initialised.
    with torch.device("meta"):
        if stage in ("distillation", "start"):
            return build_unet(plan, plan.channels, 1).state_dict()
        if stage == "igd":
            return empty_igd(plan).state_dict()
        if stage == "pretext":
            return build_image_encoder(plan, 0, empty=True).network.state_dict()
        return stage_unet(plan, stage).state_dict()


def _method(checkpoint: Mapping[str, Any], plan: Plan) -> nn.Module:
    baseline = plan.settings.baseline
    kind = method_class(baseline.method)
    if kind.builds_on_meta:
        with torch.device("meta"):
            return build_method(plan, empty=True)
    held = _held(checkpoint["network_weights"])
    if kind.least_numbers(kind.options(baseline.options, OPTIONS)) > held:
        raise ScreenerError(f"its {baseline.method} is smaller than its plan says")
    return build_method(plan, empty=True)


def _held(weights: Mapping[str, Any]) -> int:
    """Numbers in the weights of a file; no more are built where building takes memory."""
    return sum(t.numel() for t in weights.values() if torch.is_tensor(t))


def _check_channels(channels: Any) -> None:
    """Refuses what are no widths of descriptor and condition."""
    plain = isinstance(channels, list) and [type(n) for n in channels] == [int, int]
    if not plain or not (1 < channels[0] <= _MAX_CHANNELS and 0 <= channels[1] <= _MAX_CHANNELS):
        raise ScreenerError(f"its density has the channels {channels!r}")


def _density(
    weights: Mapping[str, Any], channels: Sequence[int], density: DensitySettings
) -> nn.Module:
    kind = density_class(density.kind)
    if kind.least_numbers(density) > _held(weights):
        raise ScreenerError("its density is smaller than its plan says")
    with torch.device("meta") if kind.builds_on_meta else nullcontext():
        made = new_density(density, *channels)
        made.resize_to(weights)
        return made
