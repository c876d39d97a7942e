"""The page in a real browser: what the canvases show, and what wheel, mouse, touch and keys do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.viewer.colours import draw_slice
from screener_nnu.viewer.findings import ShownFindings, measure_findings
from screener_nnu.viewer.write import write_viewer

PIXELS = """
const canvas = document.getElementById(arguments[0]);
const context = canvas.getContext("2d");
const picture = context.getImageData(0, 0, canvas.width, canvas.height);
return [canvas.width, canvas.height, [...picture.data]];
"""
BUFFER = """
const { buffer } = views[arguments[0]];
return [...buffer.getContext("2d").getImageData(0, 0, buffer.width, buffer.height).data];
"""


@pytest.fixture(scope="module")
def scan(phantom: Any) -> Any:
    """The phantom, stored in an order that no viewer shows."""
    return phantom.turned("PIR")


@pytest.fixture(scope="module")
def page(scan: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with two findings: the rare place, and a box near the bright one."""
    x, y, z = scan.bright
    array = np.zeros((25, 30, 40), np.uint8)
    array[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3] = 2
    score = sitk.DICOMOrient(scan.score, "LPS")
    array[sitk.GetArrayFromImage(score) > 20] = 1
    labels = sitk.GetImageFromArray(array)
    labels.CopyInformation(score)
    labels = sitk.DICOMOrient(labels, "PIR")
    path = tmp_path_factory.mktemp("page") / "page.html"
    findings = ShownFindings(measure_findings(labels, scan.score), labels)
    write_viewer(path, "case", scan.image, scan.score, scan.body, 20.0, findings)
    return path


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    browser.open(page)
    browser.settle()
    browser.log()
    return browser


def position(browser: Any) -> list[int]:
    return [int(p) for p in browser.run("return document.body.dataset.position").split(",")]


def picture(browser: Any, plane: str) -> np.ndarray:
    """What a canvas shows, (rows, columns, 3)."""
    width, height, values = browser.run(PIXELS, plane)
    return np.reshape(values, (height, width, 4))[..., :3]


def coloured(pixels: np.ndarray, least: int = 60) -> int:
    """Number of pixels in the map's reds and yellows; those of low scores are duller."""
    red, _, blue = (pixels[..., i].astype(int) for i in range(3))
    return int(((red - blue) > least).sum())


def plain(browser: Any) -> None:
    """Takes away what is drawn over the slices."""
    for name in ("show-cross", "show-outlines"):
        browser.click(f"#{name}")


def shape_of(pixels: np.ndarray, low: int, high: int) -> tuple[float, float, float, float]:
    """Middle (column, row; parts of the canvas) and size (pixels) of what is that bright."""
    grey = (np.ptp(pixels.astype(int), axis=-1) < 8) & (pixels[..., 0] >= low)
    grey &= pixels[..., 0] <= high
    # Letters and ruler lie near the edges, the phantom's marks do not.
    grey[:24], grey[-24:], grey[:, :24], grey[:, -24:] = False, False, False, False
    rows, columns = np.nonzero(grey)
    assert rows.size > 30
    return (
        columns.mean() / pixels.shape[1],
        rows.mean() / pixels.shape[0],
        float(np.ptp(columns) + 1),
        float(np.ptp(rows) + 1),
    )


def test_it_opens_without_a_complaint_and_says_what_it_is(opened: Any) -> None:
    text = opened.run("return document.body.innerText")
    assert "Research software, no medical device." in text
    assert "A map shows what is rare, not what is ill." in text
    opened.click("summary")
    assert opened.log() == []


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("place", ["bright", "rare", (17, 3, 11)])
def test_slices_are_those_that_python_draws(
    opened: Any, scan: Any, tmp_path: Path, plane: str, place: Any
) -> None:
    """Each voxel of a slice, against NumPy on volumes that were never encoded."""
    voxel = getattr(scan, place) if isinstance(place, str) else place
    shown = write_viewer(tmp_path / "a.html", "a", scan.image, scan.score, scan.body, 20.0)
    expected = draw_slice(type(shown)(shown.volumes, voxel, shown.look), plane)
    opened.run("moveTo(arguments[0])", list(voxel))
    opened.settle()
    drawn = np.reshape(opened.run(BUFFER, plane), (*expected.shape[:2], 4))[..., :3]
    # 2.5 HU in 400, and half of a score's step.
    assert np.abs(drawn.astype(int) - expected.astype(int)).max() <= 3


