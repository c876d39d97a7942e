from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.dataset import read_labelled_dataset
from screener_nnu.finetuning.plan import read_source_plan, target_plan, write_target_plan
from screener_nnu.finetuning.prepare import prepare_dataset
from screener_nnu.plans import StockPlan

SOURCE, TARGET = "Dataset901_Trunk", "Dataset502_Lesions"
FOLDER, MARKER = "Screener901_3d_fullres", "Screener901_3d_fullres.settings.json"


def make_plan(start: str = "student", **block: Any) -> StockPlan:
    source = read_source_plan(SOURCE, "ScreenerPlans")
    plan = target_plan(source, source=SOURCE, target=TARGET, start=start, reader="SimpleITKIO")
    values = plan.to_dict()
    values["configurations"]["3d_fullres"].update(block)
    plan = StockPlan(values)
    write_target_plan(plan)
    return plan


@pytest.fixture
def preprocessor_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for nnU-Net's preprocessing, whose workers take seconds to start."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    calls: list[str] = []

    def run(self: Any, dataset: str, configuration: str, plans: str, num_processes: int) -> None:
        calls.append(plans)
        root = Path(os.environ["nnUNet_preprocessed"]) / dataset
        folder = (
            root
            / json.loads((root / f"{plans}.json").read_text())["configurations"][configuration][
                "data_identifier"
            ]
        )
        folder.mkdir(exist_ok=True)
        for image in (Path(os.environ["nnUNet_raw"]) / dataset / "imagesTr").iterdir():
            for ending in (".pkl", ".b2nd", "_seg.b2nd"):
                (folder / image.name.replace("_0000.nii.gz", ending)).touch()

    monkeypatch.setattr(DefaultPreprocessor, "run", run)
    return calls


def give_fingerprint(world: Any) -> Path:
    world.preprocessed.mkdir(parents=True, exist_ok=True)
    path = world.preprocessed / "dataset_fingerprint.json"
    path.write_text('{"own": true}')
    return path


def test_cases_are_preprocessed_once_for_both_starts(
    world: Any, preprocessor_calls: list[str]
) -> None:
    fingerprint = give_fingerprint(world)
    dataset = read_labelled_dataset(502)
    assert prepare_dataset(dataset, make_plan(), 1)
    assert not prepare_dataset(dataset, make_plan("scratch"), 1)
    assert preprocessor_calls == ["Screener901_student"]
    assert fingerprint.read_text() == '{"own": true}'
    assert (world.preprocessed / "dataset.json").is_file()
    copies = sorted(path.name for path in (world.preprocessed / "gt_segmentations").iterdir())
    assert copies == [f"{case}.nii.gz" for case in dataset.cases]
    # The kind of dataset is told from the file endings in this folder.
    cases = world.preprocessed / FOLDER
    assert {path.suffix for path in cases.iterdir()} == {".pkl", ".b2nd"}


@pytest.mark.parametrize("change", ["spacing", "label", "replaced", "lost", "interrupted"])
def test_cases_are_made_again_when_out_of_date(
    world: Any, preprocessor_calls: list[str], change: str
) -> None:
    give_fingerprint(world)
    dataset = read_labelled_dataset(502)
    prepare_dataset(dataset, make_plan(), 1)
    plan = make_plan(spacing=[3.0, 1.5, 1.5]) if change == "spacing" else make_plan()
    if change == "label":
        label = dataset.labels["case_0"]
        os.utime(label, (label.stat().st_atime, label.stat().st_mtime + 3600))
    elif change == "replaced":  # by a file that is older than the cases
        label = dataset.labels["case_0"]
        label.write_bytes(label.read_bytes() + b"x")
        os.utime(label, (0, 0))
    elif change == "lost":
        (world.preprocessed / FOLDER / "case_3.b2nd").unlink()
    elif change == "interrupted":
        (world.preprocessed / MARKER).write_text("{}")
    assert prepare_dataset(dataset, plan, 1)
    assert len(preprocessor_calls) == 2
    reference = world.preprocessed / "gt_segmentations" / "case_0.nii.gz"
    assert reference.read_bytes() == dataset.labels["case_0"].read_bytes()


def test_killed_workers_end_in_a_sentence_and_in_cases_that_are_made_again(
    world: Any, monkeypatch: pytest.MonkeyPatch, preprocessor_calls: list[str]
) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    def fail(self: Any, *args: Any, **kwargs: Any) -> None:
        (world.preprocessed / FOLDER).mkdir()
        (world.preprocessed / FOLDER / "case_0.b2nd").touch()
        raise RuntimeError("Some background worker is 6 feet under")

    give_fingerprint(world)
    dataset, plan = read_labelled_dataset(502), make_plan()
    with monkeypatch.context() as patch:
        patch.setattr(DefaultPreprocessor, "run", fail)
        with pytest.raises(ScreenerError, match="preprocessing of .* memory ran out .*-np"):
            prepare_dataset(dataset, plan, 2)
    assert prepare_dataset(dataset, plan, 2)
    assert not prepare_dataset(dataset, plan, 2) and len(preprocessor_calls) == 1


def test_cases_of_somebody_else_are_not_deleted(world: Any, preprocessor_calls: list[str]) -> None:
    give_fingerprint(world)
    theirs = world.preprocessed / FOLDER / "case_0.b2nd"
    theirs.parent.mkdir()
    dataset, plan = read_labelled_dataset(502), make_plan()
    prepare_dataset(dataset, plan, 1)  # an empty folder is nobody's
    (world.preprocessed / MARKER).unlink()
    theirs.write_text("months of work")
    with pytest.raises(ScreenerError, match=f"{theirs.parent} holds files, but no {MARKER}"):
        prepare_dataset(dataset, plan, 1)
    assert theirs.read_text() == "months of work" and len(preprocessor_calls) == 1


def test_cases_of_an_earlier_version_are_kept(world: Any, preprocessor_calls: list[str]) -> None:
    """Its markers do not hold the state of the files."""
    give_fingerprint(world)
    dataset, plan = read_labelled_dataset(502), make_plan()
    prepare_dataset(dataset, plan, 1)
    marker = world.preprocessed / MARKER
    settings = json.loads(marker.read_text())
    del settings["files"]
    marker.write_text(json.dumps(settings))
    assert not prepare_dataset(dataset, plan, 1)
    label = dataset.labels["case_0"]
    os.utime(label, (label.stat().st_atime, label.stat().st_mtime + 3600))
    assert prepare_dataset(dataset, plan, 1)


def test_reference_label_is_whole_and_as_new_as_the_label(
    world: Any, preprocessor_calls: list[str]
) -> None:
    give_fingerprint(world)
    dataset, plan = read_labelled_dataset(502), make_plan()
    dataset.labels["case_0"].chmod(0o444)  # the copy must be replaceable
    prepare_dataset(dataset, plan, 1)
    copy = world.preprocessed / "gt_segmentations" / "case_0.nii.gz"
    assert copy.read_bytes() == dataset.labels["case_0"].read_bytes()
    assert copy.stat().st_mode & 0o200
    assert [p.name for p in copy.parent.iterdir() if p.name.startswith(".")] == []


def test_two_runs_at_once_preprocess_once(world: Any, preprocessor_calls: list[str]) -> None:
    give_fingerprint(world)
    dataset, plan = read_labelled_dataset(502), make_plan()
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: prepare_dataset(dataset, plan, 1), range(2)))
    assert sorted(made) == [False, True] and len(preprocessor_calls) == 1
