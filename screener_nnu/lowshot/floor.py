"""The floor of the benchmark: the central ball, chosen on the cases that a training sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from screener_nnu.finetuning.ball import ball_scores, best_ball
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.lowshot.design import LowShotRun, Setting


@dataclass(frozen=True)
class Ball:
    """The best centred ball of a setting.

    Attributes:
        setting: whose training cases chose the radius.
        radius: mm.
        dice: of each validation case, all foreground as one class.
    """

    setting: Setting
    radius: float
    dice: dict[str, float]


def central_balls(dataset: LabelledDataset, runs: Iterable[LowShotRun]) -> dict[Setting, Ball]:
    """The ball of every setting; each label is read once.

    Raises:
        CaseError: a label file cannot be read.
    """
    cases = {run.setting: run.cases for run in runs}
    needed = {case for split in cases.values() for part in split.values() for case in part}
    labels = {case: dataset.labels[case] for case in sorted(needed)}
    scores = ball_scores(labels, dataset.dataset_json["labels"].get("ignore"))
    return {
        setting: Ball(setting, *best_ball(scores, split["train"], split["val"]))
        for setting, split in cases.items()
    }
