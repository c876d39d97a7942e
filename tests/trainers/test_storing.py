"""What a stage stores of its scans is the same whoever makes it."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screener_nnu.calibration.store import calibration_file, read_calibration
from screener_nnu.commands import calibrate
from screener_nnu.commands import train as command
from screener_nnu.detectors import ModelRef
from screener_nnu.trainers import storing
from screener_nnu.workers.crew import Crew, working_with


@pytest.fixture
def crew() -> Crew:
    return Crew.of(ThreadPoolExecutor(1))


def stored(world: Any, kind: str) -> dict[str, np.ndarray]:
    """All arrays in the folder of maps or scores."""
    folder = Path(f"{world.cases}_{kind}")
    return {str(path.relative_to(folder)): np.load(path) for path in folder.rglob("*.npy")}


def forget(world: Any, *kinds: str) -> None:
    for kind in kinds:
        shutil.rmtree(f"{world.cases}_{kind}")


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    # Maps that only other stages read are not made again.
    assert found and found.keys() <= expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_workers_store_what_this_process_stores(
    trained: Any, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fitted detector on whole scans: maps of all cases and of those with synthetic anomalies.
    trained.train("padim")
    maps, scores = stored(trained, "maps"), stored(trained, "scores")
    forget(trained, "maps", "scores")
    made: list[str] = []
    for name in ("maps_elsewhere", "painted_elsewhere", "scores_elsewhere"):
        for module in ("scan_maps", "anomaly_check", "teacher_targets"):
            own = f"screener_nnu.trainers.{module}.{name}"
            original = getattr(storing, name)

            def noted(*given: Any, original: Any = original, **named: Any) -> None:
                made.append(original.__name__)
                original(*given, **named)

            monkeypatch.setattr(own, noted, raising=False)
    monkeypatch.setattr(command, "cluster_of", lambda _: working_with(crew))
    trained.train("padim", "--restart")
    trained.train("distillation", "--restart")
    assert set(made) == {"maps_elsewhere", "painted_elsewhere", "scores_elsewhere"}
    assert_equal(stored(trained, "maps"), maps)
    assert_equal(stored(trained, "scores"), scores)


def test_a_scan_that_is_broken_is_named_by_a_worker_too(
    trained: Any,
    crew: Crew,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    forget(trained, "scores")
    case = trained.plan().settings.split.train[0]
    (trained.cases / f"{case}_equalised.b2nd").write_bytes(b"torn")
    monkeypatch.setattr(command, "cluster_of", lambda _: working_with(crew))
    trained.train("distillation", "--restart")
    assert f"left out: {case}: " in caplog.text
    assert not any(case in name for name in stored(trained, "scores"))


def test_workers_calibrate_as_this_process_does(
    trained: Any, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelRef(901)
    before = read_calibration(calibration_file(model))
    calibration_file(model).unlink()
    monkeypatch.setattr(calibrate, "cluster_of", lambda _: working_with(crew))
    calibrate.main(["-d", "901", "-device", "cpu"])
    assert read_calibration(calibration_file(model)).to_dict() == before.to_dict()
