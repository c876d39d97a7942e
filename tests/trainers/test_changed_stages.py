"""A stage notices that what it builds on was trained anew, or cannot be read."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.trainers import painted_scans
from screener_nnu.trainers.run import train_stage

CPU = torch.device("cpu")


def final(world: Any, stage: str) -> Path:
    return world.stage(stage) / "checkpoint_final.pth"


def train_anew(path: Path) -> None:
    """What another training would leave: the same checkpoint with other weights."""
    checkpoint = torch.load(path, weights_only=True)
    next(iter(checkpoint["network_weights"].values())).add_(1e-3)
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("changed", "stage"),
    [("descriptor", "density"), ("condition", "density"), ("density", "distillation")],
)
def test_finished_and_killed_stages_are_refused(trained: Any, changed: str, stage: str) -> None:
    train_stage("901", stage, "ScreenerPlans", CPU)  # finished, left alone
    trainer = trained.trainer(stage)
    trainer.load_checkpoint(str(final(trained, stage)))
    train_anew(final(trained, changed))
    with pytest.raises(ScreenerError, match="trained anew since then; add --restart"):
        train_stage("901", stage, "ScreenerPlans", CPU)
    with pytest.raises(ScreenerError, match="trained anew since then; add --restart"):
        trained.trainer(stage).load_checkpoint(str(final(trained, stage)))


def test_a_finished_stage_stays_without_the_ones_before_it(trained: Any) -> None:
    final(trained, "density").unlink()
    train_stage("901", "distillation", "ScreenerPlans", CPU)


def test_scan_without_room_for_anomalies_is_left_out(
    trained: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trained.trainer("density", 'condition.kind="none"')
    check = trainer.check
    names = check.names = (*trainer.settings.split.validation, trainer.settings.split.train[0])
    check._key = "two"
    paint = painted_scans.anomalous_case

    def refuse(cases: Any, case: str, others: Any, kind: str, *rest: Any) -> Any:
        if case == names[0] and kind == KINDS[-1]:
            raise CaseError(case, "no place")
        return paint(cases, case, others, kind, *rest)

    monkeypatch.setattr(painted_scans, "anomalous_case", refuse)
    check.fill()
    check.prepare()
    assert check.names == names[1:]
    assert f"{names[0]}: no place" in caplog.text
    assert np.isfinite(check.auroc(lambda y, c: y[:, 0])["mean"])
    monkeypatch.setattr(painted_scans, "KINDS", (KINDS[-1],))
    alone = trained.trainer("density", 'condition.kind="none"').check
    alone.names = names[:1]
    alone._key = "other"
    with pytest.raises(ScreenerError, match="cannot be painted into any validation scan"):
        alone.prepare()


@pytest.mark.parametrize(("modality", "share"), [("ct", 0), ("ct", 1), ("mr", 1), ("mr", 2)])
def test_kinds_that_hardly_any_scan_has_room_for_are_left_out(
    trained: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    modality: str,
    share: int,
) -> None:
    """Of three scans, some have room for the last kind."""
    check = trained.trainer("density", 'condition.kind="none"').check
    names = check.names = trained.plan().settings.split.train[:3]
    settings = check.settings
    preprocessing = dataclasses.replace(settings.preprocessing, modality=modality)
    check.settings = dataclasses.replace(settings, preprocessing=preprocessing)

    def stored(case: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        if kind == KINDS[-1] and case not in names[:share]:
            raise CaseError(case, "no place")
        return np.ones(1), np.ones(1)

    monkeypatch.setattr(check, "_stored", stored)
    check.prepare()
    kept = share > (0 if modality == "ct" else 1)
    assert check.kinds == (KINDS if kept else KINDS[:-1])
    assert check.names == (names[:share] if kept else names)
    assert (f"anomalies of kind {KINDS[-1]}" in caplog.text) != kept


def test_maps_of_a_case_that_changed_are_made_anew(trained: Any) -> None:
    trainer = trained.trainer("density", "density.whole_scans=true", 'condition.kind="none"')
    (case, *_) = trainer.settings.split.train
    trainer.source.fill([case])
    file = trainer.source.store.files.y_folder / f"{case}.npy"
    made = file.stat().st_mtime_ns
    trainer.source.fill([case])
    assert file.stat().st_mtime_ns == made
    later = file.stat().st_mtime + 10
    os.utime(trained.cases / f"{case}.json", (later, later))
    trainer.source.fill([case])
    assert file.stat().st_mtime_ns > made


def test_broken_scans_are_left_out_of_the_maps(
    trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trained.trainer("density", "density.whole_scans=true", 'condition.kind="none"')
    (case, *others) = trainer.settings.split.train
    (trained.cases / f"{case}_equalised.b2nd").write_bytes(b"torn")
    trainer.source.fill([case, *others])
    assert f"left out: {case}: " in caplog.text
    reader = trainer._reader(trainer.settings.split.train, "density")
    for index in range(len(others) + 1):
        assert reader[index].y.shape[1] > 0
    assert "its stored maps cannot be read" in caplog.text
