"""Every case is looked at before training: one error, all misfits, a way out for each."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning import dataset_check
from screener_nnu.finetuning.case_check import CaseOutcome, check_case
from screener_nnu.finetuning.dataset import read_labelled_dataset
from screener_nnu.finetuning.dataset_check import CHECK_FILE, check_cases, require_foreground
from screener_nnu.finetuning.description import Labels

Change = Callable[[SimpleITK.Image], SimpleITK.Image]


def rewrite(path: Path, change: Change) -> None:
    SimpleITK.WriteImage(change(SimpleITK.ReadImage(str(path))), str(path))


def values_changed(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def apply(image: SimpleITK.Image) -> SimpleITK.Image:
        changed = SimpleITK.GetImageFromArray(change(SimpleITK.GetArrayFromImage(image)))
        changed.CopyInformation(image)
        return changed

    return apply


def with_one(value: float, kind: type) -> Change:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(kind)
        array[3, 4, 5] = value
        return array

    return values_changed(change)


def moved(image: SimpleITK.Image) -> SimpleITK.Image:
    image.SetOrigin((5.0, 0.0, 0.0))
    return image


def stretched(image: SimpleITK.Image) -> SimpleITK.Image:
    image.SetSpacing((1.2, 1.2, 3.0))
    return image


def turned(image: SimpleITK.Image) -> SimpleITK.Image:
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def change_json(world: Any, **values: Any) -> None:
    path = world.raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def image_of(world: Any, case: str) -> Path:
    return world.raw / "imagesTr" / f"{case}_0000.nii.gz"


def label_of(world: Any, case: str) -> Path:
    return world.raw / "labelsTr" / f"{case}.nii.gz"


def check(world: Any, processes: int = 0) -> dict[str, tuple[int, ...]]:
    return check_cases(read_labelled_dataset(502), processes)


def refusal(world: Any) -> str:
    with pytest.raises(ScreenerError) as caught:
        check(world)
    return str(caught.value)


def test_sound_cases_are_read_by_several_processes(world: Any) -> None:
    (world.raw / "imagesTr" / "older.nii.gz").mkdir()  # nnU-Net looks at files only
    assert check(world, 2) == {f"case_{i}": (0, 1) for i in range(6)}


def test_nothing_but_the_record_of_the_check_is_written(world: Any) -> None:
    label_of(world, "case_1").write_bytes(b"")
    refusal(world)
    assert [path.name for path in world.preprocessed.iterdir()] == [CHECK_FILE]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (moved, "differ in origin: (5, 0, 0) and (0, 0, 0)"),
        (stretched, "differ in spacing: (1.2, 1.2, 3)"),
        (turned, "differ in direction"),
        (values_changed(lambda array: array[:-1]), "differ in size: (34, 32, 29)"),
        (with_one(0.9999, np.float32), "holds values such as 0.9999"),
        (with_one(np.nan, np.float32), "holds NaN"),
        (with_one(2, np.uint8), "holds 2, but dataset.json declares [0, 1]"),
        (with_one(-1, np.int16), "holds -1, but dataset.json declares [0, 1]"),
    ],
)
def test_labels_that_do_not_fit(world: Any, change: Change, reason: str) -> None:
    if reason.startswith("differ in size"):
        path = label_of(world, "case_2")
        image = SimpleITK.ReadImage(str(path))[:, :, :-1]
        SimpleITK.WriteImage(image, str(path))
    else:
        rewrite(label_of(world, "case_2"), change)
    said = refusal(world)
    assert reason in said and "\n  case_2: " in said
    assert str(label_of(world, "case_2")) in said and "case_1" not in said
    assert ("copy the image's geometry" in said) == reason.startswith("differ")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (values_changed(lambda array: array + 1024), "HU + 1024: subtract 1024"),
        (with_one(np.nan, np.float32), "NaN"),
        (values_changed(lambda array: np.zeros_like(array)), "nothing but air|not CT"),
    ],
)
def test_images_that_are_no_ct(world: Any, change: Change, reason: str) -> None:
    rewrite(image_of(world, "case_2"), change)
    said = refusal(world)
    assert "\n  case_2: " in said and any(part in said for part in reason.split("|"))


def test_all_misfits_are_listed_by_case(world: Any) -> None:
    cut(image_of(world, "case_0"))
    cut(label_of(world, "case_0"))
    image_of(world, "case_1").write_bytes(gzip.compress(b"no image"))
    label_of(world, "case_2").unlink()
    rewrite(label_of(world, "case_3"), moved)
    said = refusal(world).splitlines()
    assert said[0].startswith("Dataset502_Lesions cannot be trained on before 4 of its cases")
    assert [line.split(":")[0].strip() for line in said[1:]] == [
        "case_0",
        "case_0",
        "case_1",
        "case_2",
        "case_3",
    ]
    assert said[1].count("cut short") == said[2].count("cut short") == 1
    assert f"{label_of(world, 'case_2')} is missing: add it, or remove its image" in said[4]


def test_long_lists_are_cut(world: Any) -> None:
    for number in range(32):
        shutil.copy(image_of(world, "case_0"), image_of(world, f"unlabelled_{number:02d}"))
    said = refusal(world).splitlines()
    assert len(said) == 22 and said[-1].strip() == "and 12 more"


def test_regions_and_ignore_are_declared_values(world: Any) -> None:
    labels = {"background": 0, "organ": [1, 2], "tumour": 2, "ignore": 3}
    change_json(world, labels=labels, regions_class_order=[1, 2])
    rewrite(label_of(world, "case_0"), with_one(2, np.uint8))
    rewrite(label_of(world, "case_1"), with_one(3, np.uint8))
    held = check(world)
    assert held["case_0"] == (0, 1, 2) and held["case_1"] == (0, 1, 3)


def test_files_that_nnunet_would_take_for_cases(world: Any) -> None:
    for name in ("notes.nii.gz", "case_0_0001.nii.gz", "._case_0_0000.nii.gz"):
        (world.raw / "imagesTr" / name).write_bytes(b"x")
    said = refusal(world)
    for name in ("notes.nii.gz", "case_0_0001.nii.gz", "._case_0_0000.nii.gz"):
        assert f"\n  {name}: nnU-Net would take it for a case" in said
    assert "take it out of" in said


def test_names_that_no_file_system_shares(world: Any) -> None:
    shutil.copy(image_of(world, "case_0"), image_of(world, "CASE_0"))
    shutil.copy(label_of(world, "case_0"), label_of(world, "CASE_0"))
    odd = os.fsencode(world.raw) + b"/%s/f\xfcr%s.nii.gz"
    for kind, channel in ((b"imagesTr", b"_0000"), (b"labelsTr", b"")):
        Path(os.fsdecode(odd % (kind, channel))).write_bytes(b"x")
    said = refusal(world)
    assert "case_0: its name differs from that of CASE_0 in upper and lower case only" in said
    assert r"f\xfcr: the name" in said and "not valid UTF-8: rename it" in said
    said.encode("utf-8")


def test_warnings_stop_nobody(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    change_json(world, numTraining=7)
    shutil.copy(label_of(world, "case_0"), label_of(world, "lost"))
    check(world)
    assert "says numTraining 7, but there are 6 images" in caplog.text
    assert "labels of Dataset502_Lesions without image are not used: lost" in caplog.text


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cases that are read."""
    seen: list[str] = []

    def counted(case: str, files: Any, **options: Any) -> CaseOutcome:
        seen.append(case)
        return check_case(case, files, **options)

    monkeypatch.setattr(dataset_check, "check_case", counted)
    return seen


