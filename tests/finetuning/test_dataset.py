from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.finetuning.dataset import prepare_dataset, read_labelled_dataset
from screener_nnu.finetuning.plan import read_source_plan, target_plan, write_target_plan

SOURCE, TARGET = "Dataset901_Trunk", "Dataset502_Lesions"


def change_json(world: Any, **values: Any) -> None:
    path = world.raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def make_plan(start: str = "student", **block: Any) -> dict[str, Any]:
    source = read_source_plan(SOURCE, "ScreenerPlans")
    plan = target_plan(source, source=SOURCE, target=TARGET, start=start, reader="SimpleITKIO")
    plan["configurations"]["3d_fullres"].update(block)
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


def test_reads_cases_and_labels(world: Any) -> None:
    dataset = read_labelled_dataset(502)
    assert dataset.name == TARGET and dataset.reader == "SimpleITKIO"
    assert dataset.cases == [f"case_{i}" for i in range(6)]
    assert dataset.labels["case_2"] == world.raw / "labelsTr" / "case_2.nii.gz"


def test_reads_cases_listed_by_path(world: Any) -> None:
    listed = {"x": {"images": ["imagesTr/case_1_0000.nii.gz"], "label": "labelsTr/case_1.nii.gz"}}
    change_json(world, dataset=listed)
    assert read_labelled_dataset(502).labels == {"x": world.raw / "labelsTr" / "case_1.nii.gz"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channel_names": {"0": "MRI"}}, "one CT channel"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "one CT channel"),
        ({"labels": {"background": 0}}, "no foreground label"),
        ({"file_ending": ".mha"}, "holds no"),
    ],
)
def test_unfit_datasets_are_refused(world: Any, change: dict[str, Any], reason: str) -> None:
    change_json(world, **change)
    with pytest.raises(ScreenerError, match=reason):
        read_labelled_dataset(502)


def test_missing_label_names_the_case(world: Any) -> None:
    (world.raw / "labelsTr" / "case_4.nii.gz").unlink()
    with pytest.raises(CaseError, match="^case_4: "):
        read_labelled_dataset(502)


def test_other_labels_among_preprocessed_data_are_refused(world: Any) -> None:
    world.preprocessed.mkdir(parents=True)
    (world.preprocessed / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}')
    with pytest.raises(ScreenerError, match="other labels"):
        read_labelled_dataset(502)


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
    cases = world.preprocessed / "Screener901_3d_fullres"
    assert {path.suffix for path in cases.iterdir()} == {".pkl", ".b2nd"}


@pytest.mark.parametrize("change", ["spacing", "label", "lost", "interrupted"])
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
    elif change == "lost":
        (world.preprocessed / "Screener901_3d_fullres" / "case_3.b2nd").unlink()
    elif change == "interrupted":
        (world.preprocessed / "Screener901_3d_fullres.settings.json").unlink()
    assert prepare_dataset(dataset, plan, 1)
    assert len(preprocessor_calls) == 2


def test_failed_workers_leave_no_mark(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    def fail(self: Any, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("Some background worker is 6 feet under")

    monkeypatch.setattr(DefaultPreprocessor, "run", fail)
    give_fingerprint(world)
    with pytest.raises(ScreenerError, match="-np"):
        prepare_dataset(read_labelled_dataset(502), make_plan(), 2)
    assert not (world.preprocessed / "Screener901_3d_fullres.settings.json").exists()
