"""Folders: a page a case, an index of all, and broken cases beside good ones."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import ScreenerError
from screener_nnu.viewer.folder import ViewOptions, beside_map, view_case, view_folder
from screener_nnu.viewer.index import page_name

NAMES = ("good", "index", "50% of <b>&#'a'", "ünï cödé")


@pytest.fixture
def folders(phantom: Any, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Scans, maps and pages of cases with odd names."""
    scans, maps = tmp_path / "scans", tmp_path / "maps"
    for folder in (scans, maps):
        folder.mkdir()
    for rank, name in enumerate(NAMES):
        sitk.WriteImage(phantom.image, str(scans / f"{name}_0000.nii.gz"))
        sitk.WriteImage(phantom.score + rank, str(maps / f"{name}.nii.gz"))
        sitk.WriteImage(phantom.body, str(maps / f"{name}_body.nii.gz"))
        sitk.WriteImage(phantom.body, str(maps / f"{name}_mask.nii.gz"))
    return scans, maps, tmp_path / "pages"


@pytest.mark.parametrize("code", ["RAS", "ARI", "SPL"])
def test_scans_stored_in_other_directions_show_the_same(
    phantom: Any, tmp_path: Path, read_page: Any, code: str
) -> None:
    turned, pages = phantom.turned(code), []
    mixed = dataclasses.replace(turned, body=phantom.body)
    for name, scan in (("a", phantom), ("b", turned), ("c", mixed)):
        paths = [tmp_path / f"{name}{part}.nii.gz" for part in ("_0000", "", "_body")]
        for image, path in zip((scan.image, scan.score, scan.body), paths, strict=True):
            sitk.WriteImage(image, str(path))
        page = tmp_path / f"{name}.html"
        row = view_case(beside_map(paths[1], name, paths[0]), page, ViewOptions())
        assert row.peak == 30.0
        pages.append(read_page(page))
    for page in pages[1:]:
        for kind in ("hu", "score"):
            assert (pages[0].codes(kind) == page.codes(kind)).all()
        np.testing.assert_allclose(pages[0].facts["origin"], page.facts["origin"], atol=1e-4)
        assert pages[0].facts["peak"] == page.facts["peak"]


def links(page: Any) -> list[str]:
    return [unquote(attributes["href"]) for tag, attributes in page.tags if tag == "a"]


def test_each_case_has_a_page_and_the_index_leads_there(
    folders: tuple[Path, Path, Path], read_page: Any
) -> None:
    scans, maps, pages = folders
    rows, skipped = view_folder(scans, maps, pages, ViewOptions())
    assert not skipped and {row.case for row in rows} == set(NAMES)
    index = read_page(pages / "index.html")
    assert len(links(index)) == 2 * len(NAMES) and not index.scripts
    # The highest peak first; it rises with the place in the list.
    assert links(index)[::2] == [page_name(name) for name in reversed(NAMES)]
    for name in NAMES:
        page = read_page(pages / page_name(name))
        assert page.text["title"] == name
        assert (pages / page_name(name)).with_suffix(".png").stat().st_size > 10_000
    assert [row.peak for row in rows if row.case == "good"] == [30.0]


def test_findings_beside_the_map_are_shown(
    folders: tuple[Path, Path, Path], phantom: Any, read_page: Any
) -> None:
    scans, maps, pages = folders
    sitk.WriteImage(
        sitk.Cast(phantom.score > 20, sitk.sitkUInt8), str(maps / "good_findings.nii.gz")
    )
    point = phantom.image.TransformIndexToPhysicalPoint(phantom.rare)
    row = {"number": 1, "volume_ml": 0.3, "peak_score": 30, "mean_score": 29, "centre_mm": point}
    (maps / "good_findings.json").write_text(json.dumps({"threshold": 21, "findings": [row]}))
    rows, _ = view_folder(scans, maps, pages, ViewOptions())
    assert {row.case: row.findings for row in rows} == {**dict.fromkeys(NAMES), "good": 1}
    facts = read_page(pages / "good.html").facts
    assert facts["findings"][0]["voxel"] == list(phantom.rare) and facts["threshold"] == 21