def test_left_front_and_head_are_where_radiologists_look_for_them(opened: Any, scan: Any) -> None:
    plain(opened)
    opened.run("moveTo(arguments[0])", list(scan.bright))
    opened.settle()
    wanted = {"axial": (1, -1), "coronal": (1, -1), "sagittal": (-1, -1)}
    for plane, (across, down) in wanted.items():
        column, row, _, _ = shape_of(picture(opened, plane), 245, 255)
        assert np.sign(column - 0.5) == across and np.sign(row - 0.5) == down, plane
    letters = opened.run("return Object.values(PLANES).map((p) => p.letters)")
    assert letters == ["RLAP", "RLHF", "APHF"]


def test_a_millimetre_is_equally_long_in_all_directions(opened: Any, scan: Any) -> None:
    plain(opened)
    opened.run("moveTo([20, 15, 12])")
    opened.settle()
    sides = {"axial": (64, 48), "coronal": (64, 63), "sagittal": (48, 63)}
    for plane, (wide, high) in sides.items():
        _, _, width, height = shape_of(picture(opened, plane), 122, 134)
        assert width / height == pytest.approx(wide / high, rel=0.04), plane


def test_the_wheel_and_keys_scroll_to_feet_back_and_left(opened: Any, scan: Any) -> None:
    x, y, z = scan.rare
    opened.run("moveTo(arguments[0])", [x, y, z])
    opened.settle()
    opened.wheel("#axial", 120)
    assert position(opened) == [x, y, z - 1]
    opened.wheel("#axial", -120)
    opened.wheel("#coronal", 120)
    opened.wheel("#sagittal", 120)
    assert position(opened) == [x + 1, y + 1, z]
    opened.keys("#coronal", "\ue013")  # arrow up
    assert position(opened) == [x + 1, y, z]
    opened.keys("#axial", "\ue00e")  # page up
    assert position(opened) == [x + 1, y, z + 10]
    opened.keys("#axial", "\ue010")  # end
    assert position(opened) == [x + 1, y, 0]
    text = opened.run("return document.querySelector('[data-plane=axial] .slice').textContent")
    assert text == "25 / 25"
    opened.keys("[data-plane=axial] input", "\ue012")  # the slider, arrow left
    assert position(opened) == [x + 1, y, 1]


def test_a_click_takes_all_planes_there(opened: Any) -> None:
    opened.run("moveTo([20, 15, 12])")
    opened.settle()
    box = opened.run("return views.axial.box")
    # From the middle of the canvas: 20 mm to the left of the patient, 12 mm to the front.
    opened.drag("#axial", (round(20 * box["scale"]), -round(12 * box["scale"])), (0, 0))
    x, y, z = position(opened)
    assert abs(x - (19.5 + 10)) <= 1 and abs(y - (14.5 - 6)) <= 1 and z == 12
    box = opened.run("return views.sagittal.box")
    opened.drag("#sagittal", (round(10 * box["scale"]), -round(15 * box["scale"])), (0, 0))
    assert position(opened)[0] == x
    assert abs(position(opened)[1] - (14.5 + 5)) <= 1 and abs(position(opened)[2] - (12 + 5)) <= 1


def test_the_mouse_reads_without_moving_the_planes(opened: Any, scan: Any) -> None:
    opened.run("moveTo(arguments[0])", [20, 15, scan.bright[2]])
    opened.settle()
    before, scale = position(opened), opened.run("return views.axial.box.scale")
    across, down = (2 * (scan.bright[axis] - middle) for axis, middle in ((0, 19.5), (1, 14.5)))
    opened.hover("#axial", (round(across * scale), round(down * scale)))
    read = "return ['hu', 'place'].map((n) => document.getElementById('read-' + n).textContent)"
    x, y, z = sitk.DICOMOrient(scan.image, "LPS").TransformIndexToPhysicalPoint(scan.bright)
    assert (x, y, z) == (32, 24, -343) and opened.run(read) == ["720 HU", "L 32  P 24  F 343 mm"]
    assert position(opened) == before
    opened.hover("#planes + p", (0, 0))  # elsewhere, the crosshair is read
    assert opened.run(read)[0] == "40 HU"


def test_the_crosshair_is_read(opened: Any, scan: Any) -> None:
    opened.run("moveTo(arguments[0])", list(scan.rare))
    opened.settle()
    read = "return [...document.querySelectorAll('.readout b')].map((b) => b.textContent)"
    hu, score, place = opened.run(read)
    # All of the body, 32 x 24 x 21 voxels, but the mark's 27 lies below.
    assert hu == "40 HU" and score == f"30.0 nats, {100 - 2700 / (32 * 24 * 21):.2f} %"
    x, y, z = sitk.DICOMOrient(scan.image, "LPS").TransformIndexToPhysicalPoint(scan.rare)
    assert (x, y, z) == (-12, 56, -385) and place == "R 12  P 56  F 385 mm"
    opened.run("moveTo(arguments[0])", list(scan.bright))
    opened.settle()
    assert opened.run(read)[0] == "720 HU"  # bone has steps of 80 HU
    opened.run("moveTo([0, 0, 0])")
    opened.settle()
    # Air of -1000 HU is between two levels.
    assert opened.run(read)[:2] == ["-992 HU", "outside the body"]


