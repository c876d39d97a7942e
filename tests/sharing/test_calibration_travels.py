"""A calibration goes along with its weights, and only with them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from screener_nnu.calibration.store import calibration_file, load_calibration
from screener_nnu.commands.calibrate import main as calibrate
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import read_plan
from screener_nnu.sharing.install import install_model

STUDENT = "calibrations/ScreenerPlans/distillation.json"
TEACHER = "calibrations/ScreenerPlans/density.json"


def ref(dataset: str, teacher: bool) -> ModelRef:
    """The teacher or the student of a data set."""
    return ModelRef(dataset, detector="teacher" if teacher else "student")


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_installed_calibrations_are_those_of_the_source(
    model_files: dict[str, Path],
    trained_once: Any,
    empty_world: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = members(model_files["teacher"])
    assert {STUDENT, TEACHER} < set(content)
    assert TEACHER not in members(model_files["student"])
    install_model(model_files["teacher"], number=17)
    installed = {t: load_calibration(ref("17", t)) for t in (True, False)}
    for name, value in trained_once.environment.items():
        monkeypatch.setenv(name, value)
    for teacher, found in installed.items():
        source = load_calibration(ref("901", teacher))
        assert found is not None and source is not None
        assert found.to_dict() == source.to_dict()
    assert "Calibrated (distillation) on 1 held-out scans" in content["MODEL_CARD.md"].decode()
    settings = read_plan(trained_once.preprocessed / "ScreenerPlans.json").settings
    names = (*settings.split.train, *settings.split.validation, *settings.split.test)
    for member in (STUDENT, TEACHER, "MODEL_CARD.md"):
        text = content[member].decode()
        assert not any(name in text for name in names) and str(trained_once.root) not in text


def test_models_without_calibration_travel_as_well(trained: Any, tmp_path: Path) -> None:
    from screener_nnu.commands.export_model import main as export

    path = calibration_file(ref("901", False))
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "model": "f" * 16}))  # of other weights
    export(["901", "-o", str(tmp_path / "stale.zip")])
    path.unlink()
    export(["901", "-o", str(tmp_path / "none.zip")])
    for name in ("stale.zip", "none.zip"):
        content = members(tmp_path / name)
        assert STUDENT not in content
        assert "Not calibrated" in content["MODEL_CARD.md"].decode()


def test_installed_models_are_calibrated_on_scans_of_their_new_place(
    model_files: dict[str, Path],
    trained_once: Any,
    empty_world: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = model_files["student"]
    install_model(model)
    words = ["-d", "901", "-device", "cpu"]
    with pytest.raises(SystemExit):
        calibrate(words)
    assert "names no validation scans" in capsys.readouterr().err
    images = trained_once.raw / "imagesTr"
    calibrate([*words, "--images", str(images), "--max_scans", "3"])
    found = load_calibration(ref("901", False))
    assert found is not None and found.scans == 3 and found.source == "scans of a folder"
    # It is still the model of that file, and the new calibration stays.
    assert not install_model(model).fresh
    again = load_calibration(ref("901", False))
    assert again is not None and again.to_dict() == found.to_dict()
    calibration_file(ref("901", False)).unlink()
    assert not install_model(model).fresh
    with pytest.raises(SystemExit):
        calibrate([*words, "--images", str(images), "--masks", str(images)])
    assert "calibrate on scans of your own first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": "0" * 16}, "belongs to other weights"),
        ({"source": "/home/somebody/patients"}, "its entries are not"),
        ({"note": "phantom_0001"}, "its entries are not"),
        ({"case_scores": []}, "case scores"),
        ({"percentiles": {"scores": [[[]]], "percentiles": 3}}, "percentiles|damaged"),
    ],
)
def test_calibrations_of_a_stranger_are_checked(
    change: dict[str, Any],
    message: str,
    rebuilt: Callable[..., Path],
    nothing_written: None,
) -> None:
    def spoil(content: dict[str, bytes]) -> None:
        content[STUDENT] = json.dumps({**json.loads(content[STUDENT]), **change}).encode()

    with pytest.raises(ScreenerError, match=message):
        install_model(rebuilt(spoil))


def test_a_calibration_needs_its_model(rebuilt: Callable[..., Path], nothing_written: None) -> None:
    def add(content: dict[str, bytes]) -> None:
        content[TEACHER] = content[STUDENT]

    with pytest.raises(ScreenerError, match="belongs to no model in the file"):
        install_model(rebuilt(add))

    def nest(content: dict[str, bytes]) -> None:
        content[STUDENT] = b"[" * 100_000

    with pytest.raises(ScreenerError, match="distillation.json: .*not valid JSON"):
        install_model(rebuilt(nest))
