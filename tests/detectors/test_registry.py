"""Every detector of the registry, from training to comparison, as a person runs it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from screener_nnu.calibration.store import load_calibration, trained_identity
from screener_nnu.commands.calibrate import main as calibrate
from screener_nnu.commands.evaluate import main as evaluate
from screener_nnu.commands.predict import main as predict
from screener_nnu.densities import enhanced, vector_scores
from screener_nnu.detectors import (
    BASELINE,
    DETECTORS,
    IGD,
    OTHER_DESCRIPTORS,
    OTHER_METHODS,
    STUDENT,
    TEACHER,
    ModelRef,
    detector_spec,
    detectors_of,
)
from screener_nnu.errors import ScreenerError
from screener_nnu.planners.settings_check import check_settings
from screener_nnu.stages import STAGES, load_object, trainer_name

CPU = torch.device("cpu")
# Other descriptors go the way that one of them goes.
OTHERS = [f"{name}_{end}" for name in ("padim",) for end in OTHER_DESCRIPTORS]
OWN = [name for name in DETECTORS if name.rpartition("_")[2] not in OTHER_DESCRIPTORS]
# Methods of others are `baseline` with another setting; `tests/baselines` has them all.
WALKED = [name for name in OWN if name not in OTHER_METHODS or name == "autoencoder"]
# Fitted in one pass like `padim` and `knn`, or trained like `experts`, which are walked each time.
ALIKE = ("gaussian", "pca", "msde", "flow")


@pytest.fixture(autouse=True)
def few_scans_are_enough(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For vectors of whole scans, of which the world has few."""
    if "msde_pooled" in request.node.name:
        for module in (enhanced, vector_scores):
            monkeypatch.setattr(module, "LEAST_ROWS", 2)


def scan(world: Any, folder: Path) -> Path:
    """One test scan in a folder of its own."""
    folder.mkdir()
    source = sorted((world.raw / "imagesTr").iterdir())[0]
    shutil.copy(source, folder / "anna_0000.nii.gz")
    return folder