def test_one_broken_case_never_stops_the_rest(
    folders: tuple[Path, Path, Path], phantom: Any, read_page: Any
) -> None:
    scans, maps, pages = folders
    for name in ("truncated", "moved", "no_scan", "no_map", "flat", "bad_table", "nan"):
        sitk.WriteImage(phantom.image, str(scans / f"{name}.nii.gz"))
        sitk.WriteImage(phantom.score, str(maps / f"{name}.nii.gz"))
        sitk.WriteImage(phantom.body, str(maps / f"{name}_body.nii.gz"))
    (maps / "truncated.nii.gz").write_bytes((maps / "good.nii.gz").read_bytes()[:2000])
    moved = sitk.Image(phantom.image)
    moved.SetOrigin((500.0, 0.0, 0.0))
    sitk.WriteImage(moved, str(scans / "moved.nii.gz"))
    (scans / "no_scan.nii.gz").unlink()
    (maps / "no_map.nii.gz").unlink()
    sitk.WriteImage(phantom.body[:, :, 3], str(maps / "flat.nii.gz"))
    (maps / "bad_table_findings.json").write_text("{")
    sitk.WriteImage(phantom.score * np.nan, str(maps / "nan.nii.gz"))
    rows, skipped = view_folder(scans, maps, pages, ViewOptions())
    assert {row.case for row in rows} == set(NAMES)
    expected = {
        "truncated": "cut short",
        "moved": "beside the scan",
        "no_scan": "no scan of that name",
        "no_map": "is missing",
        "flat": "the image is 2D",
        "bad_table": "no list of findings",
        "nan": "NaN",
    }
    assert skipped.keys() == expected.keys()
    text = read_page(pages / "index.html").text
    for case, reason in expected.items():
        assert reason in skipped[case], case
        assert reason in text["dd"]
    assert not list(pages.glob(".*"))


def test_a_folder_without_maps_is_refused(folders: tuple[Path, Path, Path]) -> None:
    scans, _, pages = folders
    with pytest.raises(ScreenerError, match="no map <case>.nii.gz with <case>_body.nii.gz"):
        view_folder(scans, scans, pages, ViewOptions())


def peak_cells(index: Path) -> tuple[str, list[str]]:
    """Head and cells of the third column, read by patterns of their own."""
    source = index.read_text()
    head = re.findall(r"<th [^>]*>([^<]*)</th>", source)[2]
    return head, re.findall(r"<td>([^<]*)</td>", source)


def test_the_index_names_the_unit_of_all_maps(folders: tuple[Path, Path, Path]) -> None:
    scans, maps, pages = folders
    peaks = ["33.0", "32.0", "31.0", "30.0"]
    for unit, head in ((None, "peak score (nats)"), ("none", "peak score"), ("<b>", "(&lt;b&gt;)")):
        view_folder(scans, maps, pages, ViewOptions(unit=unit))
        shown, cells = peak_cells(pages / "index.html")
        assert shown.endswith(head) and cells == peaks


def test_maps_of_several_units_have_them_behind_their_peaks(
    folders: tuple[Path, Path, Path], read_page: Any
) -> None:
    scans, maps, pages = folders
    for name, unit in (("good", "none"), ("index", "HU")):
        values = {"score_unit": unit, "findings": []}
        (maps / f"{name}_findings.json").write_text(json.dumps(values))
    view_folder(scans, maps, pages, ViewOptions())
    head, cells = peak_cells(pages / "index.html")
    assert head == "peak score" and cells == ["33.0 nats", "32.0 nats", "31.0 HU", "30.0"]
    units = [read_page(pages / page_name(name)).facts["unit"] for name in NAMES]
    assert units == ["", "HU", "nats", "nats"]
    # What is said wins over what the files say.
    view_folder(scans, maps, pages, ViewOptions(unit="none"))
    assert peak_cells(pages / "index.html") == ("peak score", ["33.0", "32.0", "31.0", "30.0"])
