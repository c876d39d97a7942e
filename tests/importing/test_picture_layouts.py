"""Each layout of a folder of pictures is recognised, said, and sorted into a raw data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from screener_nnu.preprocessing.pictures import read_picture, write_picture


def splits(importer: Any) -> dict[str, tuple[str, str, str]]:
    """Split, label and group by source."""
    return {row["source"]: (row["split"], row["label"], row["group"]) for row in importer.table()}


def read(path: Path) -> np.ndarray:
    return read_picture(path, "x", may_be_constant=True).pixels[0]


def test_a_plain_folder(importer: Any) -> None:
    names = importer.normals(9)
    importer.write("deep/er/Größe 1.PNG")
    said = importer.run()
    assert "is a plain folder, all of whose pictures are normal: 10 pictures" in said
    assert "10 taken" in said and "next: screener_plan_and_preprocess -d 610" in said
    assert splits(importer) == dict.fromkeys([*names, "deep/er/Größe 1.PNG"], ("train", "0", ""))
    cases = {row["source"]: row["case"] for row in importer.table()}
    assert cases["deep/er/Größe 1.PNG"] == "deep_er_Gro-e-1"
    for source, case in cases.items():
        written = importer.folder / "imagesTr" / f"{case}_0000.png"
        np.testing.assert_array_equal(read(written), importer.pixels(source)[0])
    assert json.loads((importer.folder / "dataset.json").read_text()) == {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0},
        "numTraining": 10,
        "file_ending": ".png",
        "modality": "picture",
    }
    assert not (importer.folder / "labelsTs").exists()
    assert not (importer.folder / "imagesTs").exists()


def test_colour(importer: Any) -> None:
    importer.write(*(f"{i}.png" for i in range(10)), channels=3)
    importer.run()
    description = json.loads((importer.folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    written = read_picture(importer.folder / "imagesTr" / "4_0000.png", "x").pixels
    np.testing.assert_array_equal(written, importer.pixels("4.png", 3))


def test_masks_in_a_plain_folder_are_pointed_out(importer: Any) -> None:
    importer.normals(10, "images/")
    importer.write("masks/n000.png")
    assert "masks/n000.png look like masks" in importer.run()


def test_mvtec(importer: Any) -> None:
    importer.normals(10, "train/good/")
    importer.write("test/good/000.png", "test/crack/000.png", "test/hole/big/000.png", "other.png")
    mask = importer.write_mask("ground_truth/crack/000_mask.png")
    importer.write_mask("ground_truth/hole/big/000.png", 1)
    said = importer.run()
    assert "is the layout of MVTec (train/good, test, ground_truth): 13 pictures" in said
    assert "left out: other.png" in said
    found = splits(importer)
    assert found["train/good/n003.png"] == ("train", "0", "")
    assert found["test/good/000.png"] == ("test", "0", "")
    assert found["test/crack/000.png"] == found["test/hole/big/000.png"] == ("test", "1", "")
    labels = importer.folder / "labelsTs"
    np.testing.assert_array_equal(read(labels / "test_crack_000.png"), mask)
    np.testing.assert_array_equal(read(labels / "test_hole_big_000.png"), mask)
    assert not read(labels / "test_good_000.png").any()
    assert len(list(labels.iterdir())) == len(list((importer.folder / "imagesTs").iterdir())) == 3
    description = json.loads((importer.folder / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "abnormal": 1}
    assert description["numTraining"] == 10


def test_medianomaly(importer: Any) -> None:
    names = [Path(name).name for name in importer.normals(12, "images/")]
    importer.write("a.png", "images/b.png", "images/c.png")
    lists = {
        "train": {"0": names[:11], "1": ["c.png"]},
        "test": {"0": names[11:], "1": ["a.png", "b.png"]},
    }
    (importer.source / "data.json").write_text(json.dumps(lists))
    said = importer.run()
    assert "is the list data.json: 15 pictures" in said
    assert "skipped images/c.png: it is abnormal, and training takes normal pictures" in said
    found = splits(importer)
    assert len(found) == 14 and found["a.png"] == found["images/b.png"] == ("test", "1", "")
    assert found["images/n011.png"] == ("test", "0", "")


@pytest.mark.parametrize(
    ("train", "words"),
    [(["a.png"], "lists of pictures by label"), ({"2": []}, "by label"), ({"0": [1]}, "of names")],
)
def test_a_data_json_of_another_form(importer: Any, train: Any, words: str) -> None:
    importer.normals()
    lists = {"train": train, "test": {"0": []}}
    (importer.source / "data.json").write_text(json.dumps(lists))
    assert words in importer.refused()


@pytest.mark.parametrize("given", [False, True])
def test_a_table(importer: Any, given: bool) -> None:
    names = importer.normals(11)
    importer.write("sick.png", "unlisted.png")
    mask = importer.write_mask("masks/sick.png", 7)
    table = importer.list(
        *(f"{name},0,train,,p{index}" for index, name in enumerate(names[:10])),
        f"{names[10]},0,test,,",
        "sick.png,1,test,masks/sick.png,p99",
    )
    said = importer.run(source=table if given else None)
    assert "is the table list.csv: 12 pictures" in said
    assert ("left out: unlisted.png" in said) == (not given)
    found = splits(importer)
    assert found["n003.png"] == ("train", "0", "p3") and found["sick.png"] == ("test", "1", "p99")
    np.testing.assert_array_equal(read(importer.folder / "labelsTs" / "sick.png"), mask)
    assert not read(importer.folder / "labelsTs" / "n010.png").any()


def test_a_table_of_a_spreadsheet_with_absolute_paths(importer: Any) -> None:
    names = importer.normals(10, "a b/")
    lines = [f"0;{importer.source / name};train" for name in names]
    table = importer.source / "list.csv"
    table.write_text("\ufefflabel;path;split\n" + "\n".join(lines) + "\n\n", encoding="utf-8")
    importer.run(source=table)
    assert [row["case"] for row in importer.table()] == [f"n{i:03d}" for i in range(10)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("n000.png,2,train", "line 2: label '2' is not 0 (normal), 1 (abnormal) or empty"),
        ("n000.png,0,validation", "line 2: split 'validation' is neither train nor test"),
        (",0,train", "line 2: there is no path"),
        ("n000.png,0,train\nn000.png,0,test", "n000.png is listed twice"),
    ],
)
def test_bad_tables(importer: Any, line: str, words: str) -> None:
    importer.normals()
    assert words in importer.refused(source=importer.list(line))
    assert not importer.folder.exists()


def test_tables_that_cannot_be_used(importer: Any) -> None:
    importer.normals()
    table = importer.list("n000.png,0,train")
    table.with_name("second.csv").write_text(table.read_text())
    table.with_name("notes.csv").write_text("a,b\n1,2\n")
    assert "several tables of pictures, list.csv and second.csv" in importer.refused()
    table.write_bytes("path,label,split\nGröße.png,0,train".encode("latin1"))
    assert "no CSV in UTF-8" in importer.refused(source=table)
    table.write_text("file,label\nn000.png,0\n")
    assert "no column path, split: give path,label,split" in importer.refused(source=table)


def write_raw_data_set(importer: Any) -> Path:
    """BMP, TIFF and PNG files as nnU-Net has them."""
    root = importer.source / "Dataset007_Raw"
    for folder in ("imagesTr", "imagesTs", "labelsTr", "labelsTs"):
        (root / folder).mkdir(parents=True)
    (root / "dataset.json").write_text('{"file_ending": ".bmp"}')
    for index in range(12):
        pixels = importer.pixels(f"n{index}")[0]
        Image.fromarray(pixels).save(root / "imagesTr" / f"n{index}_0000.bmp")
        mask = np.full(pixels.shape, 0, np.uint8)
        mask[4:8, 4:6] = index == 11
        Image.fromarray(mask).save(root / "labelsTr" / f"n{index}.bmp")
    tifffile.imwrite(root / "imagesTs" / "t_0000.tif", importer.pixels("t")[0])
    tifffile.imwrite(root / "labelsTs" / "t.tif", mask)
    write_picture(importer.pixels("u"), root / "imagesTs" / "u_0000.png")
    return root


def test_a_raw_data_set(importer: Any) -> None:
    root = write_raw_data_set(importer)
    said = importer.run(source=root)
    assert "is a raw data set of nnU-Net: 14 pictures" in said
    # Its mask tells that it is no normal picture.
    assert "skipped imagesTr/n11_0000.bmp: it is abnormal" in said
    assert "taken imagesTs/u_0000.png: it has no mask" in said
    rows = {row["case"]: row for row in importer.table()}
    assert len(rows) == 13 and rows["n4"]["label"] == "0"
    assert rows["t"]["label"] == "1" and rows["u"]["label"] == ""
    assert {path.name for path in (importer.folder / "labelsTs").iterdir()} == {"t.png"}


def test_a_raw_data_set_keeps_what_its_table_says(importer: Any) -> None:
    importer.normals(10, "train/good/")
    importer.write("test/good/1.png", "test/bad/1.png")
    importer.run("--group_regex", "n(.*).png")
    first = importer.table()
    said = importer.run(source=importer.folder, number=611)
    assert "can be used as it is: screener_plan_and_preprocess -d 610; it is copied" in said
    copy = importer.raw / "Dataset611_Pictures"
    rows = (copy / "pictures.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1:4] for row in rows] == [
        [row["split"], row["label"], row["group"]] for row in first
    ]
    assert "is a raw data set, and needs no import" in importer.refused(source=importer.folder)


def test_channels_in_files_of_their_own(importer: Any) -> None:
    root = write_raw_data_set(importer)
    write_picture(importer.pixels("v"), root / "imagesTr" / "n0_0001.png")
    assert "n0_0001.png is a channel of its own" in importer.refused(source=root)


def test_groups_of_paths(importer: Any) -> None:
    importer.normals(10, "p1/")
    importer.write("q.png")
    said = importer.run("--group_regex", r"p(\d)/")
    assert "--group_regex finds no group in q.png" in said
    assert splits(importer)["p1/n000.png"] == ("train", "0", "1")
    assert splits(importer)["q.png"] == ("train", "0", "")
    assert "has no group: put the patient in parentheses" in importer.refused("--group_regex", "p")
    assert "no regular expression" in importer.refused("--group_regex", "(")
