"""Pages read back without the code that wrote them."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import CaseError
from screener_nnu.viewer.findings import ShownFindings, measure_findings
from screener_nnu.viewer.write import write_viewer

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a\" onload='x' & {{script}} <!-- ",
    "-->]]></title><b>",
    "\u202egpj\udcff\x00 ${1}",
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "page.html"


@pytest.mark.parametrize("code", ["LPS", "RAS", "PIR", "ARI"])
def test_volumes_of_a_page_are_the_scan_and_its_map(
    phantom: Any, read_page: Any, target: Path, code: str
) -> None:
    scan = phantom.turned(code)
    write_viewer(target, "a", scan.image, scan.score, scan.body)
    page = read_page(target)
    hu, score, body = (
        sitk.GetArrayFromImage(i).astype(float)
        for i in (phantom.image, phantom.score, phantom.body)
    )
    assert page.facts["size"] == [40, 30, 25] and page.facts["spacing"] == [2.0, 2.0, 3.0]
    np.testing.assert_allclose(page.facts["origin"], phantom.image.GetOrigin(), atol=1e-6)
    assert (np.abs(page.hu() - hu) <= page.step(hu) / 2).all()
    shown = page.score()
    assert (np.isnan(shown) == (body == 0)).all()
    half = (page.facts["high"] - page.facts["low"]) / 254 / 2
    clipped = np.clip(score, page.facts["low"], None)
    np.testing.assert_allclose(shown[body > 0], clipped[body > 0], atol=1.01 * half)
    x, y, z = page.facts["peak"]
    assert shown[z, y, x] == np.nanmax(shown)


def test_a_large_scan_is_resampled_as_simpleitk_does_it(read_page: Any, target: Path) -> None:
    generator = np.random.default_rng(2)
    coarse = generator.normal(0, 200, (6, 40, 50))
    hu = np.repeat(np.repeat(coarse, 9, 1), 9, 2).astype(np.int16)  # 450 x 360
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((0.7, 0.7, 4.0))
    score = sitk.Cast(image, sitk.sitkFloat32) / 100
    write_viewer(target, "a", image, score, None)
    page = read_page(target)
    assert page.facts["size"] == [256, 205, 6]
    like = sitk.Image(page.facts["size"], sitk.sitkFloat32)
    like.SetSpacing(page.facts["spacing"])
    like.SetOrigin(page.facts["origin"])
    expected = sitk.GetArrayFromImage(
        sitk.Resample(sitk.Cast(image, sitk.sitkFloat32), like, sitk.Transform(), sitk.sitkLinear)
    )
    assert (np.abs(page.hu() - expected) <= page.step(expected) / 2 + 1e-3).all()


def test_a_page_keeps_to_the_bytes_it_may_have(read_page: Any, target: Path) -> None:
    generator = np.random.default_rng(3)
    image = sitk.GetImageFromArray(generator.normal(0, 60, (60, 80, 80)).astype(np.float32))
    sizes = []
    for most in (10_000_000, 250_000):
        write_viewer(target, "a", image, image, None, most_bytes=most)
        assert target.stat().st_size <= most
        sizes.append(np.prod(read_page(target).facts["size"]))
    assert sizes[0] == 60 * 80 * 80 and sizes[0] / 10 < sizes[1] < sizes[0] / 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_whatever_stands_in_it(
    phantom: Any, read_page: Any, target: Path, name: str
) -> None:
    write_viewer(target, "plain", phantom.image, phantom.score, phantom.body)
    plain = read_page(target)
    write_viewer(target, name, phantom.image, phantom.score, phantom.body, model_name=name)
    page = read_page(target)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert page.scripts == plain.scripts and page.facts == plain.facts
    readable = name.encode("utf-8", "replace").decode()
    assert page.text["title"] == readable
    assert page.text["bdi"] == 2 * readable


def test_a_page_asks_for_nothing_and_runs_nothing_else(
    phantom: Any, read_page: Any, target: Path
) -> None:
    write_viewer(target, "a", phantom.image, phantom.score, phantom.body)
    page = read_page(target)
    for tag, attributes in page.tags:
        assert not {"src", "href", "action"} & attributes.keys(), tag
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        assert tag not in ("link", "base", "iframe", "object")
    for text in (*page.scripts, page.text["style"]):
        assert not any(word in text for word in ("http:", "https:", "fetch(", "url(", "import "))
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    assert parts["default-src"] == "'none'"
    for name, text in (("script-src", page.scripts[0]), ("style-src", page.text["style"])):
        assert parts[name] == f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
    assert len(page.scripts) == 1


def test_nothing_of_the_patient_is_taken_along(phantom: Any, target: Path) -> None:
    image = sitk.Image(phantom.image)
    image.SetMetaData("0010|0010", "DOE^JANE")
    image.SetMetaData("0010|0030", "19470203")
    write_viewer(target, "case_7", image, phantom.score, phantom.body)
    text = target.read_text()
    assert "DOE" not in text and "19470203" not in text and str(target.parent) not in text


def test_the_same_scan_gives_the_same_page(phantom: Any, tmp_path: Path) -> None:
    pages = [tmp_path / name for name in ("a.html", "b.html")]
    for page in pages:
        write_viewer(page, "case", phantom.image, phantom.score, phantom.body)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_percentiles_are_those_of_the_body_or_of_normal_scans(
    phantom: Any, read_page: Any, target: Path
) -> None:
    write_viewer(target, "a", phantom.image, phantom.score, phantom.body)
    facts = read_page(target).facts
    score, body = (sitk.GetArrayFromImage(i) for i in (phantom.score, phantom.body))
    scores = np.linspace(facts["low"], facts["high"], 255)
    below = [100 * float((score[body > 0] < value - 1e-6).mean()) for value in scores]
    np.testing.assert_allclose(facts["percentiles"], below, atol=0.02)
    assert not facts["ranked"]
    write_viewer(
        target, "a", phantom.image, phantom.score, phantom.body, percentile=lambda s: min(s, 30) * 3
    )
    facts = read_page(target).facts
    np.testing.assert_allclose(facts["percentiles"], 3 * scores, atol=1e-3)
    assert facts["ranked"] and facts["colours"][0] == pytest.approx(25, abs=0.2)
    assert facts["threshold"] == pytest.approx(30, abs=0.2)  # no score reaches percentile 97.5


def test_findings_lead_to_their_peaks(phantom: Any, read_page: Any, target: Path) -> None:
    scan = phantom.turned("PIR")
    labels = sitk.Cast(scan.score > 20, sitk.sitkUInt16) * 3
    findings = ShownFindings(measure_findings(labels, scan.score), labels)
    write_viewer(target, "a", scan.image, scan.score, scan.body, 20.0, findings)
    page = read_page(target)
    (row,) = page.facts["findings"]
    assert row["number"] == 3 and row["volume_ml"] == pytest.approx(27 * 12 / 1000)
    assert np.abs(np.subtract(row["voxel"], phantom.rare)).max() <= 1
    expected = (sitk.GetArrayFromImage(phantom.score) > 20) * 3
    assert (page.codes("labels") == expected).all()
    assert page.facts["threshold"] == 20.0


def test_labels_beyond_a_byte_have_no_outline(phantom: Any, read_page: Any, target: Path) -> None:
    labels = sitk.Cast(phantom.score > 20, sitk.sitkUInt16) * 300
    findings = ShownFindings(measure_findings(labels, phantom.score), labels)
    write_viewer(target, "a", phantom.image, phantom.score, phantom.body, findings=findings)
    page = read_page(target)
    assert page.facts["findings"][0]["number"] == 300 and not page.codes("labels").any()


def test_what_cannot_be_shown_is_named(phantom: Any, target: Path) -> None:
    nothing = phantom.body * 0
    with pytest.raises(CaseError, match="a: the body mask is empty"):
        write_viewer(target, "a", phantom.image, phantom.score, nothing)
    broken = sitk.Cast(phantom.body, sitk.sitkFloat32) / 0.0
    with pytest.raises(CaseError, match="a: the map holds NaN"):
        write_viewer(target, "a", phantom.image, broken, phantom.body)
    with pytest.raises(CaseError, match="a: the body mask lies up to"):
        moved = sitk.Image(phantom.body)
        moved.SetOrigin((0.0, 0.0, 0.0))
        write_viewer(target, "a", phantom.image, phantom.score, moved)
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize(
    ("words", "shown"), [({}, "nats"), ({"unit": "none"}, ""), ({"unit": "HU"}, "HU")]
)
def test_the_script_is_told_the_unit(
    phantom: Any, read_page: Any, target: Path, words: dict[str, str], shown: str
) -> None:
    write_viewer(target, "a", phantom.image, phantom.score, phantom.body, **words)
    page = read_page(target)
    assert page.facts["unit"] == shown
    assert "nats" not in page.source.replace('"unit": "nats"', "")
