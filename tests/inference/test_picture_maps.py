"""Pictures are predicted as scans are: found, written in their own size, resumed, refused."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import skimage.io
import tifffile

from screener_nnu.errors import ScreenerError
from screener_nnu.inference.images import find_images, kind_of
from screener_nnu.inference.output_folder import remove_what_was_being_written, taken_names
from screener_nnu.inference.predict import predict_files
from screener_nnu.map_kind import PICTURES, SCANS
from screener_nnu.outputs.extras import CaseExtras
from screener_nnu.outputs.request import OutputRequest
from screener_nnu.ownership import own_folder
from screener_nnu.preprocessing.image_files import write_image
from screener_nnu.preprocessing.volumes import read_volume
from tests.made_pictures import HEIGHT, WIDTH, predictor, read, write

Writer = Callable[..., list[Path]]
SCAN = np.where(np.arange(6 * 8 * 10).reshape(6, 8, 10) % 7 < 4, 35, -990)


def test_pictures_of_any_depth_have_names_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["b_0000.png", "left/b.JPG", "left/deep/b.tiff", "c.bmp", "left/notes.txt"]
    hidden = [".c.png", "__MACOSX/._c.png", ".cache/c.png", "maps/b_body.png"]
    for name in (*names, *hidden, "maps/.screener_files/1.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_images(tmp_path)
    assert found == {
        "b": tmp_path / "b_0000.png",
        "left_b": tmp_path / "left/b.JPG",
        "left_deep_b": tmp_path / "left/deep/b.tiff",
        "c": tmp_path / "c.bmp",
    }
    assert kind_of(found) == PICTURES
    assert "are not looked into: maps" in caplog.text
    assert find_images(tmp_path / "left/b.JPG") == {"b": tmp_path / "left/b.JPG"}


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "left" / "b.png")
    write(tmp_path / "left_b_0000.png")
    message = r"left_b_0000\.png and left/b\.png have the same case name left_b in .*rename"
    with pytest.raises(ScreenerError, match=message):
        find_images(tmp_path)


def test_scans_beside_pictures(
    tmp_path: Path, write_dicom: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"")
    write(tmp_path / "previews" / "a.png")
    assert list(find_images(tmp_path)) == ["a"]
    assert "pictures among scans: previews/a.png" in caplog.text
    write(tmp_path / "a.png")
    with pytest.raises(ScreenerError, match=r"scans \(a\.nii\.gz\) and pictures \(a\.png\)"):
        find_images(tmp_path)
    write_dicom(tmp_path / "disc" / "thorax", SCAN)
    write(tmp_path / "disc" / "logo.png")
    found = find_images(tmp_path / "disc")
    assert kind_of(found) == SCANS and list(found) == ["disc"]


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_lie_on_the_pixels_of_the_picture(tmp_path: Path, channels: int) -> None:
    images = {"a": write(tmp_path / "in" / "a_0000.png", channels=channels)}
    out = tmp_path / "out"
    assert predict_files(predictor(), images, out, threshold=60.0) == {}
    assert {p.name for p in out.iterdir()} == {"a.tif", "a_body.png", "a_mask.png"}
    expected = predictor().predict(read(images["a"], "a"))
    score = tifffile.imread(out / "a.tif")
    assert score.dtype == np.float32 and score.shape == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(score, sitk.GetArrayFromImage(expected.score)[0])
    body, mask = (skimage.io.imread(out / f"a_{name}.png") for name in ("body", "mask"))
    assert body.dtype == mask.dtype == np.uint8
    np.testing.assert_array_equal(body, sitk.GetArrayFromImage(expected.body)[0])
    assert 0 < mask.sum() < 200 and not body[:, :3].any() and body.max() == 1
    np.testing.assert_array_equal(mask, (score > 60) & (body > 0))
    back = read_volume(out / "a.tif", "a")
    assert back.GetSize() == (WIDTH, HEIGHT, 1) and back.GetSpacing() == (1, 1, 999)


def test_a_killed_run_goes_on_and_overwrite_begins_anew(tmp_path: Path) -> None:
    images = {n: write(tmp_path / "in" / f"{n}.png", seed=i) for i, n in enumerate("abc")}
    out = tmp_path / "out"
    predict_files(predictor(), dict(list(images.items())[:2]), out)
    first = {name: (out / f"{name}.tif").stat().st_mtime_ns for name in "ab"}
    (out / "b.tif").unlink()
    assert predict_files(predictor(), images, out) == {}
    assert (out / "a.tif").stat().st_mtime_ns == first["a"]
    assert {p.name for p in out.glob("*.tif")} == {"a.tif", "b.tif", "c.tif"}
    same = (out / "a.tif").read_bytes()
    predict_files(predictor(), images, out, overwrite=True)
    assert (out / "a.tif").stat().st_mtime_ns > first["a"]
    assert (out / "a.tif").read_bytes() == same  # equal maps are equal files


def test_a_broken_picture_costs_the_others_nothing(tmp_path: Path) -> None:
    images = {n: write(tmp_path / "in" / f"{n}.png") for n in "ac"}
    images["b"] = tmp_path / "in" / "b.png"
    images["b"].write_bytes(images["a"].read_bytes()[:150])
    skipped = predict_files(predictor(), dict(sorted(images.items())), tmp_path / "out")
    assert list(skipped) == ["b"] and "b.png cannot be read" in skipped["b"]
    assert {p.name for p in (tmp_path / "out").glob("*.tif")} == {"a.tif", "c.tif"}


def test_the_map_of_another_picture_is_refused(tmp_path: Path) -> None:
    images = {"a": write(tmp_path / "in" / "a.png")}
    out = tmp_path / "out"
    request = OutputRequest(model="m", kind=PICTURES)
    predict_files(predictor(), images, out, extras=CaseExtras(out, request))
    assert (out / "a.json").is_file()
    write(images["a"], seed=9)
    skipped = predict_files(predictor(), images, out, extras=CaseExtras(out, request))
    assert "of another scan of this name" in skipped["a"]


def test_files_of_a_person_are_never_touched(tmp_path: Path) -> None:
    images = {n: write(tmp_path / "in" / f"{n}.png") for n in "ab"}
    out = tmp_path / "out"
    out.mkdir()
    (out / "a_mask.png").write_text("mine")
    own_folder(out)
    extras = CaseExtras(out, OutputRequest(model="m", kind=PICTURES))
    skipped = predict_files(predictor(), images, out, overwrite=True, extras=extras)
    assert list(skipped) == ["a"] and "a_mask.png is not ours" in skipped["a"]
    assert (out / "a_mask.png").read_text() == "mine"
    assert not (out / "a.tif").exists() and (out / "b.tif").is_file()


def test_maps_of_scans_and_of_pictures_never_share_a_folder(tmp_path: Path) -> None:
    images = {"a": write(tmp_path / "in" / "a.png")}
    scans = tmp_path / "scans"
    for end in ("", "_body"):
        write_image(sitk.Image([4, 4, 4], sitk.sitkUInt8), scans / f"s{end}.nii.gz")
    with pytest.raises(ScreenerError, match=r"holds maps of scans \(s\.nii\.gz\), and these are"):
        predict_files(predictor(), images, scans)
    out = tmp_path / "out"
    predict_files(predictor(), images, out)
    with pytest.raises(ScreenerError, match=r"holds maps of pictures \(a\.tif\)"):
        predict_files(predictor(), {"s": scans / "s.nii.gz"}, out)
    with pytest.raises(ScreenerError, match="holds pictures, which maps would"):
        predict_files(predictor(), images, tmp_path / "in")


def test_names_that_meet_are_left_out_however_many_there_are() -> None:
    # BUSI has its masks beside the pictures.
    names = [f"benign ({i})" for i in range(20_000)]
    begun = time.process_time()
    reasons = taken_names([*names, "benign (7)_mask"], PICTURES)
    assert time.process_time() - begun < 5  # each against all others took minutes
    assert list(reasons) == ["benign (7)_mask"]
    assert "its map would replace benign (7)_mask.png of the case" in reasons["benign (7)_mask"]


def test_what_killed_runs_left_of_pictures_is_removed(tmp_path: Path) -> None:
    left = [".a.tif.12.tmp", ".a_body.png.12.tmp", ".a_findings.png.7.tmp"]
    for name in (*left, ".a.txt.12.tmp"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1, 1))
    remove_what_was_being_written(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".a.txt.12.tmp"]
