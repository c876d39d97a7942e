"""Which tensors of a checkpoint a network takes over, before anything is trained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import SEGMENTATION_HEADS
from screener_nnu.networks.probed import backbone_of
from screener_nnu.plans import StockPlan

TRANSFERRED, RESET, MISSING, MISMATCH, UNUSED = (
    "transferred",
    "reset",
    "missing",
    "mismatch",
    "unused",
)
_MAX_LINES = 20


@dataclass(frozen=True)
class Row:
    """One tensor by name, with its shape on both sides; `None` where it does not exist."""

    key: str
    checkpoint: tuple[int, ...] | None
    network: tuple[int, ...] | None

    @property
    def status(self) -> str:
        """What nnU-Net's loader does with it."""
        if self.network is None:
            return UNUSED
        if SEGMENTATION_HEADS in self.key:
            return RESET
        if self.checkpoint is None:
            return MISSING
        return TRANSFERRED if self.checkpoint == self.network else MISMATCH

    @property
    def block(self) -> str:
        """The part of the UNet it belongs to, for instance `encoder stage 2`."""
        key = self.key.removeprefix("decoder.encoder.").removeprefix("encoder.")
        side = "encoder" if "encoder." in self.key else "decoder"
        if SEGMENTATION_HEADS in self.key:
            return "segmentation heads"
        if key.startswith("stem."):
            return "stem"
        stage = re.search(r"(?:stages|transpconvs)\.(\d+)\.", key)
        return f"{side} stage {stage.group(1)}" if stage else self.key.split(".")[0]


def compare_with_network(
    weights: Mapping[str, Tensor], plan: StockPlan, dataset_json: Mapping[str, Any]
) -> list[Row]:
    """Compares a checkpoint's weights with the network that nnU-Net will build.

    Args:
        weights: `network_weights` of the checkpoint.
        plan: plan of the labelled dataset.
        dataset_json: `dataset.json` of the labelled dataset; decides the number of heads.

    Returns:
        One row a name of either state dict. nnU-Net registers each convolution under several
        names, all of which count, as they do in its own loader.

    Raises:
        ScreenerError: the names carry the prefix of a wrapped network.
    """
    wrapped = [key for key in weights if key.startswith(("module.", "_orig_mod."))]
    if wrapped:
        raise ScreenerError(
            f"the checkpoint was saved from a wrapped network ('{wrapped[0]}'); "
            "save the network without the prefix 'module.' or '_orig_mod.'"
        )
    network = _network_shapes(plan, dataset_json)
    given = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    keys = [*network, *(key for key in given if key not in network)]
    return [Row(key, given.get(key), network.get(key)) for key in keys]


def summary_table(rows: Sequence[Row]) -> str:
    """A line a block of the UNet: tensors transferred, of how many, and what else."""
    total = Counter(row.block for row in rows if row.network is not None)
    by_status = Counter((row.block, row.status) for row in rows)
    blocks = sorted(total, key=_block_order)
    width = max(len(block) for block in [*blocks, "block"])
    lines = [f"{'block':<{width}}  transferred"]
    for block in blocks:
        others = [
            f"{by_status[block, status]} {status}"
            for status in (RESET, MISSING, MISMATCH)
            if by_status[block, status]
        ]
        counts = f"{by_status[block, TRANSFERRED]:>5} of {total[block]:<5}"
        lines.append(f"{block:<{width}} {counts} {', '.join(others)}".rstrip())
    moved, known = (sum(row.status == TRANSFERRED for row in rows), sum(total.values()))
    lines.append(f"{'all':<{width}} {moved:>5} of {known}")
    unused = sum(row.status == UNUSED for row in rows)
    if unused:
        lines.append(f"{unused} tensors of the checkpoint have no place in the network")
    return "\n".join(lines)


def require_match(rows: Sequence[Row]) -> int:
    """Number of transferred tensors, when everything but the segmentation heads fits.

    Raises:
        ScreenerError: a tensor is missing or has another shape; the message lists them by name.
    """
    odd = [row for row in rows if row.status in (MISSING, MISMATCH)]
    if not odd:
        return sum(row.status == TRANSFERRED for row in rows)
    width = max(len(row.key) for row in odd[:_MAX_LINES])
    lines = [
        f"{row.key:<{width}}  {_shape(row.checkpoint):>22}  {_shape(row.network):>22}  {row.status}"
        for row in odd[:_MAX_LINES]
    ]
    if len(odd) > _MAX_LINES:
        lines.append(f"... and {len(odd) - _MAX_LINES} more")
    header = f"{'tensor':<{width}}  {'checkpoint':>22}  {'network':>22}"
    raise ScreenerError(
        f"{len(odd)} of {len(rows)} tensors of the checkpoint do not fit the plan's network:\n"
        + "\n".join([header, *lines])
        + "\nThe plan's network must be that of the checkpoint: name the plan of its pre-training "
        "with -p, or take another checkpoint"
    )


def _network_shapes(plan: StockPlan, dataset_json: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plan.to_dict())
    configuration = manager.get_configuration(plan.configuration_name)
    heads = manager.get_label_manager(dict(dataset_json)).num_segmentation_heads
    # Shapes alone: on the meta device no memory is taken and nothing is initialised.
    with torch.device("meta"):
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            plan.channels,
            heads,
            allow_init=False,
            deep_supervision=True,
        )
    weights = backbone_of(network).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in weights.items()}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else " x ".join(map(str, shape))


def _block_order(block: str) -> tuple[int, int, str]:
    sides = ("stem", "encoder", "decoder", "segmentation")
    side = next((i for i, name in enumerate(sides) if block.startswith(name)), len(sides))
    number = re.search(r"\d+", block)
    return side, int(number.group()) if number else 0, block
