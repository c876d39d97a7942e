"""What a network in a file expects and gives: a small JSON beside it."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import torch

from screener_nnu.descriptors.base import EQUALISED, HU
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import Shape
from screener_nnu.setting_values import Count, NotNegative, OneOf, Positive, Size, parse

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class NetworkCard:
    """The JSON; axes are (z, y, x).

    Attributes:
        spacing: voxel size (mm) that the network was made for; 0 for an axis along which any does.
        reads: `equalised` for the plan's equalised image in [0, 1], or `hu`.
        channels: of the output.
        strides: voxels of the input that a voxel of the output stands for.
        layout: `3d` for (1, 1, D, H, W) -> (1, channels, D / s, H / s, W / s); `2d` for axial
            slices (n, input_channels, H, W) -> (n, channels, H / s, W / s), with any n and a stride
            of 1 along z.
        window: HU below and above which values are clipped, for `hu`.
        normalisation: what is then done with a value: `zero_one` scales the window to [0, 1],
            `minus_one_one` to [-1, 1], `mean_std` subtracts the mean and divides by the standard
            deviation, which are in HU or, of the equalised image, in its units.
        mean, std: of `mean_std`.
        input_channels: 1, or 3 for a slice and its two neighbours, layout `2d` alone.
        divisor: multiple of the input's size that the network needs; by default the strides.
        dtype: of input and output: `float32`, `float16` or `bfloat16`.
    """

    spacing: tuple[NotNegative, NotNegative, NotNegative]
    reads: Annotated[str, OneOf(EQUALISED, HU)]
    channels: Count
    strides: Size
    layout: Annotated[str, OneOf("3d", "2d")]
    window: tuple[float, ...] = ()
    normalisation: Annotated[str, OneOf("zero_one", "minus_one_one", "mean_std")] = "zero_one"
    mean: float = 0.0
    std: Positive = 1.0
    input_channels: Count = 1
    divisor: tuple[Count, ...] = ()
    dtype: Annotated[str, OneOf(*DTYPES)] = "float32"

    def __post_init__(self) -> None:
        """Refuses values that contradict each other."""
        two = len(self.window) == 2 and self.window[0] < self.window[1]
        if self.reads == HU and not two:
            raise ValueError("window must be a lower and a higher HU where reads is hu")
        if self.reads == EQUALISED and self.window:
            raise ValueError("window is of HU: leave it out, or set reads to hu")
        if self.normalisation != "mean_std" and (self.mean, self.std) != (0.0, 1.0):
            raise ValueError("mean and std belong to normalisation mean_std")
        if self.divisor and len(self.divisor) != 3:
            raise ValueError(f"divisor needs 3 values, but has {len(self.divisor)}")
        if any(n % s for n, s in zip(self.size_divisor, self.strides, strict=True)):
            raise ValueError("divisor must be a multiple of strides, axis by axis")
        if self.layout == "2d" and (self.strides[0], self.size_divisor[0]) != (1, 1):
            raise ValueError("strides and divisor must be 1 along z for layout 2d")
        if self.input_channels not in (1, 3) or (self.layout, self.input_channels) == ("3d", 3):
            raise ValueError("input_channels must be 1, or 3 for layout 2d")

    @property
    def size_divisor(self) -> Shape:
        """The divisor, that of the strides where none is given."""
        z, y, x = self.divisor or self.strides
        return z, y, x

    @property
    def air(self) -> float:
        """What fills up an image: the lowest value that the network sees."""
        return self.window[0] if self.window else 0.0

    def normalised(self, image: torch.Tensor) -> torch.Tensor:
        """Values of an image as the network wants them, in its precision."""
        low, high = self.window or (0.0, 1.0)
        image = image.float().clamp(low, high) if self.window else image.float()
        if self.normalisation == "mean_std":
            image = (image - self.mean) / self.std
        else:
            image = (image - low) / (high - low)
            if self.normalisation == "minus_one_one":
                image = 2 * image - 1
        return image.to(DTYPES[self.dtype])

    def text(self) -> str:
        """All values, in one order."""
        return json.dumps(asdict(self), sort_keys=True)


def card_path(network: Path) -> Path:
    """Where the JSON of a network lies: beside it, under the same name."""
    return network.with_suffix(".json")


def read_card(path: Path) -> NetworkCard:
    """Reads and checks the JSON.

    Raises:
        ScreenerError: it is not there, is no JSON, or a value is missing, unknown or wrong.
    """
    needed = [f.name for f in fields(NetworkCard) if f.default is MISSING]
    known = [f.name for f in fields(NetworkCard)]
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise ScreenerError(
            f"{path} cannot be read ({error.strerror}): it must say what the network expects, as "
            f"{', '.join(needed)}"
        ) from error
    except ValueError as error:
        raise ScreenerError(f"{path} is no JSON ({error}): correct it") from error
    if not isinstance(values, dict):
        raise ScreenerError(f"{path} must hold names and values, such as {', '.join(needed)}")
    missing = [name for name in needed if name not in values]
    if missing:
        raise ScreenerError(f"{path} lacks {', '.join(missing)}: add it")
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ScreenerError(
            f"{path} has {', '.join(unknown)}, which means nothing; known: {', '.join(known)}"
        )
    return parse(NetworkCard, values, str(path))
