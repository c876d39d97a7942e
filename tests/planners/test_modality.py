"""How the modality of data sets is found, and mixtures that are refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.planners.fingerprint import analyse_case, summarise
from screener_nnu.planners.modality import modality_of_datasets
from screener_nnu.preprocessing.pictures import write_picture
from screener_nnu.preprocessing.raw_dataset import find_cases

Write = Callable[[Path, str, np.ndarray], Path]
Person = Callable[..., np.ndarray]
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes a raw data set of images (z, y, x) or (C, H, W) and returns its folder."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    for name in ("preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))

    def made(number: int, images: list[np.ndarray], channels: Any = "scan", **values: Any) -> Path:
        folder = tmp_path / f"Dataset{number}_Some"
        (folder / "imagesTr").mkdir(parents=True)
        pictures = str(values.get("file_ending", "")).lower() == ".png"
        for i, image in enumerate(images):
            if pictures:
                write_picture(image, folder / "imagesTr" / f"c{i}_0000.png")
            else:
                write(folder / "imagesTr", f"c{i}", image)
        names = channels if isinstance(channels, dict) else {"0": channels}
        values = {"channel_names": names, "labels": {"background": 0}, **values}
        values = {"numTraining": len(images), "file_ending": ".nii.gz", **values}
        (folder / "dataset.json").write_text(json.dumps(values))
        return folder

    return made


def magnetic(person: np.ndarray) -> np.ndarray:
    return np.where(person > -400, 300 + person, 0).clip(0).astype(np.int16)


def picture(colours: int = 1, highest: int = 200, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kind = np.uint8 if highest < 256 else np.uint16
    return rng.integers(highest // 2, highest + 1, (colours, 40, 50)).astype(kind)


@pytest.mark.parametrize(
    ("channel", "modality"),
    [
        ("CT", "ct"),
        (" ct ", "ct"),
        *((name, "mr") for name in ("MR", "MRI", "T1", "T1w", "T2w", "t1ce", "T2-FLAIR", "FLAIR")),
        *((name, "mr") for name in ("PD", "ADC", "MR_T2", "post-contrast T1", "axial T2 fs")),
    ],
)
def test_by_the_name_of_the_channel(make: Make, channel: str, modality: str) -> None:
    make(501, [], channel)
    assert modality_of_datasets(["501"], None) == modality


@pytest.mark.parametrize("channel", ["noNorm", "zscore", "scan", "T10", "amr", "padding"])
@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_by_values_where_names_say_nothing(
    make: Make,
    person: Person,
    channel: str,
    modality: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = [person(i) if modality == "ct" else magnetic(person(i)) for i in range(3)]
    make(501, images, channel)
    with caplog.at_level(logging.INFO):
        assert modality_of_datasets(["501"], None) == modality
    words = "can be HU" if modality == "ct" else "cannot be HU"
    assert f"Dataset501_Some: modality {modality}, for the values of 3 scans {words}" in caplog.text


@pytest.mark.parametrize(
    ("stated", "channel", "modality"),
    [
        ("mr", "CT", "mr"),
        ("CT", "T1", "ct"),
        # nnU-Net's first format, and what nobody knows, state nothing.
        ({"0": "CT"}, "T1", "mr"),
        ("ultrasound", "CT", "ct"),
        (None, "CT", "ct"),
    ],
)
def test_what_dataset_json_states_comes_first(
    make: Make, stated: Any, channel: str, modality: str
) -> None:
    make(501, [], channel, modality=stated)
    assert modality_of_datasets(["501"], None) == modality


def test_what_the_user_states_comes_before_that(make: Make) -> None:
    make(501, [], "CT", modality="ct")
    assert modality_of_datasets(["501"], "mr") == "mr"


def test_pictures_are_known_by_their_ending(make: Make) -> None:
    make(501, [picture()], "grey", file_ending=".PNG")
    assert modality_of_datasets(["501"], None) == "picture"
    assert modality_of_datasets(["501"], "picture") == "picture"
    with pytest.raises(ScreenerError, match=r"holds pictures \(.PNG\), which --modality mr does"):
        modality_of_datasets(["501"], "mr")


def test_volumes_are_no_pictures(make: Make) -> None:
    make(501, [], "CT")
    with pytest.raises(ScreenerError, match="holds volumes .*--modality picture does not fit"):
        modality_of_datasets(["501"], "picture")
    make(502, [], "CT", modality="picture")
    with pytest.raises(ScreenerError, match="states pictures, but its files end in .nii.gz"):
        modality_of_datasets(["502"], None)


def test_data_sets_of_several_modalities_are_listed(make: Make) -> None:
    make(501, [], "CT")
    make(502, [], "T1")
    make(503, [], "CT")
    with pytest.raises(ScreenerError) as error:
        modality_of_datasets(["501", "502", "503"], None)
    assert "CT: Dataset501_Some, Dataset503_Some; MR: Dataset502_Some" in str(error.value)


def test_ct_and_mr_in_one_data_set_are_listed(make: Make, person: Person) -> None:
    make(501, [person(0), magnetic(person(1)), person(2)])
    with pytest.raises(ScreenerError, match=r"are HU \(c0, c2\), and those of others .*\(c1\)"):
        modality_of_datasets(["501"], None)
    assert modality_of_datasets(["501"], "mr") == "mr"


def test_volumes_and_pictures_in_one_folder_are_listed(make: Make, person: Person) -> None:
    folder = make(501, [person(0), person(1)], "CT")
    write_picture(picture(), folder / "imagesTr" / "photo_0000.png")
    with pytest.raises(ScreenerError) as error:
        find_cases(folder)
    for words in ("2 volumes (c0_0000.nii.gz, c1_0000.nii.gz)", "1 pictures (photo_0000.png)"):
        assert words in str(error.value)
    folder = make(502, [picture()], "grey", file_ending=".png")
    (folder / "imagesTr" / "c7_0000.nii.gz").touch()
    with pytest.raises(ScreenerError, match=r"1 pictures \(c0_0000.png\) and 1 volumes \(c7"):
        find_cases(folder)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (
            [picture(1), picture(3), picture(3)],
            ["1 grey of 8 bits (c0)", "(c1, c2)"],
        ),
        ([picture(1), picture(1, 3000)], ["1 grey of 8 bits (c0)", "1 grey of 16 bits (c1)"]),
    ],
)
def test_pictures_of_two_kinds_are_listed(
    make: Make, images: list[np.ndarray], words: list[str]
) -> None:
    folder = make(501, images, "grey", file_ending=".png")
    cases = find_cases(folder)
    records = [analyse_case(case, path, "picture") for case, path in cases.items()]
    with pytest.raises(ScreenerError) as error:
        summarise(records)
    for part in words:
        assert part in str(error.value)