def test_findings_are_listed_and_lead_there(opened: Any, scan: Any) -> None:
    assert position(opened) == pytest.approx(list(scan.rare), abs=1)  # starts at the first
    opened.click("tr[data-number='2']")
    assert position(opened) == pytest.approx(list(scan.bright), abs=2)
    assert opened.run("return document.querySelector('tr.chosen').dataset.number") == "2"
    opened.click("tr[data-number='1'] button")
    assert position(opened) == pytest.approx(list(scan.rare), abs=1)
    opened.keys("body", "n")
    assert position(opened) == pytest.approx(list(scan.bright), abs=2)
    cells = "return [...document.querySelectorAll('tr.chosen td')].map((d) => d.textContent)"
    assert opened.run(cells)[:2] == ["2", "1.50"]  # 125 voxels of 12 mm^3


def test_outlines_surround_a_finding(opened: Any, scan: Any) -> None:
    opened.click("#show-cross")
    opened.run("state.finding = null; moveTo(arguments[0])", list(scan.bright))
    opened.settle()
    with_lines = picture(opened, "axial").astype(int)
    opened.click("#show-outlines")
    changed = np.abs(with_lines - picture(opened, "axial")).max(axis=-1) > 40
    # The number stands above the outline; look at the columns and rows of the outline alone.
    box = opened.run("return views.axial.box")
    left, top = (
        box[start] + (scan.bright[axis] - 2) * 2 * box["scale"]
        for axis, start in enumerate(("left", "top"))
    )
    rows, columns = np.nonzero(changed[round(top) - 2 :])
    assert columns.min() == pytest.approx(left, abs=2)
    assert np.ptp(columns) == pytest.approx(10 * box["scale"], abs=4)
    assert np.ptp(rows) == pytest.approx(10 * box["scale"], abs=5)


def test_the_threshold_and_opacity_change_the_map(opened: Any, scan: Any) -> None:
    plain(opened)
    opened.run("moveTo(arguments[0])", list(scan.rare))
    opened.settle()
    shown = coloured(picture(opened, "axial"))
    box = opened.run("return views.axial.box")
    # The ruler is grey, letters are yellow: what is left is the mark of 6 x 6 mm.
    opened.click("#show-map")
    without = coloured(picture(opened, "axial"))
    mark = (6 * box["scale"]) ** 2
    assert shown - without == pytest.approx(mark, rel=0.3)
    opened.click("#show-map")
    low = opened.run("return document.getElementById('above').textContent")
    assert low.startswith("above: 0.3 ml, ")  # 27 voxels of 12 mm^3
    opened.keys("#threshold", "\ue011")  # home: everything in the body
    everything = coloured(picture(opened, "axial"), 20) - without
    assert everything == pytest.approx(64 * 48 * box["scale"] ** 2, rel=0.03)
    assert opened.run("return document.getElementById('above').textContent").endswith(
        "100.00 % of the body"
    )
    opened.keys("#opacity", "\ue011")
    assert coloured(picture(opened, "axial")) == without
    opened.run("document.getElementById('unit').value = 'percentile'")
    opened.keys("#threshold", "\ue010")
    threshold = float(opened.run("return document.body.dataset.threshold"))
    assert threshold > 29


def test_windows_are_set_by_button_key_and_drag(opened: Any) -> None:
    look = "return [state.look.width, state.look.level]"
    opened.click("#presets button:nth-child(2)")
    assert opened.run(look) == [1500, -600]
    assert opened.run("return document.getElementById('level').value") == "-600"
    opened.keys("body", "4")
    assert opened.run(look) == [80, 40]
    before = position(opened)
    opened.drag("#axial", (0, 0), (30, 20), button=2)
    assert opened.run(look) == [140, 80] and position(opened) == before
    opened.click("[name=tool][value=window]")
    opened.drag("#coronal", (10, 0), (-10, -5))
    assert opened.run(look) == [120, 70] and position(opened) == before
    opened.drag("#coronal", (10, 0), (0, 0))  # a click still points
    assert position(opened) != before
    plain(opened)
    opened.keys("body", "1")
    opened.run("moveTo([20, 15, 12])")
    opened.settle()
    opened.run("setWindow(400, -160)")  # 40 HU are at the upper end
    opened.settle()
    _, _, width, _ = shape_of(picture(opened, "axial"), 250, 255)
    assert width == pytest.approx(64 * opened.run("return views.axial.box.scale"), rel=0.04)


