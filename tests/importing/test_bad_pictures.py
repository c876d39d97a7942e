"""What is wrong with pictures, masks, groups and kinds is said, and what goes on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from screener_nnu.importing.contents import find_pictures
from screener_nnu.preprocessing.pictures import read_picture, write_picture


def test_broken_files_are_skipped(importer: Any) -> None:
    importer.normals(10)
    root = importer.source
    (root / "text.jpg").write_text("no picture")
    (root / "empty.png").write_bytes(b"")
    whole = (root / "n000.png").read_bytes()
    (root / "torn.PNG").write_bytes(whole[: len(whole) // 2])
    write_picture(np.full((9, 9), 5, np.uint8), root / "constant.png")
    write_picture(np.arange(9, dtype=np.uint8)[None, :], root / "line.png")
    Path(os.fsdecode(os.fsencode(root) + b"/b\xe4r.png")).write_bytes(whole)
    said = importer.run("-np", 2)
    assert "10 taken" in said and "6 skipped" in said
    rows = {row["source"]: row for row in importer.table("import.csv")}
    for source, words in {
        "text.jpg": "it is no PNG, JPG, BMP or TIFF",
        "empty.png": "the file is empty",
        "torn.PNG": "it is cut short",
        "constant.png": "the same value everywhere",
        "line.png": "9 x 1 pixels",
        "b\\xe4r.png": "not valid UTF-8",
    }.items():
        row = rows[source]
        assert row["status"] == "skipped" and words in row["reason"] and not row["case"]
        assert f"skipped {source}: " in said
    assert len(importer.table()) == len(list((importer.folder / "imagesTr").iterdir())) == 10


def test_what_was_changed_is_counted(importer: Any) -> None:
    importer.normals(10)
    for index in range(3):
        pixels = np.moveaxis(importer.pixels(f"a{index}", 2), 0, -1)
        Image.fromarray(pixels).save(importer.source / f"a{index}.png")
    assert "3 pictures: its alpha channel was dropped" in importer.run()
    notes = {row["source"]: row["notes"] for row in importer.table("import.csv")}
    assert notes["a1.png"] == "its alpha channel was dropped" and not notes["n000.png"]


def test_masks(importer: Any) -> None:
    names = importer.normals(11)
    sick = [f"s{index}.png" for index in range(6)]
    importer.write(*sick, "well.png")
    importer.write_mask("m0.png", 1)
    write_picture(np.eye(9, dtype=np.uint8), importer.source / "m1.png")
    several = np.zeros((14, 11), np.uint8)
    several[2:4], several[5:7] = 1, 2
    write_picture(several, importer.source / "m2.png")
    importer.write_mask("m3.png", 0)
    importer.write_mask("m5.png", 255)
    table = importer.list(
        *(f"{name},0,train,," for name in names),
        *(f"{name},1,test,m{index}.png,q{index}" for index, name in enumerate(sick[:5])),
        "s5.png,1,test,,",
        "well.png,0,test,m5.png,",
    )
    said = importer.run(source=table)
    for source, words in {
        "s1.png": f"its mask is left out: the mask {importer.source}/m1.png has 9 x 9 pixels, and "
        "the picture 11 x 14",
        "s2.png": "m2.png holds 2 values other than 0",
        "s3.png": "m3.png is empty, though its label is 1",
        "s4.png": "there is no such file",
        "s5.png": "it has no mask",
        "well.png": "m5.png is not empty, though its label is 0",
    }.items():
        (line,) = [line for line in said.splitlines() if line.startswith(f"taken {source}: ")]
        assert words in line
    assert len(importer.table()) == 18
    assert {path.name for path in (importer.folder / "labelsTs").iterdir()} == {"s0.png"}


def test_masks_of_other_kinds(importer: Any) -> None:
    names = importer.normals(10)
    importer.write("a.png", "b.png", "c.png")
    mask = importer.write_mask("a_mask.png", 1)
    red = np.zeros((3, *mask.shape), np.uint8)
    red[0] = 128 * mask
    write_picture(red, importer.source / "b_mask.png")
    Image.fromarray(mask > 0).save(importer.source / "c_mask.png")
    lines = [f"{name},1,test,{name[0]}_mask.png," for name in ("a.png", "b.png", "c.png")]
    importer.run(source=importer.list(*(f"{name},0,train" for name in names), *lines))
    for case in "abc":
        written = importer.folder / "labelsTs" / f"{case}.png"
        np.testing.assert_array_equal(read_picture(written, case).pixels[0], mask)


def test_groups_in_train_and_test(importer: Any) -> None:
    importer.normals(10, "train/good/")
    importer.write("test/bad/n003.png")
    error = importer.refused("--group_regex", r"/n(\d+)")
    assert "003 (train/good/n003.png and test/bad/n003.png)" in error and "leak" in error
    assert not importer.folder.exists()


def test_twins(importer: Any) -> None:
    names = importer.normals(10, "train/good/")
    importer.write("test/bad/other.png")
    shutil.copy(importer.source / names[2], importer.source / "test/bad/copy.png")
    error = importer.refused()
    assert "train/good/n002.png = test/bad/copy.png" in error and "leak" in error
    assert not importer.folder.exists()
    shutil.move(importer.source / "test/bad/copy.png", importer.source / "train/good/copy.png")
    said = importer.run()
    assert "two files: train/good/copy.png = train/good/n002.png" in said and "12 taken" in said
    # A later file is compared with those that an earlier run took.
    shutil.copy(importer.source / names[7], importer.source / "test/bad/late.png")
    assert "train/good/n007.png = test/bad/late.png" in importer.refused()


def test_too_few(importer: Any) -> None:
    importer.normals(9)
    assert "9 normal training pictures can be used, but at least 10" in importer.refused()
    (importer.source / "bad.png").write_text("nothing")
    assert "9 normal training pictures" in importer.refused()
    # What only pixels tell is known after the others were written.
    whole = (importer.source / "n000.png").read_bytes()
    (importer.source / "bad.png").write_bytes(whole[:-40])
    assert "9 normal training pictures" in importer.refused()
    assert len(importer.table()) == 9


def test_grey_and_colour(importer: Any) -> None:
    importer.normals(10)
    importer.write("c1.png", "c2.png", channels=3)
    like_grey = np.repeat(importer.pixels("like"), 3, axis=0)
    write_picture(like_grey, importer.source / "like.png")
    error = importer.refused()
    assert (
        "grey like.png, n000.png, n001.png, n002.png, n003.png and 6 more; colour c1.png, c2.png"
        in error
    )
    assert "--colour grey or --colour rgb" in error and not importer.folder.exists()

    importer.run("--colour", "grey")
    pixels = importer.pixels("c1.png", 3)
    expected = np.asarray(Image.fromarray(np.moveaxis(pixels, 0, -1)).convert("L"))
    written = read_picture(importer.folder / "imagesTr" / "c1_0000.png", "x").pixels
    # Pillow rounds down.
    assert written.shape == (1, 14, 11)
    assert abs(written[0].astype(int) - expected).max() <= 1
    importer.write("late.png", channels=3)
    assert "give --colour grey as before" in importer.refused("--colour", "rgb")


def test_all_as_colour(importer: Any) -> None:
    importer.normals(10)
    importer.write("c1.png", channels=3)
    importer.run("--colour", "rgb")
    images = importer.folder / "imagesTr"
    grey = read_picture(images / "n000_0000.png", "x").pixels
    np.testing.assert_array_equal(grey, np.repeat(importer.pixels("n000.png"), 3, axis=0))
    colour = read_picture(images / "c1_0000.png", "x").pixels
    np.testing.assert_array_equal(colour, importer.pixels("c1.png", 3))


def test_equal_channels_are_grey(importer: Any) -> None:
    importer.normals(5)
    for index in range(5):
        pixels = np.repeat(importer.pixels(str(index)), 3, axis=0)
        write_picture(pixels, importer.source / f"{index}.png")
    importer.run()
    written = read_picture(importer.folder / "imagesTr" / "3_0000.png", "x").pixels
    np.testing.assert_array_equal(written, importer.pixels("3"))


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits(importer: Any, channels: int) -> None:
    names = [f"{index}.png" for index in range(10)]
    importer.write(*names, channels=channels, bits=16)
    importer.run()
    written = read_picture(importer.folder / "imagesTr" / "7_0000.png", "x").pixels
    np.testing.assert_array_equal(written, importer.pixels("7.png", channels, 16))
    importer.write("new.png", channels=channels)
    assert "8 bit new.png; 16 bit 0.png, 1.png" in importer.refused()


def test_8_bits_in_files_of_16(importer: Any) -> None:
    for index in range(10):
        pixels = importer.pixels(str(index)).astype(np.uint16)
        write_picture(pixels, importer.source / f"{index}.png")
    said = importer.run()
    assert "10 pictures: its values fit into 8 of its 16 bits" in said
    with Image.open(importer.folder / "imagesTr" / "3_0000.png") as image:
        assert image.mode == "L"
    # They go with pictures of 8 bits; and dark ones of 16 bits with others of 16.
    importer.write("new.png")
    assert "1 taken" in importer.run()


def test_dark_pictures_among_those_of_16_bits(importer: Any) -> None:
    importer.write(*(f"{index}.png" for index in range(10)), bits=16)
    write_picture(importer.pixels("dark").astype(np.uint16), importer.source / "dark.png")
    importer.run()
    with Image.open(importer.folder / "imagesTr" / "dark_0000.png") as image:
        assert image.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(image), importer.pixels("dark")[0])


def test_slices_and_volumes(importer: Any, write_dicom: Any) -> None:
    importer.normals(10)
    volume = nibabel.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4))
    nibabel.save(volume, importer.source / "scan.nii.gz")
    error = importer.refused()
    assert "holds pictures (n000.png, n001.png" in error
    assert "and scans (scan.nii.gz)" in error
    # An export of an archive goes on, whatever pictures lie beside its series.
    write_dicom(importer.source / "ct", np.zeros((2, 5, 5), int))
    assert find_pictures(importer.source) is None
    assert "is a single picture" in importer.refused(source=importer.source / "n000.png")


def test_options_that_would_do_nothing(importer: Any, write_dicom: Any, tmp_path: Path) -> None:
    importer.normals(10)
    assert "--min_slices is for scans" in importer.refused("--min_slices", 5)
    assert "--keep_names is for scans" in importer.refused("--keep_names")
    write_dicom(tmp_path / "ct", np.zeros((2, 5, 5), int))
    error = importer.refused("--colour", "grey", source=tmp_path / "ct")
    assert "--colour is for pictures" in error
