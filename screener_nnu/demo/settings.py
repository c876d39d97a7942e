"""How large the demo is, and where its files lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PRETRAINING = "Dataset901_DemoCT"
LABELLED = "Dataset902_DemoLesions"
NORMAL_CASE = "normal_0000"
_STEPS_PER_EPOCH = 20
# Steps of a density, and of a student's head, are short; each epoch ends with a figure that is not.
_QUICK_STEPS_PER_EPOCH = 100


@dataclass(frozen=True)
class DemoSize:
    """What is computed; the defaults take at most a quarter of an hour on two cores.

    Attributes:
        training_scans, test_scans, labelled_scans: phantoms of each set; the test set gets one more
            that has no lesion.
        width: channels of the UNet's first stage; half of the preset's, which a processor without
            bfloat16 would be too slow for.
        descriptor, condition, density, distillation: steps of each stage, multiples of an epoch.
        epochs, iterations: of each fine-tuning.
        planning: more words of `screener_plan_and_preprocess`.
        seed: of the phantoms.
    """

    training_scans: int = 40
    test_scans: int = 8
    labelled_scans: int = 5
    width: int = 8
    descriptor: int = 220
    condition: int = 180
    density: int = 500
    distillation: int = 600
    epochs: int = 4
    iterations: int = 20
    planning: tuple[str, ...] = ()
    seed: int = 2026

    def overrides(self) -> list[str]:
        """The plan's settings that differ from the preset, as `-o` of `screener_train` takes."""
        stages = {
            "descriptor": self.descriptor,
            "condition.contrast": self.condition,
            "density": self.density,
            "distillation": self.distillation,
        }
        return [
            f"{stage}.optimiser.{key}={value}"
            for stage, steps in stages.items()
            for key, value in _schedule(stage, steps).items()
        ]


def _schedule(stage: str, steps: int) -> dict[str, int]:
    """A stage trains whole epochs; short ones, so that the curves of the page have points."""
    quick = stage in ("density", "distillation")
    epoch = _QUICK_STEPS_PER_EPOCH if quick else _STEPS_PER_EPOCH
    return {
        "steps": steps,
        "steps_per_epoch": min(epoch, steps),
        "warmup_steps": steps // 20,
    }


@dataclass(frozen=True)
class DemoPaths:
    """Everything of a demo lies under one folder."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """nnU-Net's three folders."""
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {name: os.path.abspath(self.root / name) for name in names}

    @property
    def raw(self) -> Path:
        """Raw datasets."""
        return self.root / "nnUNet_raw"

    @property
    def test(self) -> Path:
        """Test phantoms, `images/` and `masks/`."""
        return self.root / "test"

    def maps(self, method: str) -> Path:
        """Anomaly maps of a method."""
        return self.root / "maps" / method

    @property
    def evaluation(self) -> Path:
        """Output of `screener_evaluate`."""
        return self.root / "evaluation"

    @property
    def record(self) -> Path:
        """Size of the demo and the time of each finished step."""
        return self.root / "demo.json"

    @property
    def log(self) -> Path:
        """Everything that the commands print."""
        return self.root / "demo.log"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"
