"""Projections in DICOM become pictures of 8 bits; the formulas are those of the standard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from screener_nnu.dicom.radiographs import image_modality, read_radiograph
from screener_nnu.errors import CaseError

Writer = Callable[..., list[Path]]
STORED = np.add.outer(100 * np.arange(20), 30 * np.arange(24))  # 0 to 2590


@pytest.fixture
def write(tmp_path: Path, write_dicom: Writer) -> Callable[..., Path]:
    """Writes a radiograph with the values `STORED`, of 12 bits."""

    def make(stored: np.ndarray = STORED, **values: Any) -> Path:
        def change(one: Dataset, index: int) -> None:
            one.Modality = "DX"
            del one.RescaleIntercept, one.RescaleSlope, one.RescaleType
            for name, value in values.items():
                setattr(one, name, value)

        return write_dicom(tmp_path / "dx", stored[np.newaxis] - 1024, change=change)[0]

    return make


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """Of PS3.3 C.11.2.1.2.1, from 0 to 255."""
    seen = (values - (centre - 0.5)) / (width - 1) + 0.5
    return 255 * np.clip(seen, 0, 1)


def pixels(path: Path) -> np.ndarray:
    picture = read_radiograph(path, "x")
    assert picture.pixels.dtype == np.uint8 and picture.pixels.shape == (1, *STORED.shape)
    return picture.pixels[0].astype(float)


def near(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(abs(found - expected).max() <= 0.5 + 1e-6)


def test_its_window(write: Any) -> None:
    path = write(WindowCenter=1000, WindowWidth=800)
    assert image_modality(path) == "DX"
    assert near(pixels(path), linear(STORED, 1000, 800))
    assert read_radiograph(path, "x").notes == ("its own window gave its 8 bits",)


def test_the_first_of_several_windows_after_rescaling(write: Any) -> None:
    options = {"WindowCenter": [300, 9], "WindowWidth": [700, 9]}
    path = write(**options, RescaleSlope=0.5, RescaleIntercept=-100)
    assert near(pixels(path), linear(STORED * 0.5 - 100, 300, 700))


def test_inverted(write: Any) -> None:
    path = write(WindowCenter=1000, WindowWidth=800, PhotometricInterpretation="MONOCHROME1")
    assert near(pixels(path), 255 - linear(STORED, 1000, 800))


def test_sigmoid(write: Any) -> None:
    path = write(WindowCenter=1000, WindowWidth=800, VOILUTFunction="SIGMOID")
    assert near(pixels(path), 255 / (1 + np.exp(-4 * (STORED - 1000) / 800)))


def test_a_table(write: Any) -> None:
    table = Dataset()
    entries = (np.arange(512) ** 2 // 64).astype(int)  # 0 to 4080 of 12 bits
    table.add_new("LUTDescriptor", "US", [512, 400, 12])
    table.add_new("LUTData", "US", entries.tolist())
    path = write(VOILUTSequence=[table])
    expected = entries[np.clip(STORED - 400, 0, 511)] / 4095 * 255
    assert near(pixels(path), expected)


def test_without_a_window(write: Any) -> None:
    path = write()
    assert near(pixels(path), STORED / STORED.max() * 255)
    assert read_radiograph(path, "x").notes == ("it has no window: its values were stretched",)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"PhotometricInterpretation": "RGB"}, "a picture in RGB"),
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"stored": np.full((20, 24), 7)}, "the same value everywhere"),
        ({"WindowCenter": -5000, "WindowWidth": 100}, "the same value everywhere"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "Window Width"),
        ({"PixelData": b"\0" * 90}, "90 of"),
    ],
)
def test_refused(write: Any, values: dict[str, Any], words: str) -> None:
    with pytest.raises(CaseError, match=words):
        read_radiograph(write(**values), "x")


def test_modalities(tmp_path: Path, write: Any) -> None:
    for modality in ("CR", "MG", "CT", ""):
        assert image_modality(write(Modality=modality)) == modality
    path = write()
    data = pydicom.dcmread(path)
    del data.Rows, data.PixelData
    data.save_as(path)
    (tmp_path / "text").write_text("DX" * 200)
    for other in (path, tmp_path / "text", tmp_path / "none", tmp_path):
        assert image_modality(other) is None
