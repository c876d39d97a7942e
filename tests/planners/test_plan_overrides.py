"""Settings given when planning stand in the plan, and its cases are made with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from screener_nnu.commands.plan_and_preprocess import main
from screener_nnu.plans import read_plan
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.preprocessing.equalise import equalise

REQUEST = ["-d", "901", "--preset", "cpu", "--num_test", "1", "-np", "1"]


def test_cases_without_equalisation(world: Any) -> None:
    changes = ["-o", "preprocessing.equalisation=none", "-o", "density.kind=gaussian"]
    main([*REQUEST, "-p", "Plain", *changes])
    plan = read_plan(world.preprocessed / "Plain.json")
    settings = plan.settings
    assert settings.preprocessing.equalisation == "none" and settings.density.kind == "gaussian"
    assert settings.data_identifier == "Plain_screener" and plan.name == "Plain"
    cases = CaseFolder(world.preprocessed / "Plain_screener")
    for case in cases.finished():
        windowed = cases.read(case, "equalised").astype(np.float32)
        hu = cases.read(case, "hu").astype(np.float32)
        # Where HU were not clipped before they were resampled, a window is all there is.
        low, high = settings.preprocessing.hu_clip
        inner = (hu > low + 1) & (hu < min(high, 300) - 1)
        difference = np.abs(windowed - equalise(hu, settings.preprocessing))[inner]
        assert np.median(difference) < 1e-3
    assert cases.finished()


def test_an_unknown_setting_is_named(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*REQUEST, "-p", "Odd", "-o", "preprocessing.clahe=0"])
    assert "no setting 'preprocessing.clahe'; known here:" in capsys.readouterr().err
    assert not (world.preprocessed / "Odd.json").exists()
