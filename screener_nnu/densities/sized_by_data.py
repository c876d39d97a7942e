"""Modules whose state has a size that depends on the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class SizedByData(nn.Module):
    """A module whose buffers take the size that they were saved in."""

    def resize_to(self, state: Mapping[str, Any], prefix: str = "") -> None:
        """Gives its buffers, and those of its parts, the size that they have in a state.

        Args:
            state: names and tensors; what does not fit is left for the one who loads it.
            prefix: of the names.
        """
        for name, buffer in list(self._buffers.items()):
            stored = state.get(prefix + name)
            if buffer is not None and torch.is_tensor(stored) and stored.ndim == buffer.ndim:
                self._buffers[name] = buffer.new_zeros(stored.shape)
        for name, part in self.named_children():
            if isinstance(part, SizedByData):
                part.resize_to(state, f"{prefix}{name}.")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes buffers in the size that they were saved in."""
        self.resize_to(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)
