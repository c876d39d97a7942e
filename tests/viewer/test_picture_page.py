"""Pages of pictures: one plane, true colours and values, places and areas in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.commands.view import main
from screener_nnu.errors import ScreenerError
from screener_nnu.findings import write_findings
from screener_nnu.preprocessing.image_files import write_image
from screener_nnu.viewer.colours import draw_slice
from screener_nnu.viewer.folder import ViewOptions, beside_map, view_case, view_folder
from screener_nnu.viewer.grid import image_of
from screener_nnu.viewer.write import write_viewer
from tests.made_pictures import HEIGHT, SPOT, WIDTH, predictor, read, write

BUFFER = """
const { buffer } = views.axial;
return [...buffer.getContext("2d").getImageData(0, 0, buffer.width, buffer.height).data];
"""
THRESHOLD = 60.0


def predicted(folder: Path, name: str = "a", **options: Any) -> tuple[Path, Path]:
    """A picture, and its map with body mask and findings in `maps`."""
    source = write(folder / "in" / f"{name}_0000.png", **options)
    result = predictor().predict(read(source, name))
    maps = folder / "maps"
    write_image(result.score, maps / f"{name}.tif")
    write_image(result.body, maps / f"{name}_body.png")
    write_findings(name, result.score, result.body, THRESHOLD, maps, minimum_ml=0.999)
    return source, maps


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 8), (1, 16), (3, 16)])
def test_a_page_holds_the_values_of_the_picture(
    tmp_path: Path, read_page: Any, channels: int, bits: int
) -> None:
    source, maps = predicted(tmp_path, channels=channels, bits=bits)
    page = tmp_path / "a.html"
    view_case(beside_map(maps / "a.tif", "a", source), page, ViewOptions())
    held = read_page(page)
    assert held.facts["picture"] and held.facts["size"] == [WIDTH, HEIGHT, 1]
    values = read(source, "a").array.reshape(channels, 1, HEIGHT, WIDTH)
    for name, wanted in zip(("hu", "green", "blue"), values, strict=False):
        shown = np.asarray(held.facts["levels"])[held.codes(name)]
        # Of 8 bits the very values; of 16 as near as 256 levels can be.
        np.testing.assert_allclose(shown, wanted, atol=0 if bits == 8 else 65535 / 255 / 2)
    assert bool(held.data["green"].strip()) == (channels == 3)
    width, level = held.facts["window"]
    if bits == 8:
        assert (width, level) == (255, 127.5)
    else:
        assert level - width / 2 == values.min() and level + width / 2 == values.max()
    assert page.with_suffix(".png").is_file()


def test_findings_of_a_picture_are_pixels(tmp_path: Path, read_page: Any) -> None:
    source, maps = predicted(tmp_path, channels=3)
    page = tmp_path / "a.html"
    files = beside_map(maps / "a.tif", "a", source)
    assert [p.name for p in files.findings] == ["a_findings.json", "a_findings.png"]
    assert files.body == maps / "a_body.png"
    row = view_case(files, page, ViewOptions())
    facts = read_page(page).facts
    (first, *_) = facts["findings"]
    result = predictor().predict(read(source, "a"))
    inside = sitk.GetArrayFromImage(result.score) > THRESHOLD
    inside &= sitk.GetArrayFromImage(result.body) > 0
    assert first["area_px"] == inside.sum() and "volume_ml" not in first
    assert first["voxel"] == facts["peak"] and row.findings == 1
    assert np.hypot(*(np.array(first["voxel"][:2]) - SPOT)) < 3
    # The labels alone give the same rows.
    (maps / "a_findings.json").unlink()
    view_case(beside_map(maps / "a.tif", "a", source), page, ViewOptions(threshold=THRESHOLD))
    (again,) = read_page(page).facts["findings"]
    assert (again["area_px"], again["voxel"]) == (first["area_px"], first["voxel"])


def test_a_folder_of_pictures(tmp_path: Path, read_page: Any) -> None:
    for name in ("a", "b"):
        _, maps = predicted(tmp_path, name, seed=ord(name))
    write_image(sitk.Image([3, 3, 1], sitk.sitkFloat32), maps / "c.tif")
    write_image(sitk.Image([3, 3, 1], sitk.sitkUInt8), maps / "c_body.png")
    rows, skipped = view_folder(tmp_path / "in", maps, tmp_path / "pages", ViewOptions())
    assert {row.case for row in rows} == {"a", "b"}
    assert "no picture of that name" in skipped["c"]
    index = read_page(tmp_path / "pages" / "index.html")
    assert "2 pictures, the one" in index.source and 'alt="Picture a"' in index.source
    with pytest.raises(ScreenerError, match=r"no map <case>\.tif with <case>_body\.png"):
        view_folder(tmp_path / "in", tmp_path / "in", tmp_path / "pages", ViewOptions())


def test_the_map_of_another_picture_has_no_page(tmp_path: Path) -> None:
    source, maps = predicted(tmp_path)
    write_image(sitk.Image([WIDTH, HEIGHT + 1, 1], sitk.sitkFloat32), maps / "a.tif")
    with pytest.raises(ScreenerError, match="give the scan that it was made from"):
        view_case(beside_map(maps / "a.tif", "a", source), tmp_path / "a.html", ViewOptions())


def test_large_pictures_become_coarser(tmp_path: Path, read_page: Any) -> None:
    pixels = np.zeros((1, 1500, 3000), np.float32)
    pixels[:, 700:, :] = 200
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((1, 1, 999))
    write_viewer(tmp_path / "a.html", "a", image, image, None)
    held = read_page(tmp_path / "a.html")
    assert held.facts["size"] == [1024, 512, 1]
    assert held.facts["spacing"] == pytest.approx([3000 / 1024, 1500 / 512, 999])
    shown = held.codes("hu")[0]
    assert (shown[:235] == 0).all() and (shown[245:] == 200).all()


def visible(browser: Any) -> list[str]:
    return browser.run(
        "return [...document.querySelectorAll('canvas, .tabs, .plane input, [name=tool]')]"
        ".filter((e) => e.offsetParent !== null).map((e) => e.id || e.value)"
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_browser_shows_one_plane_in_colour(tmp_path: Path, browser: Any, channels: int) -> None:
    source = write(tmp_path / "a.png", channels=channels)
    raw = read(source, "a")
    result = predictor().predict(raw)
    page = tmp_path / "a.html"
    findings = write_findings("a", result.score, result.body, THRESHOLD, tmp_path)
    shown = write_viewer(page, "a", image_of(raw), result.score, result.body, THRESHOLD, findings)
    browser.open(page)
    browser.settle()
    assert not [entry for entry in browser.log() if entry["level"] == "SEVERE"]
    assert visible(browser) == ["axial", "bar", "cross", "window"]
    drawn = np.reshape(browser.run(BUFFER), (HEIGHT, WIDTH, 4))[..., :3]
    assert np.abs(drawn - draw_slice(shown, "axial").astype(int)).max() <= 2
    browser.click("#show-map")
    drawn = np.reshape(browser.run(BUFFER), (HEIGHT, WIDTH, 4))[..., :3]
    values = np.moveaxis(raw.array.reshape(-1, HEIGHT, WIDTH), 0, -1)
    assert np.abs(drawn - values).max() <= 1
    text = browser.run("return document.body.innerText")
    x, y, _ = shown.voxel
    here = ", ".join(f"{value:.0f}" for value in values[y, x])
    assert f"{x}, {y} px" in text and f"here {here}" in text.replace("\n", " ")
    assert "Areas in pixels" in text or "areas in pixels" in text
    for word in (" ml", " HU", " mm", "Axial", "scroll"):
        assert word not in text, word


def test_the_command_shows_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, maps = predicted(tmp_path)
    page = tmp_path / "pages" / "a.html"
    main(["-i", str(source), "-m", str(maps / "a.tif"), "-o", str(page), "--unit", "none"])
    assert f"{page}: " in capsys.readouterr().out
    text = page.read_text()
    assert '"picture": true' in text and '"area_px": ' in text
