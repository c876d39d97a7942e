"""Where a fine-tuning starts from: random weights, a stage of the source, or any checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from screener_nnu.checkpoints import write_checkpoint
from screener_nnu.descriptors import PRETEXT
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import (
    STOCK_TRAINER,
    check_same_input,
    input_differences,
    read_checkpoint,
)
from screener_nnu.finetuning.image_kind import ImageKind
from screener_nnu.finetuning.settings import SETTINGS, TrainerSettings
from screener_nnu.finetuning.training import file_hash
from screener_nnu.paths import finished_checkpoint
from screener_nnu.plans import CONFIGURATIONS, Plan, StockPlan
from screener_nnu.preprocessing.modality import MODALITIES
from screener_nnu.pretext_settings import UNET
from screener_nnu.stage_checkpoint import finished_stage
from screener_nnu.starts import METHODS, START, trained_start
from screener_nnu.starts.base import ENCODER, WHOLE

SCRATCH, STUDENT, DESCRIPTOR, SHUFFLED = "scratch", "student", "descriptor", "shuffled"
STARTS = (SCRATCH, STUDENT, DESCRIPTOR, PRETEXT, SHUFFLED, START, *METHODS)
_LONGEST_NAME = 40


@dataclass(frozen=True)
class Start:
    """One start.

    Attributes:
        origin: of the weights: one of `STARTS`, or the name of a file.
        weights: checkpoint to start from; `None` starts from scratch.
        tuned: settings of a trainer of ours; `None` for nnU-Net's own.
    """

    origin: str
    weights: Path | None = None
    tuned: TrainerSettings | None = None

    @property
    def name(self) -> str:
        """Stands in plan names, so that no two starts write into one folder."""
        tuned = self.tuned
        return self.origin if tuned is None else f"{self.origin}-{tuned.word}{tuned.suffix}"

    @property
    def trainer(self) -> str:
        """Class that trains it."""
        return STOCK_TRAINER if self.tuned is None else self.tuned.trainer


def find_start(
    wanted: str, source: str, plans_name: str, plan: StockPlan, settings: Sequence[str] = ()
) -> Start:
    """The start of a name, or of a checkpoint file.

    Args:
        wanted: `scratch`, `student`, `descriptor`, `pretext` (the encoder of the image-level
            pre-training), `shuffled` (the student with the values of each tensor in a random order:
            a control), a method of `screener_nnu.starts` (trained under a plan of its own), `start`
            (the stage of that name of the plan itself), or the path of a checkpoint; with `:tuned`
            at the end it is trained by `FineTuningTrainer`, with `:probe` by `ProbeTrainer`, with
            `:lpft` by `ProbeTuningTrainer`.
        source: pre-trained dataset.
        plans_name: its plan.
        plan: the same, read.
        settings: `key=value` of these trainers; those of the others are passed over.

    Raises:
        ScreenerError: the stage has not been trained, or of another network than the plan's UNet; a
            descriptor is asked for and the plan has no settings of ours; neither a name nor a file.
    """
    plain_name, word = parted(wanted)
    if word:
        plain = find_start(plain_name, source, plans_name, plan)
        return make_start(plain.origin, plain.weights, word, settings)
    if wanted == SCRATCH:
        return Start(SCRATCH)
    if wanted == STUDENT:
        return Start(STUDENT, finished_checkpoint(source, "distillation", plans_name))
    if wanted == DESCRIPTOR:
        # A variant of the density may use the descriptor of another plan.
        try:
            density = Plan.from_dict(plan.values).settings.density
        except ScreenerError as error:
            raise ScreenerError(f"{plans_name} of {source} has no descriptor: {error}") from error
        owner = density.descriptor_plans or plans_name
        return Start(DESCRIPTOR, finished_checkpoint(source, "descriptor", owner))
    if wanted == PRETEXT:
        return Start(PRETEXT, _pretext_of_unet(source, plans_name))
    if wanted == SHUFFLED:
        student = finished_checkpoint(source, "distillation", plans_name)
        return Start(SHUFFLED, shuffled_checkpoint(student))
    if wanted == START:
        return Start(START, finished_checkpoint(source, START, plans_name))
    if wanted in METHODS:
        return Start(wanted, trained_start(source, plans_name, wanted))
    path = Path(wanted)
    if not path.is_file():
        raise ScreenerError(
            f"'{wanted}' is no start: give {', '.join(STARTS)} or the path of a checkpoint file"
        )
    return Start(file_start_name(path), path)


def _pretext_of_unet(source: str, plans_name: str) -> Path:
    """The checkpoint of a `pretext` stage that trained the encoder of the plan's UNet."""
    path = finished_checkpoint(source, PRETEXT, plans_name)
    backbone = finished_stage(source, PRETEXT, plans_name).read()["plan"].settings.pretext.backbone
    if backbone != UNET:
        raise ScreenerError(
            f"the pretext stage of {plans_name} trained {backbone}, no network of nnU-Net: "
            f"train one of the UNet's encoder (-p NAME --from_plans {plans_name} "
            f"-o pretext.backbone={UNET} -o pretext.weights=) and start from that plan"
        )
    return path


