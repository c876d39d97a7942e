"""The one interface of all starts of fine-tuning."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from screener_nnu.crop_methods import CropMethod
from screener_nnu.networks.outputs import join_outputs, split_outputs
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import Plan, Shape
from screener_nnu.preprocessing.modality import DEVIATIONS
from screener_nnu.starts import OPTIONS, crop_size, method_class

ENCODER, WHOLE = "encoder", "encoder and decoder"
# Seeds of the networks of a plan differ.
_OWN_SEED = 6
_NETWORK = "network."


class StartMethod(CropMethod):
    """A task without labels on images as stock nnU-Net normalises them.

    Attributes:
        trains: which blocks of the UNet learn; a decoder that does not is frozen.
        least_crops: crops of a step that its loss needs in every process.
        paper: title of what it is cited by; empty for what is ours.
        network: the plan's UNet, (B, C, D, H, W) -> (B, outputs, D, H, W).

    Args:
        plan: see `CropMethod`.
        size: of images.
        outputs: of the UNet.
    """

    trains: ClassVar[str] = WHOLE
    least_crops: ClassVar[int] = 1
    paper: ClassVar[str] = ""

    def __init__(self, plan: Plan, size: Shape, outputs: int) -> None:
        """Builds the UNet; random weights come from torch's global state."""
        super().__init__(plan, size)
        self.network: Any = build_unet(plan, plan.channels, outputs)
        if self.trains == ENCODER:
            self.network.decoder.requires_grad_(False)
            # nnU-Net registers the encoder as a part of its decoder, too.
            self.network.encoder.requires_grad_(True)

    def start_weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """State dictionary of the UNet with its first output alone, and all other weights."""
        first, rest = split_outputs(self.network.state_dict(), 1)
        own = {k: v for k, v in self.state_dict().items() if not k.startswith(_NETWORK)}
        return first, own | {f"{_NETWORK}{k}": v for k, v in rest.items() if len(v)}

    def load_start_weights(self, first: dict[str, Tensor], others: dict[str, Tensor]) -> None:
        """Puts together what `start_weights` has parted."""
        rest = {k.removeprefix(_NETWORK): v for k, v in others.items() if k.startswith(_NETWORK)}
        network = {_NETWORK + k: v for k, v in join_outputs(first, rest).items()}
        own = {k: v for k, v in others.items() if not k.startswith(_NETWORK)}
        self.load_state_dict(network | own)


def build_start(plan: Plan) -> StartMethod:
    """The method of a plan with the first weights of its seed.

    Raises:
        ScreenerError: no such method, options that it does not have or take, or images that it
            cannot learn from.
    """
    start, seed = plan.settings.start, plan.settings.seed + _OWN_SEED
    kind = method_class(start.method)
    method: StartMethod = kind.built(plan, crop_size(plan), start.options, OPTIONS, seed)
    return method


def value_range(plan: Plan) -> Tensor:
    """Width (C, 1, 1, 1) of the values that a normalised image has, by channel.

    MR, which has no bounds, gets six standard deviations.
    """
    widths = []
    for channel in range(plan.channels):
        if plan.standardises:
            low, high, _, std = plan.intensities_of(channel)
            widths.append((high - low) / max(std, 1e-8))
        else:
            widths.append(DEVIATIONS[1] - DEVIATIONS[0])
    return torch.tensor(widths, dtype=torch.float32)[:, None, None, None]
