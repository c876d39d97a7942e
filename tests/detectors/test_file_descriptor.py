"""A network of one's own as the descriptor, from its file to a map."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.commands.predict import main as predict
from screener_nnu.detectors import ModelRef
from screener_nnu.inference.volume import images_of, score_map, teacher_cells
from screener_nnu.plans import read_plan
from screener_nnu.preprocessing.case_files import CaseFolder

CPU = torch.device("cpu")
WINDOW = (-160.0, 240.0)


def network(folder: Path, world: Any, **changes: Any) -> Path:
    """A TorchScript network of two layers and its JSON."""
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Conv3d(1, 5, 3, padding=1), nn.Tanh(), nn.Conv3d(5, 3, 1))
    torch.jit.script(layers.eval()).save(folder / "mine.pt")
    plan = read_plan(world.preprocessed / "ScreenerPlans.json")
    card = {
        "spacing": list(plan.settings.preprocessing.spacing),
        "reads": "hu",
        "window": list(WINDOW),
        "normalisation": "minus_one_one",
        "channels": 3,
        "strides": [1, 1, 1],
        "layout": "3d",
    }
    (folder / "mine.json").write_text(json.dumps({**card, **changes}))
    return folder / "mine.pt"


def words(file: Path, *more: str) -> list[str]:
    settings = ["density.descriptor=file", f"density.descriptor_options.network={file}", *more]
    return ["-p", "Mine", *[word for setting in settings for word in ("-o", setting)]]


FITTED = ("density.kind=full_gaussian", "condition.kind=position", "density.noise=0")


@pytest.mark.slow
def test_a_network_that_reads_hu(trained: Any, tmp_path: Path) -> None:
    file = network(tmp_path, trained)
    whole = ("density.whole_scans=true", "density.positions=0")
    trained.train("density", *words(file, *FITTED, *whole))
    teacher, plan, _ = ModelRef("901", "Mine", "teacher").load(CPU)
    cases = CaseFolder(trained.cases)
    case = plan.settings.split.test[0]
    hu, equalised = cases.read(case, "hu"), cases.read(case, "equalised")
    layers = torch.jit.load(str(file))
    seen = (torch.from_numpy(hu).float().clamp(*WINDOW) - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
    cell = teacher.cell
    with torch.no_grad():
        y = F.avg_pool3d(layers(2 * seen[None, None] - 1), cell)
        place = (torch.zeros(1, 3), torch.tensor([hu.shape]))
        c = teacher.features.condition_maps(torch.zeros(1, 1, *hu.shape), *place)
        shape = y.shape[2:]
        expected = -teacher.density.log_prob(y, c[:, :, : shape[0], : shape[1], : shape[2]])[0]
    cells = teacher_cells(teacher, images_of(cases, case), CPU, plan).scores
    # Beyond the border, tiles hold air and this image nothing.
    inner = tuple(slice(1, n - 1) for n in expected.shape)
    torch.testing.assert_close(cells[inner], expected[inner], rtol=1e-4, atol=1e-3)
    found = score_map(teacher, hu, equalised, plan, CPU)
    changed = score_map(teacher, hu, np.zeros_like(equalised), plan, CPU)
    np.testing.assert_array_equal(changed, found)  # of position and HU alone

    scan = trained.raw / "imagesTr" / f"{case}_0000.nii.gz"
    output = tmp_path / "maps"
    predict(["-d", "901", "-p", "Mine", "--teacher", "-i", str(scan), "-o", str(output)])
    made = sitk.GetArrayFromImage(sitk.ReadImage(str(output / f"{case}.nii.gz")))
    assert np.isfinite(made).all() and made.std() > 0


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({}, (), "reads HU, and random crops .*add -o density.whole_scans=true"),
        ({"spacing": [9, 9, 9]}, ("density.whole_scans=true",), "was made for voxels of 9 x 9 x 9"),
        ({"window": [-1000, 900]}, ("density.whole_scans=true",), "the plan cuts HU off at -8"),
        ({"channels": 4}, ("density.whole_scans=true",), "channels, strides and dtype say"),
    ],
)
def test_what_does_not_fit_is_said_before_a_scan_is_read(
    changes: dict[str, Any],
    more: tuple[str, ...],
    message: str,
    trained: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = network(tmp_path, trained, **changes)
    with pytest.raises(SystemExit) as end:
        trained.train("density", *words(file, *FITTED, *more))
    assert end.value.code == 1 and re.search(message, capsys.readouterr().err)
