"""A network's last layer, parted and joined: what stays in a checkpoint, and what training adds."""

from __future__ import annotations

from collections.abc import Mapping

import torch

_OUTPUT_LAYERS = "seg_layers."


def split_outputs(
    state: Mapping[str, torch.Tensor], first: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Parts a state dictionary of the plan's UNet by its outputs.

    Args:
        state: of a network with at least `first` outputs.
        first: outputs of the first part.

    Returns:
        The state of a network with the first outputs alone, and the rest of the output layers.
    """
    kept = dict(state)
    rest = {}
    for name, value in state.items():
        if _OUTPUT_LAYERS in name:
            # Copies: a view would drag all of its storage into a file.
            kept[name], rest[name] = value[:first].clone(), value[first:].clone()
    return kept, rest


def join_outputs(
    state: Mapping[str, torch.Tensor], rest: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Puts together what `split_outputs` has parted."""
    return {k: torch.cat([v, rest[k].to(v)]) if k in rest else v for k, v in state.items()}
