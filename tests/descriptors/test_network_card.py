"""The JSON beside a network: what it may say, and what becomes of intensities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu.descriptors.network_card import NetworkCard, card_path, read_card
from screener_nnu.errors import ScreenerError

CARD: dict[str, Any] = {
    "spacing": [2.25, 1.5, 1.5],
    "reads": "hu",
    "window": [-100, 300],
    "channels": 16,
    "strides": [2, 4, 4],
    "layout": "3d",
}


def read(folder: Path, **changes: Any) -> NetworkCard:
    path = folder / "network.json"
    values = {k: v for k, v in {**CARD, **changes}.items() if v is not None}
    path.write_text(json.dumps(values))
    return read_card(path)


def test_a_card_is_read_with_its_defaults(tmp_path: Path) -> None:
    card = read(tmp_path)
    assert card.spacing == (2.25, 1.5, 1.5) and card.window == (-100.0, 300.0)
    assert card.size_divisor == card.strides == (2, 4, 4)
    assert (card.normalisation, card.input_channels, card.dtype) == ("zero_one", 1, "float32")
    assert card_path(Path("a/b.c.onnx")) == Path("a/b.c.json")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.0, 0.0, 0.25, 1.0, 1.0]),
        ({"normalisation": "minus_one_one"}, [-1.0, -1.0, -0.5, 1.0, 1.0]),
        (
            {"normalisation": "mean_std", "mean": 50.0, "std": 25.0},
            [-6.0, -6.0, -2.0, 10.0, 10.0],
        ),
    ],
)
def test_hu_are_clipped_and_scaled(
    tmp_path: Path, changes: dict[str, Any], expected: list[float]
) -> None:
    card = read(tmp_path, **changes)
    hu = torch.tensor([-1024.0, -100.0, 0.0, 300.0, 2000.0])
    torch.testing.assert_close(card.normalised(hu), torch.tensor(expected))
    assert card.air == -100.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.0, 0.5, 1.0]),
        ({"normalisation": "minus_one_one"}, [-1.0, 0.0, 1.0]),
        ({"normalisation": "mean_std", "mean": 0.5, "std": 0.25}, [-2.0, 0.0, 2.0]),
    ],
)
def test_equalised_values_are_scaled(
    tmp_path: Path, changes: dict[str, Any], expected: list[float]
) -> None:
    card = read(tmp_path, reads="equalised", window=None, dtype="float16", **changes)
    found = card.normalised(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float16))
    assert card.air == 0.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spacing": None}, "network.json lacks spacing: add it"),
        ({"channels": None, "layout": None}, "lacks channels, layout: add it"),
        ({"colour": 3}, "has colour, which means nothing; known: spacing, reads"),
        ({"spacing": [1.0, 1.0]}, "spacing needs 3 values, but has 2"),
        ({"spacing": [-1.0, 1.0, 1.0]}, "must be at least 0, but is -1"),
        ({"reads": "mr"}, "reads must be equalised or hu, but is mr"),
        ({"window": None}, "window must be a lower and a higher HU where reads is hu"),
        ({"window": [300, -100]}, "window must be a lower and a higher HU"),
        ({"reads": "equalised"}, "window is of HU: leave it out, or set reads to hu"),
        ({"channels": 0}, "channels must be at least 1, but is 0"),
        ({"channels": "16"}, "channels must be int, but is '16'"),
        ({"strides": [2, 2.5, 2]}, "strides must be int, but is 2.5"),
        ({"divisor": [4, 4]}, "divisor needs 3 values, but has 2"),
        ({"divisor": [4, 6, 4]}, "divisor must be a multiple of strides"),
        ({"layout": "4d"}, "layout must be 3d or 2d, but is 4d"),
        ({"layout": "2d"}, "strides and divisor must be 1 along z for layout 2d"),
        ({"input_channels": 3}, "input_channels must be 1, or 3 for layout 2d"),
        ({"input_channels": 2}, "input_channels must be 1, or 3 for layout 2d"),
        ({"normalisation": "max"}, "normalisation must be zero_one or minus_one_one or mean_std"),
        ({"mean": 4.0}, "mean and std belong to normalisation mean_std"),
        ({"normalisation": "mean_std", "std": 0}, "std must be above 0, but is 0"),
        ({"dtype": "int8"}, "dtype must be float32 or float16 or bfloat16, but is int8"),
    ],
)
def test_a_wrong_card_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ScreenerError, match=said) as refused:
        read(tmp_path, **changes)
    assert "network.json" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is no JSON"), ("[1]", "must hold names and values, such as spacing")]
)
def test_a_card_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "network.json"
    with pytest.raises(
        ScreenerError, match="cannot be read .*: it must say what .* spacing, reads"
    ):
        read_card(path)
    path.write_text(text)
    with pytest.raises(ScreenerError, match=said):
        read_card(path)
