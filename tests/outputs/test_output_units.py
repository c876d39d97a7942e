"""The unit of scores in all that is made of a map, and in the record of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import ScreenerError
from screener_nnu.inference.predict import AnomalyMap
from screener_nnu.outputs.extras import CaseExtras, page_rows, read_record
from screener_nnu.outputs.request import OutputRequest
from screener_nnu.preprocessing.reading import to_raw_image
from screener_nnu.viewer.index import write_index

REQUEST = OutputRequest(("findings", "page"), threshold=14.0, model="M")


def make(folder: Path, request: OutputRequest) -> CaseExtras:
    """Everything of one scan, a box of water with noise."""
    generator = np.random.default_rng(4)
    array = generator.normal(0, 50, (12, 20, 24)).astype(np.float32)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((3.0, 3.0, 4.0))
    score = sitk.Abs(image) / 10
    body = sitk.Cast(score >= 0, sitk.sitkUInt8)
    extras = CaseExtras(folder, request)
    extras.write("a", to_raw_image(image, "a"), AnomalyMap(score, body))
    assert extras.failures == {}
    return extras


def facts_of(page: Path) -> dict[str, Any]:
    text = page.read_text().partition('id="facts">')[2].partition("</script>")[0]
    return json.loads(text)


@pytest.mark.parametrize(
    ("unit", "on_page", "head"),
    [("nats", "nats", "peak score (nats)"), ("none", "", "peak score"), ("HU", "HU", "score (HU)")],
)
def test_all_that_is_made_has_the_unit_of_the_request(
    tmp_path: Path, unit: str, on_page: str, head: str
) -> None:
    make(tmp_path, replace(REQUEST, unit=unit))
    assert json.loads((tmp_path / "a_findings.json").read_text())["score_unit"] == unit
    assert facts_of(tmp_path / "a.html")["unit"] == on_page
    (row,) = page_rows(tmp_path, ["a"])
    assert row.unit == unit
    assert f"{head}</th>" in write_index(tmp_path, [row], {}).read_text()


def test_nats_leave_the_record_as_it_was_before_units(tmp_path: Path) -> None:
    extras = make(tmp_path, REQUEST)
    record = read_record(tmp_path, "a")
    assert record["base"] == [1, "M", None]
    assert sorted(record["page"]) == [
        "case",
        "findings",
        "page",
        "peak",
        "percentile",
        "thumbnail",
    ]
    assert extras.current("a")


def test_files_of_another_unit_are_made_anew(tmp_path: Path) -> None:
    make(tmp_path, REQUEST)
    other = CaseExtras(tmp_path, replace(REQUEST, unit="none"))
    assert not other.current("a")
    make(tmp_path, other.request)
    assert other.current("a") and not CaseExtras(tmp_path, REQUEST).current("a")


def test_a_missing_threshold_is_asked_for_in_no_unit() -> None:
    with pytest.raises(ScreenerError, match="as a number, or as p99.9") as caught:
        OutputRequest(("findings",), unit="none")
    assert "nats" not in str(caught.value)
