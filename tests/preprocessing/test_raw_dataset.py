"""Groups of an import of pictures, and channels that a raw data set may have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.preprocessing.pictures import write_picture
from screener_nnu.preprocessing.raw_dataset import find_cases, read_groups


def describe(folder: Path, channels: int, ending: str) -> None:
    values = {"channel_names": {str(i): "c" for i in range(channels)}, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(values))


def test_groups_of_cases_that_have_one(tmp_path: Path) -> None:
    assert read_groups(tmp_path) == {}
    table = "case,split,label,group,source\na,train,0,anna,x.png\nb,train,0,,y.png\n"
    (tmp_path / "pictures.csv").write_text(table + 'ö,test,1,"berta, 2",z.png\n', encoding="utf-8")
    assert read_groups(tmp_path) == {"a": "anna", "ö": "berta, 2"}


@pytest.mark.parametrize("content", [b"case,label\na,0\n", b"case,group\n\xff\xfe,1\n"])
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pictures.csv").write_bytes(content)
    with pytest.raises(ScreenerError, match="pictures.csv has no columns case and group"):
        read_groups(tmp_path)


def test_three_channels_are_the_colours_of_pictures_alone(tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    pixels = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)
    write_picture(pixels, tmp_path / "imagesTr" / "a_0000.png")
    describe(tmp_path, 3, ".png")
    assert list(find_cases(tmp_path)) == ["a"]
    for channels, ending in ((2, ".png"), (3, ".nii.gz")):
        describe(tmp_path, channels, ending)
        with pytest.raises(ScreenerError, match=f"has {channels} channels"):
            find_cases(tmp_path)
