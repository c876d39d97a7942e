"""Features of any network that a user has in a file: foundation models, their own encoders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from screener_nnu.descriptors.base import EQUALISED, HU, CellDescriptor
from screener_nnu.descriptors.cells import average_cells, padded_to
from screener_nnu.descriptors.kept_channels import draw_channels
from screener_nnu.descriptors.network_card import DTYPES, card_path, read_card
from screener_nnu.descriptors.network_files import load_network
from screener_nnu.descriptors.slices import pooled_slices
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import Shape
from screener_nnu.setting_values import CountOrNone

# The sizes of the trial differ between axes, so that swapped ones are found. No depth is 1: of such
# images oneDNN's bfloat16 convolution reads what is no image (seen in 3.12 on processors with AMX).
_TRIAL = (2, 1, 3)


@dataclass(frozen=True)
class FileSettings:
    """Which file, and how many channels.

    Attributes:
        network: path of the file; its JSON lies beside it under the same name.
        most_channels: size of the random subset of all channels; 0 keeps them all.
        seed: of the subset.
    """

    network: str
    most_channels: CountOrNone = 0
    seed: CountOrNone = 0


class FileDescriptor(CellDescriptor):
    """A network from a TorchScript (`.pt`), exported (`.pt2`) or ONNX file.

    What it expects stands in a JSON beside it, see `NetworkCard`. Both are checked, and the network
    is tried on noise of a few voxels, before a scan is read. It is computed in the precision of the
    JSON and without mixed precision. It does not resample: `check_images` refuses a plan of other
    voxels, since a plan of that spacing serves the condition and all else as well.

    Args:
        network, most_channels, seed: see `FileSettings`.
        slices_at_once: of layout `2d`, given to the network at a time.

    Raises:
        ScreenerError: file or JSON are missing or wrong, or the network gives something else than
            the JSON says.
    """

    Settings = FileSettings
    kept: torch.Tensor

    def __init__(
        self,
        network: str | Path,
        most_channels: int = 0,
        seed: int = 0,
        slices_at_once: int = 16,
    ) -> None:
        """Reads, checks and tries the network."""
        path = Path(network).expanduser()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ScreenerError(
                f"network {path} cannot be read ({error.strerror or error}): correct the path"
            ) from error
        loaded = load_network(path, data)
        card = read_card(card_path(path))
        kept = draw_channels(card.channels, most_channels, seed)
        super().__init__(len(kept), data, card.text())
        self.network = loaded
        self.card = card
        self.reads = HU if card.reads == HU else EQUALISED
        self.spacing = card.spacing
        self.window = card.window
        self.divisor = card.size_divisor
        self.slices_at_once = slices_at_once
        self.register_buffer("kept", kept)
        try:
            self._try()
        except ScreenerError as error:
            raise ScreenerError(f"{path} and {card_path(path).name}: {error}") from error

    @torch.no_grad()
    def pooled(self, image: torch.Tensor, pooling: Shape) -> torch.Tensor:
        """See `Descriptor.pooled`; the map of all voxels is not made."""
        filled = padded_to(image.float(), self.divisor, self.card.air)
        seen = self.card.normalised(filled)
        d, h, w = image.shape[2:]
        whole = self._volume if self.card.layout == "3d" else self._slices
        return torch.cat([whole(one, (d, h, w), pooling) for one in seen])

    def _volume(self, seen: torch.Tensor, shape: Shape, pooling: Shape) -> torch.Tensor:
        cells = self._run(seen[None])[:, self.kept].float()
        return average_cells(cells, self.card.strides, shape, pooling)

    def _slices(self, seen: torch.Tensor, shape: Shape, pooling: Shape) -> torch.Tensor:
        def features(slices: torch.Tensor) -> list[torch.Tensor]:
            return [self._run(slices)[:, self.kept]]

        strides, colours = [self.card.strides[1:]], self.card.input_channels
        return pooled_slices(seen, features, strides, shape, pooling, self.slices_at_once, colours)

    def _run(self, seen: torch.Tensor) -> torch.Tensor:
        with torch.autocast(seen.device.type, enabled=False):
            return self.network(seen)

    @torch.no_grad()
    def _try(self) -> None:
        """Runs the network on noise, and refuses what the JSON does not say."""
        card, solid = self.card, self.card.layout == "3d"
        axes = [0, 1, 2] if solid else [1, 2]
        leading = (1, 1) if solid else (2, card.input_channels)
        size = [self.divisor[a] * _TRIAL[a] for a in axes]
        noise = torch.rand(*leading, *size, generator=torch.Generator().manual_seed(0))
        if self.reads == HU:
            noise = noise * (card.window[1] - card.window[0]) + card.window[0]
        cells = [self.divisor[a] * _TRIAL[a] // card.strides[a] for a in axes]
        expected = (leading[0], card.channels, *cells)
        given = tuple(noise.shape)
        try:
            found, again = (self._run(card.normalised(noise)) for _ in range(2))
        except Exception as error:  # networks fail in any way
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ScreenerError(
                f"the network fails on an input {given} of {card.dtype} ({reason}): correct "
                "layout, input_channels, divisor or dtype, or export it with free sizes"
            ) from error
        if not torch.is_tensor(found):
            raise ScreenerError(
                f"the network gives a {type(found).__name__}, and one tensor is needed: export it "
                "with the features alone as its output"
            )
        if tuple(found.shape) != expected or found.dtype != DTYPES[card.dtype]:
            raise ScreenerError(
                f"of an input {given} the network makes {tuple(found.shape)} of {found.dtype}, and "
                f"channels, strides and dtype say {expected} of {DTYPES[card.dtype]}"
            )
        if not torch.isfinite(found).all():
            raise ScreenerError("the network gives values that are no finite numbers")
        # By the largest value: in bfloat16 what cancels to nearly 0 is rounding.
        if not torch.allclose(found, again, rtol=1e-2, atol=1e-2 * float(found.abs().max())):
            raise ScreenerError(
                "the network gives something else the second time: export it in evaluation mode"
            )
