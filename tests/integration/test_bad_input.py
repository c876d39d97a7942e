"""Scans that cannot be used are named with their reason; the others make a plan."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.commands.plan_and_preprocess import main
from screener_nnu.planners.run import plan_dataset, preprocess_planned
from screener_nnu.planners.split import split_cases
from screener_nnu.plans import read_plan
from screener_nnu.preprocessing.case_files import CaseFolder

NAME = "Dataset902_Mixed"
COMMAND = ["-d", "902", "--preset", "cpu", "-np", "1"]
REQUEST = {"preset": "cpu", "plans_name": "ScreenerPlans"}
REASONS = {
    "torn": "cannot be read|cut short|damaged",
    "noise": "cannot be read",
    "nan": "NaN or infinite",
    "inf": "NaN or infinite",
    "flat": "the image is 2D",
    "moving": "the image is 4D",
    "air": "nothing but air",
    "magnetic": r"HU \+ 1024",
    "stub": "smaller than half a crop",
}


@pytest.fixture
def images(made_world: Any, empty_world: Any) -> Path:
    """`imagesTr` of a raw dataset with good scans only."""
    folder = empty_world.root / "raw" / NAME / "imagesTr"
    folder.mkdir(parents=True)
    shutil.copy(made_world.raw / "dataset.json", folder.parent)
    for i in range(5):
        shutil.copy(made_world.raw / "imagesTr" / f"phantom_{i:04d}_0000.nii.gz", folder)
    return folder


def add_bad(folder: Path) -> None:
    good = folder / "phantom_0000_0000.nii.gz"
    image = sitk.ReadImage(str(good), sitk.sitkFloat32)
    array = sitk.GetArrayFromImage(image)

    def write(name: str, values: np.ndarray, is_vector: bool | None = False) -> None:
        made = sitk.GetImageFromArray(values.astype(np.float32), isVector=is_vector)
        if values.ndim == 3:
            made.SetSpacing(image.GetSpacing())
        sitk.WriteImage(made, str(folder / f"{name}_0000.nii.gz"))

    (folder / "torn_0000.nii.gz").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "noise_0000.nii.gz").write_bytes(b"not an image at all" * 50)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        spoilt = array.copy()
        spoilt[3, 4, 5] = value
        write(name, spoilt)
    write("flat", array[5])
    write("moving", np.stack([array, array]))
    write("air", np.full_like(array, -1000))
    write("magnetic", array + 1100)
    middle = len(array) // 2
    write("stub", array[middle : middle + 4])


def plan_path(images: Path) -> Path:
    return images.parents[2] / "preprocessed" / NAME / "ScreenerPlans.json"


def used_cases(path: Path) -> list[str]:
    split = read_plan(path).settings.split
    return sorted((*split.train, *split.validation, *split.test))


@pytest.mark.slow
def test_bad_scans_are_named_and_left_out(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_bad(images)
    main(COMMAND)
    good = [f"phantom_{i:04d}" for i in range(5)]
    path = plan_path(images)
    assert used_cases(path) == good
    assert CaseFolder(path.parent / "ScreenerPlans_screener").finished() == good
    settings = read_plan(path).settings
    fingerprint = json.loads((path.parent / "screener_fingerprint.json").read_text())
    named = {**fingerprint["skipped"], **settings.left_out}
    assert set(named) == set(REASONS)
    for case, words in REASONS.items():
        assert re.search(words, named[case]), (case, named[case])
        lines = [m for m in caplog.messages if re.match(rf"(skipped|left out) {case}: ", m)]
        assert len(lines) == 1, (case, lines)
        assert named[case] in lines[0]

    before = path.read_bytes()
    main(COMMAND)
    assert path.read_bytes() == before


def test_the_good_scans_alone_make_the_same_plan(images: Path) -> None:
    plan_dataset(["902"], None, 1, REQUEST)
    alone = json.loads(plan_path(images).read_text())
    add_bad(images)
    (images / "stub_0000.nii.gz").unlink()
    plan_dataset(["902"], None, 1, REQUEST, verify=True)
    assert json.loads(plan_path(images).read_text()) == alone


@pytest.mark.parametrize("kind", ["no folder", "empty folder", "only bad ones"])
def test_nothing_to_plan_with(images: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "only bad ones":
        add_bad(images)
    for file in images.glob("phantom_*"):
        file.unlink()
    (images / "stub_0000.nii.gz").unlink(missing_ok=True)
    if kind == "no folder":
        images.rmdir()
    with pytest.raises(SystemExit) as end:
        main(COMMAND)
    assert end.value.code == 1
    message = capsys.readouterr().err
    if kind == "only bad ones":
        assert f"error: no usable image among {len(REASONS) - 1}:" in message
        assert all(f"  {case}: " in message for case in set(REASONS) - {"stub"})
    else:
        assert f"error: no image *_0000.nii.gz in {images}: put the scans there" in message
    assert not plan_path(images).exists()


def test_scan_that_is_lost_before_preprocessing_leaves_the_plan(images: Path) -> None:
    plan_dataset(["902"], None, 1, REQUEST)
    path = plan_path(images)
    (lost,) = read_plan(path).settings.split.validation
    (images / f"{lost}_0000.nii.gz").write_bytes(b"torn")
    preprocess_planned(NAME, "ScreenerPlans", 0)
    settings = read_plan(path).settings
    assert lost not in used_cases(path) and "cannot be read" in settings.left_out[lost]
    assert len(settings.split.train) == 4
    # The only validation scan was lost: a training scan stands in.
    assert settings.split.validation == settings.split.train[:1]
    before = path.read_bytes()
    plan_dataset(["902"], None, 1, REQUEST)
    preprocess_planned(NAME, "ScreenerPlans", 0)
    assert path.read_bytes() == before


def test_scan_that_comes_later_is_refused_with_a_way_out(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = [f"phantom_{i:04d}" for i in range(5)]

    def validation(names: list[str], seed: int) -> tuple[str, ...]:
        return split_cases(dict.fromkeys(names, NAME), 0, seed).validation

    # Such a name that the scans known before keep their use: nothing but the new one has changed.
    seed, new = next(
        (seed, name)
        for seed in range(50)
        for name in ("another", "zone")
        if validation([*old, name], seed) == validation(old, seed)
    )
    plan_dataset(["902"], None, 1, {**REQUEST, "seed": seed})
    preprocess_planned(NAME, "ScreenerPlans", 0)
    path = plan_path(images)
    shutil.copy(images / "phantom_0001_0000.nii.gz", images / f"{new}_0000.nii.gz")
    trained = images.parents[2] / "results" / NAME / "DescriptorTrainer__ScreenerPlans__3d_fullres"
    before = path.read_bytes()
    for fold in (None, trained / "fold_all"):
        if fold is not None:
            fold.mkdir(parents=True)
            (fold / "checkpoint_latest.pth").touch()
        with pytest.raises(SystemExit) as end:
            main([*COMMAND, "--seed", str(seed)])
        assert end.value.code == 1
        message = capsys.readouterr().err
        assert f"the scans or the split of {path} have changed" in message
        assert "another name with -p, or delete" in message
        assert path.read_bytes() == before
