"""What a model file holds, by member, and what its `model.json` must say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from screener_nnu.detectors import DETECTORS, STUDENT, ModelRef, detectors_of
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import MODEL_MARKER
from screener_nnu.plans import CONFIGURATIONS, VOLUMES
from screener_nnu.stages import STAGES

FORMAT = "screener_model"
# Version 2 may have another detector than a student.
FORMAT_VERSIONS = (1, 2)
CARD, DESCRIPTION, DATASET, HISTOGRAM = (
    "MODEL_CARD.md",
    "model.json",
    "dataset.json",
    "histogram.json",
)
MARKER = MODEL_MARKER
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_PLAN = re.compile(rf"plans/({_NAME})\.json")
_CHECKPOINT = re.compile(rf"checkpoints/({_NAME})/({'|'.join(STAGES)})\.pth")
_CALIBRATED = [stage for stage in STAGES if detectors_of(stage)]
_CALIBRATION = re.compile(rf"calibrations/({_NAME})/({'|'.join(_CALIBRATED)})\.json")
_DATASET_NAME = re.compile(rf"Dataset\d{{3}}_{_NAME}")


@dataclass(frozen=True, order=True)
class StageFile:
    """A trained stage of a plan."""

    plans_name: str
    stage: str

    @property
    def member(self) -> str:
        """Its checkpoint inside a model file."""
        return f"checkpoints/{self.plans_name}/{self.stage}.pth"

    @property
    def calibration_member(self) -> str:
        """Its calibration inside a model file, if it has one."""
        return f"calibrations/{self.plans_name}/{self.stage}.json"

    @property
    def has_scores(self) -> bool:
        """Whether maps are made by this stage, so that it can be calibrated."""
        return bool(detectors_of(self.stage))

    @property
    def detector(self) -> str:
        """The detector that this stage makes, of a stage with scores."""
        return detectors_of(self.stage)[0]


@dataclass(frozen=True)
class Manifest:
    """The part of `model.json` that installing relies on.

    Attributes:
        dataset: full name of the pre-training data set.
        plans_name: plan of the detector.
        detector: what the file was made for; earlier ones hold a student.
        configuration: of all plans; that of earlier files, which do not say it, is `3d_fullres`.
        files: size in bytes and SHA-256 of every other member.
        description: the whole of `model.json`.
    """

    dataset: str
    plans_name: str
    detector: str
    configuration: str
    files: dict[str, tuple[int, str]]
    description: dict[str, Any]

    @property
    def last_stage(self) -> StageFile:
        """The stage that holds the detector."""
        return last_stage(ModelRef(self.dataset, self.plans_name, self.detector))

    @property
    def plans(self) -> list[str]:
        """Names of the plans inside, sorted."""
        return sorted(m.group(1) for m in map(_PLAN.fullmatch, self.files) if m)

    @property
    def stages(self) -> list[StageFile]:
        """The trained stages inside, in the order of training."""
        found = (_CHECKPOINT.fullmatch(name) for name in self.files)
        files = sorted(StageFile(m.group(1), m.group(2)) for m in found if m)
        return sorted(files, key=lambda file: list(STAGES).index(file.stage))

    @property
    def calibrations(self) -> list[StageFile]:
        """The stages whose calibrations are inside."""
        found = (_CALIBRATION.fullmatch(name) for name in self.files)
        return sorted(StageFile(m.group(1), m.group(2)) for m in found if m)


def last_stage(model: ModelRef) -> StageFile:
    """The stage that holds a detector, under the plan that it was trained with."""
    return StageFile(model.trained_plans, model.stage)


def format_version(detector: str) -> int:
    """The oldest version that can hold a detector."""
    return FORMAT_VERSIONS[0 if detector == STUDENT else 1]


def plan_member(plans_name: str) -> str:
    """A plan inside a model file."""
    return f"plans/{plans_name}.json"


def is_plain_name(text: object) -> bool:
    """Whether a text can be the name of a file on any system, and leads nowhere else."""
    return isinstance(text, str) and re.fullmatch(_NAME, text) is not None


def is_dataset_name(text: object) -> bool:
    """Whether a text is a full name `DatasetXXX_Name`."""
    return isinstance(text, str) and _DATASET_NAME.fullmatch(text) is not None


def is_member(name: str) -> bool:
    """Whether a model file may hold a file of this name."""
    return (
        name in (CARD, DESCRIPTION, DATASET, HISTOGRAM)
        or _PLAN.fullmatch(name) is not None
        or _CHECKPOINT.fullmatch(name) is not None
        or _CALIBRATION.fullmatch(name) is not None
    )


def read_manifest(values: Any, members: Iterable[str]) -> Manifest:
    """Checks `model.json` against the members that are there.

    Raises:
        ScreenerError: another format or version, values of the wrong kind, members that it does
            not list, or listed ones that are missing.
    """
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ScreenerError(f"it does not say that it is a '{FORMAT}'")
    version = values.get("format_version")
    if version not in FORMAT_VERSIONS or isinstance(version, bool):
        known = " and ".join(map(str, FORMAT_VERSIONS))
        raise ScreenerError(
            f"its format version is {version!r}, and this installation reads {known}: "
            "install the version of screener_nnu that wrote it, or ask for the file in this format"
        )
    dataset, plans_name = values.get("dataset"), values.get("plans_name")
    if not is_dataset_name(dataset) or not is_plain_name(plans_name):
        raise ScreenerError(f"{dataset!r} with {plans_name!r} cannot name a data set and a plan")
    assert isinstance(dataset, str) and isinstance(plans_name, str)
    detector = values.get("detector", STUDENT)
    if not isinstance(detector, str) or detector not in DETECTORS:
        raise ScreenerError(
            f"it holds the detector {detector!r}, which this installation does not know (known: "
            f"{', '.join(DETECTORS)}): install the version of screener_nnu that wrote it"
        )
    files = _files(values.get("files"))
    manifest = Manifest(dataset, plans_name, detector, _configuration(values), files, values)
    differing = {*manifest.files, DESCRIPTION} ^ set(members)
    if differing:
        raise ScreenerError(f"model.json and the members differ in {sorted(differing)[:5]}")
    last = manifest.last_stage
    needed = {CARD, DATASET, plan_member(last.plans_name), last.member}
    missing = sorted(needed - set(manifest.files))
    if missing:
        raise ScreenerError(f"it lacks {', '.join(missing)}")
    return manifest


def _configuration(values: dict[str, Any]) -> str:
    settings = values.get("settings")
    found = settings.get("configuration", VOLUMES) if isinstance(settings, dict) else VOLUMES
    if found not in CONFIGURATIONS:
        raise ScreenerError(f"model.json names the configuration {found!r}, which is none of ours")
    return str(found)


def _files(values: Any) -> dict[str, tuple[int, str]]:
    if not isinstance(values, dict):
        raise ScreenerError("model.json lists no files")
    files = {}
    for name, entry in values.items():
        size, digest = (entry.get("bytes"), entry.get("sha256")) if _is_entry(entry) else (0, "")
        if not isinstance(size, int) or not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
            raise ScreenerError(f"model.json gives {name!r} no size and sha256")
        files[name] = (size, digest)
    return files


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and set(entry) == {"bytes", "sha256"}