def test_each_file_is_read_once(world: Any, reads: list[str]) -> None:
    first = check(world)
    assert sorted(reads) == sorted(first) and check(world) == first
    assert len(reads) == 6


@pytest.mark.parametrize("changed", ["image", "label"])
def test_a_replaced_file_is_read_again(world: Any, reads: list[str], changed: str) -> None:
    check(world)
    path = (image_of if changed == "image" else label_of)(world, "case_4")
    os.utime(path, (1, 1))
    check(world)
    assert reads[6:] == ["case_4"]


def test_sound_cases_are_kept_when_others_are_mended(world: Any, reads: list[str]) -> None:
    sound = label_of(world, "case_3").read_bytes()
    label_of(world, "case_3").write_bytes(sound[:-200])
    refusal(world)
    refusal(world)
    assert reads[6:] == ["case_3"]
    label_of(world, "case_3").write_bytes(sound)
    check(world)
    assert reads[7:] == ["case_3"]


def test_another_description_makes_the_record_void(world: Any, reads: list[str]) -> None:
    check(world)
    change_json(world, labels={"background": 0, "lesion": 1, "ignore": 2})
    check(world)
    assert len(reads) == 12


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1, "cases": 3}'])
def test_a_damaged_record_is_no_record(world: Any, reads: list[str], text: str) -> None:
    check(world)
    (world.preprocessed / CHECK_FILE).write_text(text)
    check(world)
    assert len(reads) == 12


def test_classes_that_a_training_part_lacks(caplog: pytest.LogCaptureFixture) -> None:
    labels = Labels({"organ": (1, 2), "tumour": (2,)}, 3)
    held = {"a": (0, 1), "b": (0, 2, 3), "c": (0, 3)}
    with caplog.at_level(logging.WARNING):
        require_foreground(labels, held, {"fold 0": ["b"], "fold 1": ["a", "b"]})
        assert not caplog.messages
        require_foreground(labels, held, {"fold 0": ["a"], "fold 1": ["a", "c"]})
    assert caplog.messages == ["no training case of fold 0, fold 1 holds a voxel of tumour"]
    with pytest.raises(ScreenerError, match="no training case of fold 2 holds .* organ, tumour"):
        require_foreground(labels, held, {"fold 0": ["a"], "fold 2": ["c"]})