def test_one_plane_can_have_all_the_room(opened: Any) -> None:
    width = "return document.getElementById('coronal').clientWidth"
    before = opened.run(width)
    opened.click("[data-plane=coronal] .large")
    assert opened.run(width) > 2 * before
    assert opened.run("return document.getElementById('axial').clientWidth") == 0
    opened.click("[data-plane=coronal] .large")
    assert opened.run(width) == before


def test_a_phone_shows_one_plane_and_a_finger_scrolls(browser: Any, page: Path) -> None:
    browser.open(page, 390, 844, phone=True)
    browser.settle()
    browser.log()
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    assert browser.run("return document.getElementById('axial').clientWidth") > 340
    assert browser.run("return document.getElementById('coronal').clientWidth") == 0
    x, y, z = position(browser)
    browser.drag("#axial", (0, -50), (0, 80), kind="touch")
    moved = position(browser)
    assert moved[:2] == [x, y] and moved[2] < z
    browser.click("[data-show=sagittal]")
    assert browser.run("return document.getElementById('sagittal').clientWidth") > 340
    box = browser.run("return views.sagittal.box")
    browser.drag("#sagittal", (round(10 * box["scale"]), 0), (0, 0), kind="touch")
    assert abs(position(browser)[1] - 19.5) <= 1 and abs(position(browser)[2] - 12) <= 1
    assert browser.log() == []


def test_a_hostile_name_stays_text(browser: Any, scan: Any, tmp_path: Path) -> None:
    name = "</title><script>document.hacked=1</script><img src=x onerror='document.hacked=2'>"
    path = tmp_path / "page.html"
    write_viewer(path, name, scan.image, scan.score, scan.body, model_name=name)
    browser.open(path)
    assert browser.run("return document.hacked === undefined")
    assert browser.run("return document.querySelector('h1').textContent") == name
    assert browser.run("return document.title") == name
    # Even markup that got in would not run: the page's policy names its own script alone.
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'document.hacked = 3';"
        "document.body.append(s)"
    )
    assert browser.run("return document.hacked === undefined")
    browser.log()


def test_a_page_without_findings_leads_to_the_highest_score(
    browser: Any, scan: Any, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    write_viewer(path, "case", scan.image, scan.score, scan.body)
    browser.open(path)
    browser.settle()
    assert position(browser) == pytest.approx(list(scan.rare), abs=1)
    browser.run("moveTo([1, 1, 1])")
    browser.settle()
    browser.click("#peak")
    assert position(browser) == pytest.approx(list(scan.rare), abs=1)
    assert browser.run("return document.getElementById('show-outlines').offsetParent") is None


def test_an_incomplete_page_says_so(browser: Any, page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    start = text.index('id="hu">') + 8
    broken = tmp_path / "broken.html"
    broken.write_text(text[:start] + text[start + 400 :])
    browser._ask("POST", "/url", {"url": broken.as_uri()})
    browser.wait("return document.getElementById('message').textContent.includes('cannot be')")
    browser.log()


@pytest.mark.parametrize(
    ("unit", "shown", "choice", "note"),
    [
        ("nats", " nats", "nats", "Scores in nats, volumes in ml."),
        ("none", "", "score", "Volumes in ml."),
        ("<b>", " <b>", "<b>", "Scores in <b>, volumes in ml."),
    ],
)
def test_scores_stand_in_their_unit(
    browser: Any, scan: Any, tmp_path: Path, unit: str, shown: str, choice: str, note: str
) -> None:
    labels = sitk.Cast(scan.score > 20, sitk.sitkUInt8)
    findings = ShownFindings(measure_findings(labels, scan.score), labels)
    path = tmp_path / "page.html"
    write_viewer(path, "case", scan.image, scan.score, scan.body, 20.0, findings, unit=unit)
    browser.open(path)
    browser.settle()
    texts = {
        name: browser.run("return document.getElementById(arguments[0]).textContent", name)
        for name in ("read-score", "threshold-text", "bar-low", "bar-high", "findings-note")
    }
    low = browser.run("return state.facts.colours[0]")
    assert texts["read-score"].startswith(f"30.0{shown}, ")
    assert texts["threshold-text"].startswith(f"20.0{shown}, ")
    assert texts["bar-low"] == f"{low:.1f}{shown}"
    assert texts["bar-high"].endswith(f".0{shown} and more")
    assert texts["findings-note"] == f"{note} Click a row to go there."
    options = browser.run("return [...document.getElementById('unit').options].map((o) => o.text)")
    assert options == [choice, "percentile"]
    assert browser.log() == []
