from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from screener_nnu.demo.page import render_page
from screener_nnu.demo.report import MethodRow, Picture, Report, ShownCase, TimedStep

PNG = b"\x89PNG picture"
VOID = {"meta", "img", "br", "hr", "link"}


def _row(method: str, auroc: float) -> MethodRow:
    return MethodRow(method, auroc, (auroc - 0.05, auroc + 0.05), 0.5, 0.3, 0.4)


@pytest.fixture
def report() -> Report:
    rows = [
        _row("student", 0.85),
        _row("teacher", 0.87),
        _row("untrained", 0.6),
        _row("hu_rarity", 0.7),
        _row("skin_depth", math.nan),
    ]
    return Report(
        introduction="Phantoms & figures",
        rows=rows,
        cases=[ShownCase("case <1>", [Picture(PNG, "CT, axial")] * 6)],
        curves=[Picture(PNG, "descriptor")],
        roc=Picture(PNG, "ROC"),
        fine_tuning={"student": 0.25, "scratch": math.nan},
        budget="5 epochs of 20 iterations",
        steps=[
            TimedStep("Predict", "screener_predict -o 'a<b>&c'", 65.0),
            TimedStep("Phantoms", "", 5.0),
        ],
        environment={"nnUNet_raw": "/tmp/a & b"},
        reasons={"spacing": "144 mm < 200 mm"},
        versions={"Python": "3.11"},
        colours=["#000000", "#ffffff"],
    )


class _Reader(HTMLParser):
    """Checks that tags close in order; keeps texts, tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def test_page_is_well_formed_and_needs_nothing_else(report: Report) -> None:
    page = render_page(report)
    reader = _read(page)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", page))
    addresses = [
        value for _, attrs in reader.tags for key, value in attrs.items() if key in ("src", "href")
    ]
    assert addresses and all((a or "").startswith("data:image/png;base64,") for a in addresses)
    assert "script" not in {tag for tag, _ in reader.tags}


def test_every_method_has_a_row_in_order_of_auroc(report: Report) -> None:
    page = render_page(report)
    rows = re.findall(r'<tr class="(\w+)"><td>(\w+)<small>.*?</small></td><td>([^<]*)', page)
    assert rows == [
        ("screener", "teacher", "0.870"),
        ("screener", "student", "0.850"),
        ("baseline", "hu_rarity", "0.700"),
        ("control", "untrained", "0.600"),
        ("baseline", "skin_depth", "&ndash;"),
    ]
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S).lower()


def test_names_are_escaped_and_read_back(report: Report) -> None:
    odd = replace(report, rows=[*report.rows, _row("<b>mine</b>", 0.5)])
    texts = _read(render_page(odd)).texts
    for wanted in ("<b>mine</b>", "case <1>", "screener_predict -o 'a<b>&c'", "144 mm < 200 mm"):
        assert wanted in texts
    assert 'export nnUNet_raw="/tmp/a & b"' in texts


def test_times_commands_and_fine_tuning_are_shown(report: Report) -> None:
    texts = _read(render_page(report)).texts
    assert {"1 min 5 s", "5 s", "1 min 10 s", "0.250"} <= set(texts)
    assert any("no result" in text for text in texts)


@pytest.mark.parametrize(
    ("student", "baseline", "wanted"),
    [
        (0.85, 0.7, ["is above the strongest baseline", "0.020 below", "within the tolerated"]),
        (0.80, 0.9, ["is not above the strongest baseline", "0.070 below", "more than the tol"]),
        (0.88, 0.7, ["0.010 above its teacher."]),
    ],
)
def test_verdict_says_what_came_out(
    report: Report, student: float, baseline: float, wanted: list[str]
) -> None:
    rows = [_row("student", student), _row("hu_rarity", baseline), *report.rows[1:3]]
    verdict = replace(report, rows=rows).verdict
    assert all(text in verdict for text in wanted)
    assert "learning gains 0.270" in verdict


def test_page_without_fine_tuning_and_pictures(report: Report) -> None:
    bare = replace(report, fine_tuning={}, cases=[], roc=None, curves=[], rows=report.rows[:1])
    assert "Fine-tuning" not in "".join(_read(render_page(bare)).texts)
