"""A figure is never made of scores or maps that are no numbers; the scan is named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.trainers.rarity_target import RarityTarget
from screener_nnu.trainers.score_statistics import measure_scores, statistics_of

CPU = torch.device("cpu")
WHOLE = ("density.whole_scans=true", 'condition.kind="none"')


class Spoilt(torch.nn.Module):
    """A teacher whose score has one value that is no number."""

    def __init__(self, teacher: Any, value: float) -> None:
        super().__init__()
        self.teacher, self.value, self.cell = teacher, value, teacher.cell

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.teacher, name)

    def score(self, *maps: Any) -> torch.Tensor:
        scores = self.teacher.score(*maps)
        scores.view(-1)[0] = self.value
        return scores

    def forward(self, *inputs: Any) -> torch.Tensor:
        scores = self.teacher(*inputs)
        scores.view(-1)[0] = self.value
        return scores


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_score_statistics_name_the_scan(trained: Any, value: float) -> None:
    teacher, plan, statistics = ModelRef("901", "ScreenerPlans", "teacher").load(CPU)
    names = plan.settings.split.train
    found = measure_scores(teacher, trained.cases, names, plan, CPU)
    assert found == pytest.approx(statistics)
    with pytest.raises(ScreenerError, match=f"the teacher's scores of {names[0]} hold values"):
        measure_scores(Spoilt(teacher, value), trained.cases, names, plan, CPU)  # type: ignore[arg-type]


def test_a_scale_needs_scores_that_differ() -> None:
    for values in ([1.0], [2.0, 2.0], [1.0, math.nan], [1.0, math.inf]):
        with pytest.raises(ScreenerError, match="give no scale"):
            statistics_of([torch.tensor(values)])
    assert statistics_of([torch.tensor([1.0]), torch.tensor([3.0])])["std"] == pytest.approx(2**0.5)


def test_rarity_cannot_give_a_scale_without_numbers(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trained.trainer("distillation", "distillation.target=hu_rarity")
    monkeypatch.setattr(
        RarityTarget, "scores", lambda self, hu: torch.full(tuple(hu.shape), math.nan)
    )
    with pytest.raises(ScreenerError, match="give no scale"):
        trainer.lesson.make_ready()


def test_the_anomaly_check_names_the_scan(trained: Any) -> None:
    check = trained.trainer("density", 'condition.kind="none"').check
    check.fill()

    def score(y: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        scores = y[:, 0].clone()
        scores.view(-1)[-1] = math.nan
        return scores

    for reach in (0, 1):
        expected = rf"scores of {check.names[0]} with synthetic anomalies \({KINDS[0]}\)"
        with pytest.raises(ScreenerError, match=expected):
            check.auroc(score, reach)


@pytest.mark.parametrize("positions", [0, 20])
def test_stored_maps_without_numbers_name_scan_and_folder(trained: Any, positions: int) -> None:
    trainer = trained.trainer("density", *WHOLE, f"density.positions={positions}")
    names = trainer.settings.split.train
    trainer.source.fill(names)
    folder = trainer.source.store.files.y_folder
    maps = np.load(folder / f"{names[0]}.npy")
    maps[:] = np.nan
    np.save(folder / f"{names[0]}.npy", maps)
    reader = trainer._reader(names[:1], "density", all_positions=False)
    with pytest.raises(ScreenerError, match=f"maps of {names[0]} in {folder.parent} .* no finite"):
        reader[0]
    sound = trainer._reader(names[1:], "density", all_positions=False)
    assert torch.isfinite(sound[0].y).all()


def test_maps_of_crops_without_numbers_name_the_scan(trained: Any) -> None:
    trainer = trained.trainer("density", 'condition.kind="none"')
    sample = trainer._reader(trainer.settings.split.train, "density")[0]
    with torch.no_grad():
        for value in trainer.features.descriptor.parameters():
            value.fill_(math.nan)
    with pytest.raises(ScreenerError, match=f"maps of {sample.case} hold values"):
        trainer._maps_of(sample, [])


@pytest.mark.parametrize("weight", [0, 1])
def test_targets_of_a_student_name_the_scan(trained: Any, weight: int) -> None:
    trainer = trained.trainer("distillation", f"distillation.descriptor_weight={weight}")
    trainer.lesson.make_ready()
    from screener_nnu.trainers.teacher_targets import TeacherTargets

    teacher, plan, _ = ModelRef("901", "ScreenerPlans", "teacher").load(CPU)
    folder = trained.root / "other_scores"
    store = TeacherTargets(
        Spoilt(teacher, math.nan),  # type: ignore[arg-type]
        plan,
        trained.cases,
        folder,
        CPU,
        bool(weight),
    )
    (case, *_) = trainer.settings.split.train
    with pytest.raises(ScreenerError, match=f"the teacher's scores of {case} hold values"):
        store.fill([case])
    assert not list(folder.iterdir())
