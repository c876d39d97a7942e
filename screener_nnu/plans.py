"""The plan: every setting of every stage, in `ScreenerPlans.json`.

The file is a valid nnU-Net plan with one more key, `screener`, which `plan_settings` describes.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from screener_nnu.errors import ScreenerError
from screener_nnu.files import replacing
from screener_nnu.plan_settings import (  # noqa: F401 - they are imported from here
    CONDITION,
    RARITY,
    SCORE,
    TEACHER,
    BaselineSettings,
    CalibrationSettings,
    ConditionSettings,
    ContrastSettings,
    DensitySettings,
    DistillationSettings,
    IgdSettings,
    InferenceSettings,
    JitterSettings,
    MaskSettings,
    OptimiserSettings,
    PositionSettings,
    PreprocessingSettings,
    PretextSettings,
    Range,
    ScreenerSettings,
    Shape,
    Spacing,
    SplitSettings,
    StartSettings,
)

#: Names of nnU-Net's configurations that plans of ours have: of volumes, and of pictures.
VOLUMES, PICTURES = "3d_fullres", "2d"
CONFIGURATIONS = (VOLUMES, PICTURES)
# Without them a plan is read for nothing.
_NEEDED = ("plans_name", "dataset_name", "configurations")
DEFAULT_PLANS_NAME = "ScreenerPlans"


class Intensities(NamedTuple):
    """Values of nnU-Net's `CTNormalization`: bounds, mean and standard deviation, of CT in HU."""

    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True)
class StockPlan:
    """A plan as stock nnU-Net has it; with our settings in it, it is a `Plan`.

    Attributes:
        values: nnU-Net's dictionary as it is on disk, which is never changed.
    """

    values: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """Of the plan, `plans_name`."""
        return self.values["plans_name"]

    @property
    def dataset(self) -> str:
        """Full name of the data set."""
        return self.values["dataset_name"]

    @property
    def configuration_name(self) -> str:
        """Of the one configuration that we use: `3d_fullres`, or `2d` of a plan without it."""
        found = self.values["configurations"]
        return next((name for name in CONFIGURATIONS if name in found), VOLUMES)

    @property
    def configuration(self) -> Mapping[str, Any]:
        """The block of that configuration."""
        return self.values["configurations"][self.configuration_name]

    @property
    def channels(self) -> int:
        """Of an image: 1, or 3 of colour pictures."""
        return len(self.configuration["normalization_schemes"])

    @property
    def standardises(self) -> bool:
        """Whether stock nnU-Net standardises by values of the plan, `CTNormalization`.

        Else an image is standardised by its own mean and deviation, `ZScoreNormalization`.
        """
        return self.configuration["normalization_schemes"][0] == "CTNormalization"

    @property
    def architecture(self) -> Mapping[str, Any]:
        """Class and arguments of the network."""
        return self.configuration["architecture"]

    @property
    def divisor(self) -> Shape:
        """Voxels per axis that the network's input must be a multiple of."""
        strides = self.architecture["arch_kwargs"]["strides"]
        # A network of planes has strides in plane alone.
        z, y, x = [1, *(int(math.prod(axis)) for axis in zip(*strides, strict=True))][-3:]
        return z, y, x

    @property
    def intensities(self) -> Intensities:
        """What values of the first channel are clipped to and standardised by."""
        return self.intensities_of(0)

    def intensities_of(self, channel: int) -> Intensities:
        """What values of a channel are clipped to and standardised by."""
        found = self.values["foreground_intensity_properties_per_channel"][str(channel)]
        keys = ("percentile_00_5", "percentile_99_5", "mean", "std")
        return Intensities(*(found[key] for key in keys))

    def with_settings(self, settings: ScreenerSettings) -> Plan:
        """The same plan with these settings of ours."""
        return Plan({**self.values, "screener": settings.to_dict()}, settings)

    def to_dict(self) -> dict[str, Any]:
        """A copy of the dictionary, as a file gives it back: for JSON, checkpoints and nnU-Net."""
        return json.loads(json.dumps(dict(self.values)))


@dataclass(frozen=True)
class Plan(StockPlan):
    """nnU-Net's plan with our typed settings, read once.

    Attributes:
        settings: what stands under the key `screener`; what an older plan lacks has its default.
    """

    settings: ScreenerSettings

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Reads nnU-Net's dictionary.

        Raises:
            ScreenerError: it is none of ours, or its settings do not fit.
        """
        if not isinstance(values, Mapping):
            raise ScreenerError("it holds no names and values: correct or delete it")
        if "screener" not in values:
            raise ScreenerError("it is a plan of stock nnU-Net, without screener's settings")
        plan = cls(copy.deepcopy(dict(values)), ScreenerSettings.from_dict(values["screener"]))
        missing = [key for key in _NEEDED if key not in values]
        if missing or not set(CONFIGURATIONS) & set(values["configurations"]):
            lacking = ", ".join(missing) or f"the configuration {' or '.join(CONFIGURATIONS)}"
            raise ScreenerError(f"it lacks {lacking}: plan anew")
        return plan


def read_plan(path: Path) -> Plan:
    """Reads a plan file.

    Raises:
        ScreenerError: the file is missing, is no JSON or is not one of ours; the message holds the
            whole path.
    """
    path = path.absolute()
    if not path.is_file():
        raise ScreenerError(f"no plan {path}: run screener_plan_and_preprocess first")
    try:
        return Plan.from_dict(json.loads(path.read_text()))
    except ScreenerError as error:
        raise ScreenerError(f"{path}: {error}") from error
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ScreenerError(f"{path} is no plan ({error}): correct or delete it") from error


def write_json(path: Path, values: Any) -> None:
    """Writes JSON so that a reader sees the old file or the whole new one, never half of it."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")
