"""`screener_ablate` as a user runs it: a small grid, once more, and after a cell is added."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from screener_nnu.commands.ablate import main
from screener_nnu.detectors import ModelRef
from screener_nnu.inference.volume import score_map
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.synthetic.cases import anomalous_case

pytestmark = pytest.mark.slow


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "ablation.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def checkpoints(world: Any) -> dict[Path, int]:
    found = (world.root / "results").rglob("checkpoint_final.pth")
    return {path: path.stat().st_mtime_ns for path in found}


def test_a_grid_is_trained_once_and_grows(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = checkpoints(trained)
    small = ["901", "--conditions", "none", "masking_invariant", "--densities", "gaussian"]
    small += ["-device", "cpu", "--cells", "untrained/none/gaussian"]
    out = trained.root / "out"
    main([*small, "-o", str(out)])
    table = capsys.readouterr().out
    cells = ["infonce/none/gaussian", "infonce/masking_invariant/gaussian"]
    first = rows(out)
    assert list(first)[:3] == [*cells, "untrained/none/gaussian"]
    assert {"hu_rarity", "skin_depth", "centre_distance"} < set(first)
    assert all(name in table for name in first)
    after = checkpoints(trained)
    # The networks of the plan were there: only the densities are new.
    assert all(after[path] == time for path, time in before.items())
    assert {p.parts[-3].split("__")[0] for p in set(after) - set(before)} == {"DensityTrainer"}
    assert len(set(after) - set(before)) == 3

    main([*small, "infonce/sincos/gaussian", "-o", str(out)])
    second = rows(out)
    assert {name: second[name] for name in first} == first
    assert "infonce/sincos/gaussian" in second
    assert all(checkpoints(trained)[path] == time for path, time in after.items())


def test_figures_are_those_of_the_teachers_maps(trained: Any) -> None:
    """The way by stored maps and counts, against maps made one by one and scikit-learn."""
    import torch

    out = trained.root / "out"
    cell = ["--cells", "infonce/masking_invariant/gaussian", "--losses", "--use", "test"]
    main(["901", *cell, "-device", "cpu", "-o", str(out)])
    found = rows(out)["infonce/masking_invariant/gaussian"]
    name = "ScreenerPlans_infonce_masking_invariant_gaussian"
    teacher, plan, _ = ModelRef("901", name, "teacher").load(torch.device("cpu"))
    settings = plan.settings
    names = settings.split.test
    scores, labels = [], []
    for case in names:
        made = anomalous_case(
            CaseFolder(trained.cases), case, names, "pasted", settings.preprocessing, 1
        )
        scored = score_map(teacher, made.hu, made.equalised, plan, torch.device("cpu"))
        counted = made.body | made.mask
        scores.append(scored[counted])
        labels.append(made.mask[counted])
    expected = roc_auc_score(np.concatenate(labels), np.concatenate(scores))
    assert float(found["auroc_pasted"]) == pytest.approx(expected, abs=2e-3)


def test_no_scan_to_evaluate_is_said(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from screener_nnu.plans import read_plan, write_json

    path = trained.preprocessed / "ScreenerPlans.json"
    plan = read_plan(path).to_dict()
    plan["screener"]["split"]["test"] = []
    write_json(path, plan)
    with pytest.raises(SystemExit):
        main(["901", "-device", "cpu"])
    assert "--num_test" in capsys.readouterr().err
