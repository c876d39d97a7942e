"""Pre-training of the starts of a benchmark, each within the same budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from screener_nnu.ablation.budget import Budget, assign_budget
from screener_nnu.ablation.failures import Failures
from screener_nnu.ablation.run import train_planned
from screener_nnu.descriptors import PRETEXT
from screener_nnu.detectors import STUDENT
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.starts import DESCRIPTOR, SHUFFLED, parted
from screener_nnu.paths import plan_file
from screener_nnu.plans import ScreenerSettings, read_plan
from screener_nnu.pretext_settings import UNET
from screener_nnu.starts import METHODS, PREFIX, START


class Pretrained(NamedTuple):
    """Starts that can be fine-tuned from.

    Attributes:
        plans: of the source, to which all of them belong.
        starts: as they were asked for, without those that failed.
        notes: what each was given, for the report.
        failures: reasons by what failed.
    """

    plans: str
    starts: list[str]
    notes: list[str]
    failures: dict[str, str]


def pretrain_starts(
    dataset: str, plans: str, starts: Sequence[str], budget: Budget, device: torch.device
) -> Pretrained:
    """Trains what some starts lack; what is finished stays, what was killed goes on.

    A start of several stages, the student, splits its budget among them; the descriptor alone has
    the student's share where the student is among the starts, and shuffled weights are the
    student's.

    Args:
        dataset: name of the source.
        plans: its plan.
        starts: see `finetuning.starts.find_start`; random weights and files need no training.
        budget: of each.
        device: to train on.

    Raises:
        ScreenerError: no such plan, or a `pretext` stage that would train no UNet. A start that
            cannot be trained is named in the result.
    """
    settings = read_plan(plan_file(dataset, plans)).settings
    words = {start: _word(parted(start)[0], settings) for start in starts}
    if PRETEXT in words.values() and settings.pretext.backbone != UNET:
        raise ScreenerError(
            f"the pretext stage of {plans} trains {settings.pretext.backbone}, no network of "
            f"nnU-Net: plan with -o pretext.backbone={UNET} -o pretext.weights=, or leave "
            f"{PRETEXT} out of the starts"
        )
    failures = Failures(first="")
    needed = list(dict.fromkeys(word for word in words.values() if word))
    assigned = assign_budget(dataset, plans, needed, budget, device, failures.guard, one_plan=True)
    for one in assigned:
        with failures.guard(one.model.detector):
            train_planned(one.model, one.more, plans, device)
    left = [start for start, word in words.items() if word not in failures.reasons]
    given = {one.model.detector: one.minutes for one in assigned}
    minutes = [
        f"{start} {given[word]:.2f}"
        for start in left
        if given.get(word := words[start]) is not None
    ]
    notes = [f"Pre-training of each start: {budget}."]
    notes += [f"Minutes of steps given: {', '.join(minutes)}."] if minutes else []
    notes += [f"Not pre-trained: {word}: {why}" for word, why in failures.reasons.items()]
    own = {one.model.plans for one in assigned}
    return Pretrained(own.pop() if own else plans, left, notes, failures.reasons)


def _word(start: str, settings: ScreenerSettings) -> str:
    """What `screener_train` calls the training of a start; empty for one that needs none."""
    if start in METHODS:
        return PREFIX + start
    if start in (STUDENT, SHUFFLED):
        return STUDENT
    if start in (PRETEXT, START):
        return start
    own_descriptor = start == DESCRIPTOR and not settings.density.descriptor_plans
    return DESCRIPTOR if own_descriptor else ""
