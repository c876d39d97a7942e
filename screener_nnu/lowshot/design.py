"""The trainings of a low-shot benchmark: every start on the same cases with the same budget."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.splits import (
    Fold,
    append_folds,
    chosen_folds,
    draw_low_shot,
    ensure_splits,
    read_splits,
)
from screener_nnu.finetuning.starts import Start
from screener_nnu.finetuning.training import FineTuningRun
from screener_nnu.plans import VOLUMES


@dataclass(frozen=True, order=True)
class Setting:
    """What all starts are compared under: training cases, fold of the cross-validation, seed."""

    num_cases: int
    fold: int
    seed: int

    @property
    def torch_seed(self) -> int:
        """Seed of the training itself, the same for every start and size of the training set."""
        return zlib.crc32(f"low-shot {self.seed} {self.fold}".encode())


@dataclass(frozen=True)
class Design:
    """What is compared.

    Attributes:
        num_cases: sizes of the training sets, ascending.
        folds: folds of the cross-validation.
        seeds: repetitions, each with training sets and random numbers of its own.
        epochs, iterations: budget of each training.

    Raises:
        ScreenerError: a number below one, or fewer than two folds.
    """

    num_cases: tuple[int, ...]
    folds: int
    seeds: int
    epochs: int
    iterations: int

    def __post_init__(self) -> None:
        """Refuses what cannot be trained."""
        if not self.num_cases or min(self.num_cases) < 1:
            raise ScreenerError("--num_cases needs at least one number, each of them 1 or more")
        if self.folds < 2 or min(self.seeds, self.epochs, self.iterations) < 1:
            raise ScreenerError(
                "--folds must be at least 2, and --seeds, --epochs and --iterations at least 1"
            )

    def plan_suffix(self, start: str, seed: int) -> str:
        """What sets a plan name apart: start, budget and seed.

        Two seeds that draw the same cases, and a trial with a small budget, keep folders of their
        own; so does a fine-tuning outside of the benchmark.

        Example:
            >>> Design((5, 10), 4, 2, 30, 50).plan_suffix("student", 1)
            'student_30x50_seed1'
        """
        return f"{start}_{self.epochs}x{self.iterations}_seed{seed}"

    def settings(self) -> list[Setting]:
        """Settings in the order of training: all folds of a seed before the next seed."""
        order = product(range(self.seeds), range(self.folds), self.num_cases)
        return [Setting(num_cases, fold, seed) for seed, fold, num_cases in order]


@dataclass(frozen=True)
class LowShotRun:
    """One training.

    Attributes:
        start: name of the start.
        setting: shared with the other starts.
        cases: training and validation cases.
        training: as nnU-Net runs it.
    """

    start: str
    setting: Setting
    cases: Fold
    training: FineTuningRun

    @property
    def name(self) -> str:
        """For messages: `student, 5 cases, fold 0, seed 1`."""
        setting = self.setting
        return f"{self.start}, {setting.num_cases} cases, fold {setting.fold}, seed {setting.seed}"


def draw_cases(folder: Path, cases: Sequence[str], design: Design) -> dict[Setting, Fold]:
    """Training and validation cases of each setting; nothing is written.

    Args:
        folder: preprocessed folder of the labelled dataset.
        cases: its cases.
        design: what is compared.

    Raises:
        ScreenerError: more folds than cases, more training cases than a fold has, or a
            `splits_final.json` that cannot be used.
    """
    folds = chosen_folds(read_splits(folder), cases, design.folds, folder)
    return {
        s: draw_low_shot(folds[s.fold], s.num_cases, s.seed, f"fold {s.fold} of {design.folds}")
        for s in design.settings()
    }


def plan_runs(
    dataset: str,
    folder: Path,
    cases: Sequence[str],
    design: Design,
    plans: dict[Start, list[str]],
    configuration: str = VOLUMES,
) -> list[LowShotRun]:
    """All trainings, in an order that compares all starts on a few settings first.

    Folds that `splits_final.json` lacks are appended; those in it are never changed, and a fold
    with the same cases is used again.

    Args:
        dataset: full name of the labelled dataset.
        folder: its preprocessed folder.
        cases: its cases.
        design: what is compared.
        plans: plan name of each start and seed.
        configuration: that of all these plans.

    Raises:
        ScreenerError: see `draw_cases`.
    """
    drawn = draw_cases(folder, cases, design)
    ensure_splits(folder, cases)
    indices = append_folds(folder, list(drawn.values()))
    runs = []
    for (setting, split), index in zip(drawn.items(), indices, strict=True):
        for start, names in plans.items():
            training = FineTuningRun(
                dataset,
                names[setting.seed],
                index,
                start.weights,
                design.epochs,
                design.iterations,
                setting.torch_seed,
                start.trainer,
                configuration,
            )
            runs.append(LowShotRun(start.name, setting, split, training))
    return runs
