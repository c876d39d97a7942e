"""What is made of pictures beside the map: overlays, a contact sheet, a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.io
import tifffile
from scipy import ndimage

from screener_nnu.calibration.measure import calibrate_on, measure_scans
from screener_nnu.calibration.record import Calibration
from screener_nnu.calibration.scans import ScoredScan
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.case_table import read_case_scores
from screener_nnu.inference.predict import predict_files
from screener_nnu.map_kind import LABEL_NAMES, PICTURES
from screener_nnu.outputs.contact_sheet import write_contact_sheet
from screener_nnu.outputs.extras import CaseExtras, known_cases
from screener_nnu.outputs.overlay import draw_overlay
from screener_nnu.outputs.products import product_endings
from screener_nnu.outputs.request import OutputRequest
from screener_nnu.outputs.table import write_table
from screener_nnu.preprocessing.reading import Source
from screener_nnu.smoothed_score import smoothed_score
from screener_nnu.viewer.picture import shown_pixels
from tests.made_pictures import HEIGHT, SPOT, WIDTH, pixels, predictor, read, write

REQUEST = OutputRequest(("overlay",), threshold=60.0, model="m", unit="none", kind=PICTURES)
GREY = np.full((50, 60, 3), 100, np.uint8)


def calibration() -> Calibration:
    """Of 20 pictures with scores that are even between 0 and 90, or some more."""
    body = np.ones((1, 100, 100), bool)
    even = np.linspace(0, 90, 10_000, dtype=np.float32).reshape(body.shape)

    def scan(i: int) -> ScoredScan:
        return ScoredScan(even + np.float32(i), body, 0.999)

    return calibrate_on(
        measure_scans({str(i): lambda i=i: scan(i) for i in range(20)}), "m", "scans of a folder"
    )


def run(images: Mapping[str, Source], out: Path, request: OutputRequest = REQUEST) -> Path:
    """Predicts, and writes table and sheet as the command does."""
    extras = CaseExtras(out, request)
    skipped = predict_files(predictor(), images, out, request.threshold, extras=extras)
    assert extras.failures == {}
    table = write_table(out, known_cases(out, images), skipped, PICTURES)
    write_contact_sheet(table, images)
    return table


def some_pictures(folder: Path, number: int = 3) -> dict[str, Source]:
    spots = np.linspace(0.3, 1, number)
    return {
        f"p{i:02d}": write(folder / f"p{i:02d}.png", seed=i, spot=spot, channels=1 + 2 * (i % 2))
        for i, spot in enumerate(spots)
    }


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 8), (1, 16)])
def test_the_overlay_has_the_size_of_the_picture(tmp_path: Path, channels: int, bits: int) -> None:
    images = {"a": write(tmp_path / "in" / "a.png", channels=channels, bits=bits)}
    out = tmp_path / "out"
    threshold = 60.0 if bits == 8 else 60.0 * 257
    run(images, out, replace(REQUEST, threshold=threshold))
    drawn = skimage.io.imread(out / "a_overlay.png").astype(int)
    assert drawn.shape == (HEIGHT, WIDTH, 3) and drawn.dtype == int
    plain = shown_pixels(pixels(channels, bits)).astype(int)
    change = np.abs(drawn - plain).max(axis=2)
    body = skimage.io.imread(out / "a_body.png") > 0
    score = tifffile.imread(out / "a.tif")
    assert not body[:, :3].any() and (change[:, :3] == 0).all()
    # The lower half of the body keeps its values, the highest score changes most of its colour.
    x, y = SPOT
    low = body & (score < np.median(score[body]))
    mask = skimage.io.imread(out / "a_mask.png") > 0
    low &= ~ndimage.binary_dilation(mask, iterations=3)  # where the line is
    low[:, :6] = False
    assert (change[low] == 0).all() and change[y, x] > 40
    lines = (drawn == 255).all(axis=2) & (plain < 255).any(axis=2)
    assert lines.sum() > 10 and not (lines & mask).any()
    assert np.hypot(*(np.argwhere(lines) - (y, x)).T).max() < 9


def test_colours_grow_with_the_percentile_where_it_is_known() -> None:
    known = calibration()
    score = np.zeros((50, 60), np.float32)
    body = np.ones(score.shape, bool)
    percentiles = (50.0, 89.0, 95.0, 99.0, 99.9)
    for i, percentile in enumerate(percentiles):
        score[10 * i : 10 * i + 10] = known.score_at(percentile)
    drawn = draw_overlay(GREY, score, body, None, known).astype(int)
    changes = np.abs(drawn - 100).sum(axis=2)[5::10, 30]
    assert changes[0] == changes[1] == 0
    assert (np.diff(changes[1:]) > 0).all()
    # Green alone tells them apart, so that nobody needs to see colours.
    assert (np.diff(drawn[25::10, 30, 1]) > 0).all()
    # Without a calibration the same map is shown up to its highest score.
    assert np.abs(draw_overlay(GREY, score, body).astype(int) - 100)[45, 30].max() > 50


def test_an_even_map_and_an_empty_body_can_be_drawn() -> None:
    flat = np.ones((50, 60), np.float32)
    for body in (np.zeros(flat.shape, bool), np.ones(flat.shape, bool)):
        np.testing.assert_array_equal(draw_overlay(GREY, flat, body, 2.0), GREY)


def test_16_bits_are_scaled_by_their_values() -> None:
    values = np.array([[[1000, 3000], [2000, 3000]]], np.uint16)
    np.testing.assert_array_equal(shown_pixels(values)[..., 0], [[0, 255], [128, 255]])
    eight = np.array([[[10, 30], [20, 30]]], np.uint8)
    np.testing.assert_array_equal(shown_pixels(eight)[..., 2], eight[0])


def test_another_threshold_draws_the_overlay_anew(tmp_path: Path) -> None:
    images = some_pictures(tmp_path / "in", 1)
    out = tmp_path / "out"
    run(images, out)
    overlay = out / "p00_overlay.png"
    first, stamp = overlay.read_bytes(), (out / "p00.tif").stat().st_mtime_ns
    made = overlay.stat().st_mtime_ns
    run(images, out)
    assert overlay.stat().st_mtime_ns == made
    run(images, out, replace(REQUEST, threshold=30.0))
    assert overlay.read_bytes() != first and (out / "p00.tif").stat().st_mtime_ns == stamp


def test_what_is_not_made_of_a_kind_is_refused() -> None:
    with pytest.raises(ScreenerError, match="--dicom: DICOM objects have to refer to a DICOM"):
        replace(REQUEST, asked=("dicom",))
    with pytest.raises(ScreenerError, match="--overlay: maps are drawn over pictures, and these"):
        OutputRequest(("overlay",))
    with pytest.raises(ScreenerError, match="--min_px -1: the smallest area"):
        replace(REQUEST, minimum_ml=-0.999)


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_files_of_labels_are_known_by_the_ends_of_their_names() -> None:
    endings = [end for end in product_endings() if end.endswith(".nii.gz")]
    assert endings
    assert {end.removesuffix(".nii.gz") for end in endings} <= set(LABEL_NAMES)


def test_the_table_of_pictures(tmp_path: Path) -> None:
    images = some_pictures(tmp_path / "in", 4)
    images["broken"] = tmp_path / "in" / "broken.png"
    Path(str(images["broken"])).write_bytes(b"x")
    asked = replace(REQUEST, asked=("findings",), calibration=calibration(), minimum_ml=0.999)
    rows = rows_of(run(images, tmp_path / "out", asked))
    assert list(rows[0]) == [
        "case", "case_score", "case_percentile", "flag", "peak_score", "mean_score",
        "smoothed_score", "findings", "findings_not_listed", "findings_px", "problem",
    ]  # fmt: skip
    assert len(rows) == 5 and rows[-1]["case"] == "broken" and rows[-1]["flag"] == ""
    for row in rows[:-1]:
        assert row["flag"] == str(int(float(row["case_percentile"]) >= 95))
        score = tifffile.imread(tmp_path / "out" / f"{row['case']}.tif")
        body = skimage.io.imread(tmp_path / "out" / f"{row['case']}_body.png") > 0
        assert float(row["mean_score"]) == pytest.approx(score[body].mean(), abs=1e-4)
        assert float(row["smoothed_score"]) == pytest.approx(smoothed_score(score, body), abs=1e-4)
        assert float(row["mean_score"]) < float(row["smoothed_score"]) < float(row["peak_score"])
        assert int(row["findings_px"]) == (score[body] > 60).sum()
    scores = [float(row["case_score"]) for row in rows[:-1]]
    assert scores == sorted(scores, reverse=True)
    assert {row["flag"] for row in rows} == {"1", "0", ""}
    record = json.loads((tmp_path / "out" / f"{rows[0]['case']}.json").read_text())
    assert record["flag"] == 1


def test_a_record_of_an_earlier_version_has_a_flag_but_where_nothing_is_known(
    tmp_path: Path,
) -> None:
    for case, values in {"a": {"case_score": 3.0, "case_percentile": 95.0}, "b": {}}.items():
        (tmp_path / f"{case}.json").write_text(json.dumps({"case": case, "model": "m", **values}))
    assert [row["flag"] for row in rows_of(write_table(tmp_path, "ab", {}))] == ["1", ""]


def test_records_without_a_smoothed_score_stay_as_they_are(tmp_path: Path) -> None:
    """Those of an earlier version: no map is made again, and their cells are empty."""
    images, out = some_pictures(tmp_path / "in", 3), tmp_path / "out"
    first = rows_of(run(images, out))
    for path in out.glob("p*.json"):
        record = json.loads(path.read_text())
        del record["smoothed_score"]
        path.write_text(json.dumps(record))
    stamps = {
        path: path.stat().st_mtime_ns for end in ("tif", "json") for path in out.glob(f"p*.{end}")
    }
    table = run(images, out)
    assert len(stamps) == 6 and {path: path.stat().st_mtime_ns for path in stamps} == stamps
    rows = rows_of(table)
    assert {row.pop("smoothed_score") for row in rows} == {""}
    assert rows == [{k: v for k, v in row.items() if k != "smoothed_score"} for row in first]
    assert "smoothed_score" in read_case_scores(out).scores
    # A new one among them has it.
    images |= {"new": write(tmp_path / "in" / "new.png", seed=9)}
    rows = rows_of(run(images, out))
    assert [row["case"] for row in rows if row["smoothed_score"]] == ["new"]


def test_the_sheet_shows_both_ends_of_the_table(tmp_path: Path) -> None:
    images = some_pictures(tmp_path / "in", 7)
    table = run(images, tmp_path / "out")
    sheet = skimage.io.imread(table.with_name("contact_sheet.png"))
    assert sheet.shape[1] > 1200 and sheet.shape[2] == 3
    # Pictures are on the sheet as they are, beside their overlays, the highest one first.
    first = rows_of(table)[0]["case"]
    shown = sheet[44 : 44 + 220, 12 : 12 + 220]
    wanted = shown_pixels(read(images[first], first).array)
    high = round(220 * HEIGHT / WIDTH)
    top = (220 - high) // 2
    rows = ((np.arange(high) + 0.5) * HEIGHT / high).astype(int)
    columns = ((np.arange(220) + 0.5) * WIDTH / 220).astype(int)
    difference = np.abs(shown[top : top + high].astype(int) - wanted[rows][:, columns])
    assert np.median(difference) == 0
    overlay = skimage.io.imread(table.with_name(f"{first}_overlay.png"))
    beside = sheet[44 : 44 + 220, 12 + 222 : 12 + 442][top : top + high]
    assert np.median(np.abs(beside.astype(int) - overlay[rows][:, columns])) == 0


def test_a_resumed_run_makes_the_whole_sheet(tmp_path: Path) -> None:
    images = some_pictures(tmp_path / "in", 30)
    whole = run(images, tmp_path / "whole").with_name("contact_sheet.png")
    half = dict(list(images.items())[:15])
    smaller = run(half, tmp_path / "half").with_name("contact_sheet.png").read_bytes()
    resumed = run(images, tmp_path / "half").with_name("contact_sheet.png")
    assert resumed.read_bytes() == whole.read_bytes() != smaller
    # Of pictures that are no longer there the overlays are shown.
    run(half, tmp_path / "half")
    assert skimage.io.imread(resumed).shape == skimage.io.imread(whole).shape


def test_no_sheet_without_overlays(tmp_path: Path) -> None:
    images = some_pictures(tmp_path / "in", 2)
    table = run(images, tmp_path / "out", replace(REQUEST, asked=()))
    assert not table.with_name("contact_sheet.png").exists()
    assert len(rows_of(table)) == 2
