"""Detectors by name: anything that turns a scan into a map of scores.

A detector is one entry of `DETECTORS`. Whatever comes after training (prediction, calibration,
thresholds, comparison) is written once, for all names. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from screener_nnu.descriptors import DENSE, LEVELS, PRETEXT, UNTRAINED
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import (
    configuration_of,
    dataset_name,
    finished_checkpoint,
    stage_folder,
    train_command,
)
from screener_nnu.plans import DEFAULT_PLANS_NAME
from screener_nnu.stages import load_object

if TYPE_CHECKING:
    import torch

    from screener_nnu.detectors.base import LoadedDetector

STUDENT, TEACHER, IGD, BASELINE = "student", "teacher", "igd", "baseline"


@dataclass(frozen=True)
class DetectorSpec:
    """What a name stands for.

    Attributes:
        title: in a few words, for pages and tables.
        stage: whose checkpoint holds it.
        load: function `module:name` that takes a `ModelRef` and a device and gives a
            `LoadedDetector`.
        overrides: settings that differ from the plan's. With some, the detector is trained under
            a plan of its own, `<plan>_<name>`, beside the networks of the plan.
        unit: of its scores, `nats`, or `none` where they are distances.
        of_pictures: settings that differ further under a plan of pictures.
        length: steps of its stage, as a multiple of the plan's.
    """

    title: str
    stage: str
    load: str
    overrides: tuple[str, ...] = ()
    unit: str = "nats"
    of_pictures: tuple[str, ...] = ()
    length: int = 1


_TEACHER = "screener_nnu.inference.models:load_teacher"


_ON_THE_PLANS_DESCRIPTOR = ("density.descriptor_options={}", f"density.descriptor={DENSE}")


def _fitted(
    title: str,
    density: str,
    condition: str = "none",
    unit: str = "nats",
    options: tuple[str, ...] = (),
    of_pictures: tuple[str, ...] = (),
) -> DetectorSpec:
    """A density that is fitted in one pass, on the descriptor of the plan."""
    overrides = (
        "density.options={}",
        *_ON_THE_PLANS_DESCRIPTOR,
        *(f"density.options.{option}" for option in options),
        f"density.kind={density}",
        f"condition.kind={condition}",
        "density.whole_scans=true",
        "density.positions=0",
        "density.noise=0.0",
    )
    return DetectorSpec(title, "density", _TEACHER, overrides, unit, of_pictures)


# Densities that are fitted.
_FITTED = {
    "padim": _fitted(
        "Gaussian of each place in the body (PaDiM)",
        "full_gaussian",
        "position",
        of_pictures=("density.options.bins=[1,0,0]",),
    ),
    "gaussian": _fitted("one Gaussian of all places (PaDiM without places)", "full_gaussian"),
    "pca": _fitted("Gaussian in the space of principal components", "gaussian_pca"),
    # A bank of 1000 takes the time of the flow; one of 10,000 ten times as long.
    "knn": _fitted(
        "distance to the nearest descriptors", "knn", unit="none", options=("bank=1000",)
    ),
    "msde": _fitted("mean-shift density enhancement", "msde", unit="none", options=("bank=2000",)),
}

_PLANS_TEACHER = DetectorSpec("descriptor, condition and density of the plan", "density", _TEACHER)
_FLOW = DetectorSpec(
    "one flow of the plan's descriptor, given its condition",
    "density",
    _TEACHER,
    ("density.options={}", *_ON_THE_PLANS_DESCRIPTOR, "density.kind=flow"),
)
_EXPERTS = DetectorSpec(
    "two experts: flows of the plan's descriptor and of filters made by hand, scores added",
    "density",
    _TEACHER,
    ("density.options={}", *_ON_THE_PLANS_DESCRIPTOR, "density.kind=experts"),
)


def _of_positions(end: str) -> dict[str, DetectorSpec]:
    """Detectors that exist on each descriptor.

    Two experts need the plan's UNet, trained or not: elsewhere a teacher is one flow.
    """
    return {TEACHER: _PLANS_TEACHER if end == UNTRAINED else _FLOW, **_FITTED}


#: Other descriptors than the plan's, by the end of a detector's name: title and settings.
OTHER_DESCRIPTORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "levels": (
        "on levels of the UNet",
        ("density.descriptor_options={}", f"density.descriptor={LEVELS}"),
    ),
    PRETEXT: (
        "on an image encoder of its own training (PMSACL)",
        ("density.descriptor_options={}", f"density.descriptor={PRETEXT}"),
    ),
    "filters": (
        "on filters made by hand",
        ("density.descriptor_options={}", "density.descriptor=filters"),
    ),
    "imagenet": (
        "on ImageNet features of slices",
        ("density.descriptor_options={}", "density.descriptor=imagenet"),
    ),
    UNTRAINED: (
        "on an untrained UNet",
        (*_ON_THE_PLANS_DESCRIPTOR, f"density.descriptor_plans={UNTRAINED}"),
    ),
}

# Vectors of whole images: the mean of the last map of a network of photographs. The cells of its
# stride would not fill the sides of all pictures, which are multiples of 16; half ones do.
_POOLED = replace(
    _FITTED["msde"],
    title="`msde` of vectors of whole images (ImageNet)",
    overrides=(
        *_FITTED["msde"].overrides,
        # Of 1280 numbers each: the map is beside the point here.
        "density.options.bank=200",
        "density.options.needs_vectors=true",
        "density.descriptor=imagenet",
        'density.descriptor_options={"maps": "head", "most_channels": 0}',
        "density.pooling=[1,32,32]",
    ),
    of_pictures=("density.pooling=[1,16,16]",),
)

_POOLED_PRETEXT = replace(
    _POOLED,
    title="`msde_pooled` on an image encoder of its own training (PMSACL)",
    overrides=(
        *_POOLED.overrides,
        f"density.descriptor={PRETEXT}",
        "density.pooling=[8,8,8]",
    ),
)

_IGD = DetectorSpec(
    "auto-encoder with a Gaussian in its latent space (IGD)",
    "igd",
    "screener_nnu.inference.igd:load_igd",
    unit="none",
)

# A method of another group is trained with the plan's own settings as `baseline`.
_BASELINE = DetectorSpec(
    "method that the plan names in `baseline.method`",
    BASELINE,
    "screener_nnu.inference.baseline:load_baseline",
    unit="none",
)

#: Methods of other groups by name: title, and settings where their defaults differ.
OTHER_METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    "autoencoder": ("auto-encoder with a narrow grid", ()),
    "vae": ("variational auto-encoder", ()),
    "denoising": ("UNet that takes coarse noise out of images", ()),
    "diffusion": ("patched diffusion (pDDPM)", ()),
    "fanogan": (
        "generative adversarial network with an encoder (f-AnoGAN)",
        (
            "baseline.optimiser.learning_rate=1e-4",
            # Not clipped in practice: a critic's gradient is held by its penalty.
            "baseline.optimiser.clip_norm=1000",
            "baseline.crops_per_step=8",
            # Before the encoder learns, figures say nothing.
            "baseline.keep=last",
        ),
    ),
    "cflow": (
        "flows of ImageNet features place by place (CFLOW)",
        ("baseline.crops_per_step=1",),
    ),
    "msflow": (
        "flows of ImageNet maps of three scales with a fusion (MSFlow)",
        ("baseline.crops_per_step=1",),
    ),
    "mood": ("UNet that finds painted foreign tissue (MOOD-Top1)", ()),
    "draem": ("UNet beside a network that takes painted anomalies out again (DRAEM)", ()),
    "cutpaste_segmentation": ("UNet that finds patches of the image itself (CutPaste)", ()),
    "medmix_segmentation": ("UNet that finds deformed patches of other images (MedMix)", ()),
}

# Two parts of it learn in turn, and one after them.
_LENGTHS = {"fanogan": 3}

#: Detector by name.
DETECTORS: dict[str, DetectorSpec] = {
    STUDENT: DetectorSpec(
        "distilled UNet", "distillation", "screener_nnu.inference.models:load_student"
    ),
    TEACHER: _PLANS_TEACHER,
    **_FITTED,
    **{
        f"{name}_{end}": replace(
            spec, title=f"`{name}` {where}", overrides=(*spec.overrides, *settings)
        )
        for end, (where, settings) in OTHER_DESCRIPTORS.items()
        for name, spec in _of_positions(end).items()
    },
    "flow": _FLOW,
    "experts": _EXPERTS,
    "msde_pooled": _POOLED,
    IGD: _IGD,
    "igd_pretext": replace(
        _IGD,
        title=f"`{IGD}` {OTHER_DESCRIPTORS[PRETEXT][0]}",
        overrides=("igd.start=pretext",),
    ),
    "msde_pooled_pretext": _POOLED_PRETEXT,
    BASELINE: _BASELINE,
    **{
        name: replace(
            _BASELINE,
            title=title,
            overrides=("baseline.options={}", f"baseline.method={name}", *settings),
            length=_LENGTHS.get(name, 1),
        )
        for name, (title, settings) in OTHER_METHODS.items()
    },
}


def detector_spec(name: str) -> DetectorSpec:
    """The detector of a name.

    Raises:
        ScreenerError: there is none; the message lists the known ones.
    """
    if name not in DETECTORS:
        raise ScreenerError(f"no detector '{name}'; known: {', '.join(DETECTORS)}")
    return DETECTORS[name]


def detectors_of(stage: str) -> list[str]:
    """Detectors that are a stage of a plan itself, and need no plan of their own."""
    return [name for name, spec in DETECTORS.items() if (spec.stage, spec.overrides) == (stage, ())]


@dataclass(frozen=True)
class ModelRef:
    """Names a trained model.

    Attributes:
        dataset: number or name of the data set that it learned from.
        plans: plan of that data set.
        detector: a name of `DETECTORS`.
        checkpoint: file in place of the finished one, of detectors of one file.
    """

    dataset: int | str
    plans: str = DEFAULT_PLANS_NAME
    detector: str = STUDENT
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        """Refuses a name that nothing is registered under.

        Raises:
            ScreenerError: no such detector, or a checkpoint of one that is made of several.
        """
        spec = detector_spec(self.detector)
        if self.checkpoint is not None and spec.stage != "distillation":
            raise ScreenerError(
                f"-chk is a checkpoint of a student: leave it out, or the detector {self.detector}"
            )

    @property
    def spec(self) -> DetectorSpec:
        """What its name stands for."""
        return DETECTORS[self.detector]

    @property
    def stage(self) -> str:
        """The stage whose checkpoint holds it."""
        return self.spec.stage

    @property
    def trained_plans(self) -> str:
        """The plan that its last stage is trained under."""
        return f"{self.plans}_{self.detector}" if self.spec.overrides else self.plans

    @property
    def folder(self) -> Path:
        """Of its checkpoint and calibration."""
        return stage_folder(self.dataset, self.stage, self.trained_plans)

    @property
    def file(self) -> Path:
        """Its checkpoint.

        Raises:
            ScreenerError: it is not trained; the message holds the command that trains it.
        """
        if self.checkpoint is not None:
            return self.checkpoint
        path = self.folder / "checkpoint_final.pth"
        if self.spec.overrides and not path.is_file():
            raise ScreenerError(
                f"the detector {self.detector} of {self.plans} has not been trained ({path} is "
                f"missing); run\n    {self.train_command}"
            )
        return finished_checkpoint(self.dataset, self.stage, self.trained_plans)

    @property
    def title(self) -> str:
        """For people: data set, plan and detector."""
        return f"{self.dataset}, {self.plans}, {self.detector}"

    @property
    def train_command(self) -> str:
        """The command line that trains it."""
        if not self.spec.overrides:
            return train_command(self.dataset, self.stage, self.plans)
        configuration = configuration_of(self.dataset, self.plans)
        return f"screener_train {self._number} {configuration} {self.detector}{self._plans_option}"

    def command(self, name: str) -> str:
        """The command line `screener_<name>` for this model."""
        detector = {STUDENT: "", TEACHER: " --teacher"}.get(
            self.detector, f" --detector {self.detector}"
        )
        return f"screener_{name} -d {self._number}{self._plans_option}{detector}"

    @property
    def _number(self) -> int:
        return int(dataset_name(self.dataset)[7:10])

    @property
    def _plans_option(self) -> str:
        return "" if self.plans == DEFAULT_PLANS_NAME else f" -p {self.plans}"

    def load(self, device: torch.device) -> LoadedDetector:
        """Reads the trained model.

        Raises:
            ScreenerError: a stage is missing or damaged; the message holds the way out.
        """
        loaded: LoadedDetector = load_object(self.spec.load)(self, device)
        return loaded
