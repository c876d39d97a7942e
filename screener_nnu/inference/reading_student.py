"""A student that reads its condition, from its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from screener_nnu.densities import StandardisedDensity, new_density
from screener_nnu.descriptors import DENSE, WITH_FILTERS, descriptor_of
from screener_nnu.descriptors.filters import FiltersSettings
from screener_nnu.descriptors.student_features import StudentFeatures
from screener_nnu.descriptors.with_filters import FiltersOfEqualised
from screener_nnu.errors import ScreenerError
from screener_nnu.networks.probed import LevelPerceptron
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import DensitySettings, Plan
from screener_nnu.scoring.reading_student import ReadingStudent
from screener_nnu.setting_values import parse


def teacher_entry(settings: DensitySettings, channels: tuple[int, int]) -> dict[str, Any]:
    """What a checkpoint says of the density that its student scores by.

    Args:
        settings: that it was trained with.
        channels: of descriptor and condition.
    """
    return {"density": asdict(settings), "channels": list(channels)}


class StudentParts:
    """The networks of a student as its checkpoint describes them, without their weights.

    Args:
        plan: of the student.
        settings: of the density.
        channels: of descriptor and condition, see `read_entry`.

    Attributes:
        unet, filters, head: of the student; no filters where its teacher has none.
    """

    def __init__(self, plan: Plan, settings: DensitySettings, channels: list[int]) -> None:
        """Builds UNet and head; `density` builds the rest."""
        self.settings, self.channels = settings, channels
        self.filters = None
        if descriptor_of(settings) == WITH_FILTERS:
            options = parse(FiltersSettings, settings.descriptor_options, "descriptor_options")
            self.filters = FiltersOfEqualised(options.sigmas, options.variance_sigmas)
            self.filters.check_images(plan.settings.preprocessing)
        outputs = channels[0] - (self.filters.channels if self.filters else 0)
        self.unet = build_unet(plan, plan.channels, outputs)
        self.features = StudentFeatures(self.unet, self.filters)
        hidden = plan.settings.distillation.hidden
        self.head = LevelPerceptron(self.features.read, channels[1], hidden)

    def density(self, weights: Mapping[str, Any]) -> StandardisedDensity:
        """The density, of the size that these weights have."""
        density = new_density(self.settings, *self.channels)
        density.resize_to(weights)
        return density

    def joined(self, density: StandardisedDensity, plan: Plan) -> ReadingStudent:
        """The student of these parts."""
        self.features.standardise_filters(density.y_mean, density.y_std)
        bfloat16 = plan.settings.low_precision_cpu
        pooling = self.settings.pooling
        return ReadingStudent(self.features, self.head, density, pooling, bfloat16)


def read_entry(entry: Any) -> tuple[DensitySettings, list[int]]:
    """Settings and channels of `teacher_entry`.

    Raises:
        ScreenerError: it is none.
    """
    if not isinstance(entry, Mapping) or set(entry) != {"density", "channels"}:
        raise ScreenerError("what it says of its teacher is none of ours")
    channels = entry["channels"]
    if not isinstance(channels, list) or [type(n) for n in channels] != [int, int]:
        raise ScreenerError(f"its density has the channels {channels!r}")
    settings: DensitySettings = parse(DensitySettings, entry["density"], "teacher.density")
    if settings.descriptor not in (DENSE, WITH_FILTERS):
        raise ScreenerError(f"no student has the descriptor '{settings.descriptor}'")
    return settings, channels
