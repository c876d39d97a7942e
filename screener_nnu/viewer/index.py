"""The page that lists the pages of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from urllib.parse import quote

from screener_nnu.files import replacing
from screener_nnu.score_units import NATS, behind, in_brackets
from screener_nnu.viewer.page import asset, fill, plain, policy

INDEX = "index.html"
# Each row holds its picture, some 10 kB.
MOST_ROWS = 1000


@dataclass(frozen=True)
class CaseRow:
    """What the index says of a case.

    Attributes:
        case: name of the scan.
        page: its HTML file.
        peak: highest score in the body (in `unit`).
        percentile: of the peak among held-out scans, 0 to 100, if it is known.
        findings: how many there are, if they were looked for.
        thumbnail: picture as a data URI.
        unit: of the scores, `none` where they have none.
    """

    case: str
    page: Path
    peak: float
    percentile: float | None
    findings: int | None
    thumbnail: str
    unit: str = NATS


def page_name(case: str) -> str:
    """File name of a case's page; the index keeps its own."""
    return f"{case}_.html" if f"{case}.html".lower() == INDEX else f"{case}.html"


def write_index(
    folder: Path, rows: Iterable[CaseRow], skipped: Mapping[str, str], noun: str = "scan"
) -> Path:
    """Writes `index.html`, the highest peak first; of very many cases only those.

    Args:
        folder: of the pages.
        rows: cases that have a page there.
        skipped: why each of the other cases has none.
        noun: what a case is.
    """
    total = 0

    def counted() -> Iterator[CaseRow]:
        nonlocal total
        for row in rows:
            total += 1
            yield row

    # Each row holds a picture: no more of them are kept than are shown.
    ordered = nsmallest(MOST_ROWS, counted(), key=lambda row: (-row.peak, row.case))
    ranked = any(row.percentile is not None for row in ordered)
    listed = any(row.findings is not None for row in ordered)
    units = {row.unit for row in ordered} or {NATS}
    # Maps of several models may lie in one folder: then each peak has its own unit behind it.
    mixed = len(units) > 1
    peak = "peak score" if mixed else f"peak score{in_brackets(plain(min(units)))}"
    heads = [("", ""), ("case", ""), (peak, "")]
    heads += [("percentile", "")] if ranked else []
    heads += [("findings", "wide")] if listed else []
    first = "" if len(ordered) == total else f"the first {len(ordered)} of "
    style, shown = asset("index.css"), "Axial slice of" if noun == "scan" else noun.capitalize()
    values = {
        "policy": policy(style),
        "style": style,
        "note": f"{first}{total} {noun}s, the one with the rarest place first.",
        "head": "".join(f'<th scope="col"{_kind(kind)}>{name}</th>' for name, kind in heads),
        "rows": "\n".join(_row(row, ranked, listed, mixed, shown) for row in ordered),
        "skipped": _skipped(skipped),
    }
    path = folder / INDEX
    with replacing(path) as temporary:
        temporary.write_text(fill(asset("index.html"), values), encoding="utf-8")
    return path


def _row(row: CaseRow, ranked: bool, listed: bool, mixed: bool, shown: str) -> str:
    link = plain(quote(row.page.name.encode("utf-8", "surrogateescape")))
    name = plain(row.case)
    cells = [
        f'<td><a href="{link}"><img src="{row.thumbnail}" alt="{shown} {name}"></a></td>',
        f'<td><a href="{link}"><bdi>{name}</bdi></a></td>',
        f"<td>{row.peak:.1f}{plain(behind(row.unit)) if mixed else ''}</td>",
    ]
    if ranked:
        cells.append(f"<td>{_rank(row.percentile)}</td>")
    if listed:
        count = "&ndash;" if row.findings is None else row.findings
        cells.append(f'<td class="wide">{count}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _rank(percentile: float | None) -> str:
    if percentile is None:
        return "&ndash;"
    # As on the pages: a rank of 100 would say that nothing can be rarer.
    return "&gt; 99.99" if percentile > 99.99 else f"{percentile:.2f}"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _skipped(skipped: Mapping[str, str]) -> str:
    if not skipped:
        return ""
    entries = "\n".join(
        f"<dt><bdi>{plain(case)}</bdi></dt><dd>{plain(reason)}</dd>"
        for case, reason in sorted(skipped.items())
    )
    return f"<h2>Without a page</h2>\n<dl>\n{entries}\n</dl>"
