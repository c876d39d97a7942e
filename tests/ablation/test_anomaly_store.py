"""Scans that cannot get anomalies are left out for all, before anything is trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screener_nnu.ablation import ablate, anomaly_store
from screener_nnu.ablation.anomaly_store import AnomalyStore
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.cases import ALTERED, PAINTED


def store(world: Any, folder: Path) -> AnomalyStore:
    settings = world.plan().settings
    return AnomalyStore(CaseFolder(world.cases), settings.split.train[:3], settings, 1, folder)


def refusing(monkeypatch: pytest.MonkeyPatch, *cases: str) -> None:
    """No place for deformations in these cases."""
    paint = anomaly_store.anomalous_case

    def wrapped(folder: CaseFolder, case: str, others: Any, kind: str, *rest: Any) -> Any:
        if case in cases and kind == "deformation":
            raise CaseError(case, "no room")
        return paint(folder, case, others, kind, *rest)

    monkeypatch.setattr(anomaly_store, "anomalous_case", wrapped)


def test_a_case_without_room_for_one_kind_is_left_out_of_all(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = store(world, tmp_path)
    first, second, third = made.names
    before = made.identity
    refusing(monkeypatch, second)
    made.fill()
    assert made.names == (first, third) and made.identity != before
    assert made.left_out == [second]
    assert f"{second}: no room" in caplog.text
    kept = {path.name for path in tmp_path.glob(f"*_{made.identity}.npz")}
    assert kept == {f"{c}__{k}_{made.identity}.npz" for c in (first, third) for k in KINDS}


def test_changes_are_those_within_the_window(world: Any, tmp_path: Path) -> None:
    """Also where an earlier version kept the masks alone."""
    made = store(world, tmp_path)
    case = made.names[0]
    low, high = made.settings.preprocessing.hu_window
    before = made.cases.read(case, "hu").astype(np.float32)
    mask, counted = made.masks(case, "constant")
    after = made.paint(case, "constant").hu.astype(np.float32)
    expected = np.abs(np.clip(after, low, high) - np.clip(before, low, high))[mask]
    np.testing.assert_allclose(made.change(case, "constant"), expected, atol=1e-3)
    assert expected.max() > 50 and not len(made.change(case, "none"))
    (path,) = tmp_path.glob(f"{case}__constant_*.npz")
    np.savez_compressed(path, mask=mask, counted=counted)
    np.testing.assert_allclose(made.change(case, "constant"), expected, atol=1e-3)


def test_fewer_scans_are_spread_over_the_split(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablate, "judge_baselines", lambda *_: {})
    names = world.plan().settings.split.train
    monkeypatch.setattr(AnomalyStore, "fill", lambda self: None)
    for asked, chosen in ((2, (names[0], names[-1])), (99, names), (None, names)):
        store, _ = ablate.open_comparison(
            901, "ScreenerPlans", "train", 1, tmp_path, num_scans=asked
        )
        assert store.names == chosen and store.left_out == []


def test_unreadable_cases_are_left_out_as_donors_too(world: Any, tmp_path: Path) -> None:
    made = store(world, tmp_path)
    no_marker, no_voxels, whole = made.names
    (world.cases / f"{no_marker}.json").unlink()
    (world.cases / f"{no_voxels}_hu.b2nd").write_bytes(b"torn")
    made.fill()
    assert made.names == (whole,)


def test_no_scan_left_is_said(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = store(world, tmp_path)
    refusing(monkeypatch, *made.names)
    with pytest.raises(ScreenerError, match="into any scan: plan with more or larger ones"):
        made.fill()


def test_a_case_prepared_again_gets_new_anomalies(world: Any, tmp_path: Path) -> None:
    made = store(world, tmp_path)
    before, (mask, _) = made.identity, made.masks(made.names[0], "constant")
    again = store(world, tmp_path)
    assert again.identity == before
    np.testing.assert_array_equal(again.masks(made.names[0], "constant")[0], mask)
    later = (world.cases / f"{made.names[0]}.json").stat().st_mtime + 5
    os.utime(world.cases / f"{made.names[0]}.json", (later, later))
    assert store(world, tmp_path).identity != before


def test_a_scan_left_out_makes_no_other_altered_one_anew(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only painted anomalies take tissue of other scans; a plain scan belongs to no family."""
    settings, cases = world.plan().settings, CaseFolder(world.cases)
    names = settings.split.train[:3]
    painted, made = (
        AnomalyStore(cases, names, settings, 1, tmp_path, family) for family in (PAINTED, ALTERED)
    )
    case, kind = names[0], made.kinds[0]
    assert painted.identity_of(case, "none") == made.identity_of(case, "none")
    assert made.identity_of(case, kind) != made.identity_of(case, "none")
    assert made.identity_of(case, kind) != made.identity_of(names[1], kind)
    mask, counted = made.masks(case, kind)
    made.names = names[:2]
    before, painted.names = painted.identity_of(case, "constant"), names[:2]
    assert painted.identity_of(case, "constant") != before
    monkeypatch.setattr(AnomalyStore, "paint", None)
    for now, then in zip(made.masks(case, kind), (mask, counted), strict=True):
        np.testing.assert_array_equal(now, then)
    other = AnomalyStore(cases, names, settings, 2, tmp_path, ALTERED)
    assert other.identity_of(case, kind) != made.identity_of(case, kind)
    assert other.identity_of(case, "none") == made.identity_of(case, "none")