def run(module: Any, *words: object) -> None:
    module([str(word) for word in words])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *(name for name in WALKED if name not in ALIKE),
        *(pytest.param(name, marks=pytest.mark.long) for name in WALKED if name in ALIKE),
        *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS),
        pytest.param("teacher_levels", marks=pytest.mark.long),
        "teacher_untrained",
    ],
)
def test_from_training_to_comparison(
    trained: Any, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.train(name)
    ends = re.findall("(?:density|igd|baseline) finished: .*", capsys.readouterr().out)
    # What is fitted has no state before its training.
    learned = name in (
        STUDENT,
        "flow",
        "experts",
        *(n for n in DETECTORS if n.startswith("teacher")),
    )
    learned |= DETECTORS[name].stage in (IGD, BASELINE)
    assert (learned or not any("(untrained" in end for end in ends)) and (ends or name in OWN[:2])
    model = ModelRef("901", detector=name)
    first = trained_identity(model)
    trained.train(name)  # finished: left alone
    assert trained_identity(model) == first
    found = load_calibration(model)
    assert found is not None and found.source == "validation scans"

    images, maps = scan(trained, tmp_path / "in"), tmp_path / "maps"
    words = ["-d", 901, "--detector", name, "-device", "cpu"]
    run(predict, *words, "-i", images, "-o", maps, "--threshold", "p99", "--findings", "--page")
    score = sitk.GetArrayFromImage(sitk.ReadImage(str(maps / "anna.nii.gz")))
    body = sitk.GetArrayFromImage(sitk.ReadImage(str(maps / "anna_body.nii.gz"))) > 0
    assert np.isfinite(score).all() and score[body].std() > 0
    page = (maps / "anna.html").read_text()
    assert f"901, ScreenerPlans, {name}" in page
    listed = json.loads((maps / "anna_findings.json").read_text())
    assert listed["threshold"] == pytest.approx(found.score_at(99))

    run(calibrate, *words)
    again = load_calibration(model)
    assert again is not None
    np.testing.assert_allclose(again.case_scores, found.case_scores)

    masks = tmp_path / "masks"
    masks.mkdir()
    image = sitk.ReadImage(str(maps / "anna_body.nii.gz"))
    image[:, :, : image.GetSize()[2] // 2] = 0
    sitk.WriteImage(image, str(masks / "anna.nii.gz"))
    run(evaluate, "-i", f"{name}={maps}", "-r", masks, "-o", tmp_path / "e", "--no_bootstrap")
    with (tmp_path / "e" / "pooled.csv").open(newline="") as stream:
        assert [row["method"] for row in csv.DictReader(stream)] == [name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["padim", pytest.param("msde_pooled", marks=pytest.mark.long)])
def test_a_fit_that_was_killed_ends_the_same(
    trained: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from screener_nnu.trainers.density import DensityTrainer

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DensityTrainer, "finish", killed)
        with pytest.raises(SystemExit):
            trained.train(name)
    model = ModelRef("901", detector=name)
    assert not (model.folder / "checkpoint_final.pth").exists()
    trained.train(name)
    first = trained_identity(model)
    trained.train(name, "--restart")
    assert trained_identity(model) == first


@pytest.mark.parametrize("name", DETECTORS)
def test_what_is_missing_is_named_with_its_command(world: Any, name: str) -> None:
    with pytest.raises(ScreenerError) as error:
        ModelRef("901", detector=name).load(CPU)
    command = ModelRef("901", detector=name).train_command
    assert command in str(error.value)
    stage = DETECTORS[name].stage if name in (STUDENT, TEACHER) else name
    assert command == f"screener_train 901 3d_fullres {stage}"


def test_names_that_nothing_stands_for() -> None:
    for call in (lambda: detector_spec("oracle"), lambda: ModelRef("901", detector="oracle")):
        with pytest.raises(
            ScreenerError, match=f"no detector 'oracle'; known: {STUDENT}, {TEACHER}"
        ):
            call()
    with pytest.raises(ScreenerError, match="a checkpoint of a student"):
        ModelRef("901", detector=TEACHER, checkpoint=Path("a.pth"))


@pytest.mark.parametrize("name", DETECTORS)
def test_commands_for_a_model(world: Any, name: str) -> None:
    words = {STUDENT: "", TEACHER: " --teacher"}.get(name, f" --detector {name}")
    assert ModelRef("901", detector=name).command("predict") == f"screener_predict -d 901{words}"
    other = ModelRef("901", "Other", name).command("calibrate")
    assert other == f"screener_calibrate -d 901 -p Other{words}"


@pytest.mark.parametrize(
    "name", [n for n, spec in DETECTORS.items() if spec.overrides and spec.stage == "density"]
)
def test_a_plan_with_other_parts_has_the_same_detectors(name: str, world: Any) -> None:
    """Options of the plan's own descriptor and density belong to no other."""
    usual = world.plan(*DETECTORS[name].overrides).settings.density
    other = world.plan(
        "density.descriptor=file",
        "density.descriptor_options.network=/models/mine.pt",
        *(["density.kind=knn", "density.options.bank=77"] if "teacher" not in name else []),
    )
    other = other.with_settings(other.settings.override(list(DETECTORS[name].overrides)))
    check_settings(other)
    assert other.settings.density == usual


def test_entries_are_whole() -> None:
    for name, spec in DETECTORS.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name) and spec.title and spec.stage in STAGES
        assert callable(load_object(spec.load)) and spec.unit in ("nats", "none", "HU")
    for name in set(DETECTORS) & set(STAGES):  # what it means is the same
        assert name in detectors_of(name)
    for stage, path in STAGES.items():
        assert load_object(path).__name__ == trainer_name(stage)


def test_the_documentation_lists_them() -> None:
    table = (Path(__file__).parents[2] / "documentation" / "detectors.md").read_text()
    table = table.partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))
    ends = {f"_{end}": where for end, (where, _) in OTHER_DESCRIPTORS.items()}
    assert rows == {**{name: DETECTORS[name].title for name in OWN}, **ends}
    for name in set(DETECTORS) - set(OWN):
        of, _, end = name.rpartition("_")
        assert DETECTORS[name].title == f"`{of}` {rows[f'_{end}']}"