def parted(wanted: str) -> tuple[str, str]:
    """Name of a start, and the word at its end that asks for a trainer of ours, if there is one.

    Example:
        >>> parted("student:probe")
        ('student', 'probe')
        >>> parted("a:b.pth")
        ('a:b.pth', '')
    """
    name, _, word = wanted.rpartition(":")
    return (name, word) if name and word in SETTINGS else (wanted, "")


def make_start(
    origin: str, weights: Path | None, word: str = "", settings: Sequence[str] = ()
) -> Start:
    """A start with the trainer that a word of `SETTINGS` asks for, nnU-Net's own without one.

    Raises:
        ScreenerError: a setting of this trainer has a value of another kind.
    """
    if not word:
        return Start(origin, weights)
    kind = SETTINGS[word]
    own = [one for one in settings if one.partition("=")[0] in kind.keys()]
    return Start(origin, weights, kind().override(own))


def file_start_name(path: Path) -> str:
    """Name of a checkpoint as a start: what it is called, and the beginning of its hash.

    nnU-Net calls every file `checkpoint_final.pth`, so its model's folder gives the name.
    """
    path = path.resolve()
    text = path.stem
    if text.startswith("checkpoint_") and len(path.parts) > 3:
        text = re.sub(rf"__({'|'.join(CONFIGURATIONS)})$", "", path.parents[1].name)
    # No underscores: nnU-Net parts the names of its folders by them.
    word = re.sub(r"[^A-Za-z0-9]+", "-", text)[:_LONGEST_NAME].strip("-")
    return f"{word}-{file_hash(path)[:8]}"


def shuffled_checkpoint(path: Path) -> Path:
    """A checkpoint beside another one, with the values of each of its tensors permuted.

    It keeps the mean, spread and shape of every layer's weights, and nothing of what was learned.
    Made once; the permutation is always the same.
    """
    made = path.with_name(f"shuffled_{file_hash(path)[:8]}.pth")
    if not made.is_file():
        checkpoint = read_checkpoint(path)
        generator = torch.Generator().manual_seed(0)
        permuted: dict[int, torch.Tensor] = {}
        weights = checkpoint["network_weights"]
        for name, value in weights.items():
            # nnU-Net registers a tensor under several names, which must stay one tensor.
            place = value.data_ptr()
            if place not in permuted:
                order = torch.randperm(value.numel(), generator=generator)
                permuted[place] = value.flatten()[order].reshape(value.shape)
            weights[name] = permuted[place]
        write_checkpoint(checkpoint, made)
    return made


def check_input(start: Start, checkpoint: Mapping[str, Any], plan: StockPlan) -> list[str]:
    """What a user should know about these weights.

    Returns:
        A line for each difference between the images that they were trained on and what fine-tuning
        feeds, and one that says which blocks of the network were trained, where that is known.

    Raises:
        ScreenerError: weights of the source whose plan has changed since.
    """
    trained = ENCODER if start.origin == PRETEXT else checkpoint.get("trained")
    notes = []
    if trained == ENCODER:
        notes.append("note: its encoder was trained; its decoder has the weights it was made with")
    elif trained == WHOLE:
        notes.append("note: its encoder and its decoder were trained")
    if start.origin not in STARTS:
        odd = input_differences(checkpoint, plan)
        return [*notes, *(f"note: {start.origin} knew other images. {line}" for line in odd)]
    check_same_input(checkpoint, plan)
    if start.origin in (DESCRIPTOR, PRETEXT):
        notes.append(
            f"note: the {start.origin} saw images as preprocessing.equalisation of its plan says; "
            f"fine-tuning feeds {_fed(plan)}"
        )
    return notes


def _fed(plan: StockPlan) -> str:
    """What stock nnU-Net makes of an image."""
    if not plan.standardises:
        return "scans that are standardised by their own mean and deviation"
    return f"clipped and standardised {MODALITIES[ImageKind.of(plan).modality].unit}"
