"""What images a plan is for, and whether a `dataset.json` describes such images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from screener_nnu.plans import PICTURES, StockPlan
from screener_nnu.preprocessing.modality import CT, MR, PICTURE
from screener_nnu.preprocessing.pictures import is_picture

# Endings of the pictures that nnU-Net reads and we read, too.
_PICTURES = (".png", ".tif")


@dataclass(frozen=True)
class ImageKind:
    """Images of one modality.

    Attributes:
        modality: a name of `MODALITIES`.
        channels: 1, or 3 of colour pictures.
    """

    modality: str
    channels: int = 1

    @classmethod
    def of(cls, plan: StockPlan) -> ImageKind:
        """The images that a plan of ours is for."""
        if plan.configuration_name == PICTURES:
            return cls(PICTURE, plan.channels)
        return cls(CT if plan.standardises else MR)

    @property
    def endings(self) -> tuple[str, ...]:
        """Of files, where only some are possible."""
        return _PICTURES if self.modality == PICTURE else ()

    @property
    def unit(self) -> str:
        """Of lengths."""
        return "pixels" if self.modality == PICTURE else "mm"

    def faults(self, description: Mapping[str, Any]) -> list[str]:
        """Why a `dataset.json` describes other images, a sentence each.

        Example:
            >>> ImageKind("ct").faults({"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"})
            []
        """
        channels = description.get("channel_names", description.get("modality"))
        allowed = f"channel_names must be {self._allowed}"
        if not isinstance(channels, dict):
            return [f"{allowed}, but is {channels!r}"]
        names = list(channels.values())
        if not self._fits(names):
            return [f"it has the channels {names}, but the student knows {self}: {allowed}"]
        ending = description.get("file_ending")
        pictures = isinstance(ending, str) and is_picture(ending)
        if pictures != (self.modality == PICTURE) or (pictures and ending not in self.endings):
            endings = " or ".join(self.endings) or ".nii.gz, .nrrd or .mha"
            return [f"file_ending is {ending!r}, but the student knows {self}: give {endings}"]
        return []

    def __str__(self) -> str:
        """For people."""
        if self.modality == PICTURE:
            return "colour pictures" if self.channels == 3 else "grey pictures"
        return f"one {self.modality.upper()} channel"

    @property
    def _allowed(self) -> str:
        if self.channels == 3:
            return json.dumps({"0": "R", "1": "G", "2": "B"})
        word = {CT: "CT", MR: "MR", PICTURE: "grey"}[self.modality]
        return f"{'' if self.modality == CT else 'like '}{json.dumps({'0': word})}"

    def _fits(self, names: list[Any]) -> bool:
        """Whether channels of these names are such images; of CT alone there is but one name."""
        named_ct = any(str(name).upper() == "CT" for name in names)
        return len(names) == self.channels and named_ct == (self.modality == CT)


ONE_CT_CHANNEL = ImageKind(CT)
