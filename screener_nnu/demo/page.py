"""Renders the report as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from importlib.resources import files

from screener_nnu.demo.report import CONTROL, SCREENER, MethodRow, Picture, Report
from screener_nnu.demo.terminal import broken_command, duration

_EXPLANATIONS = {
    "student": "the descriptor's UNet, which has learned to read the condition, and the density",
    "teacher": "descriptor with filters, condition and density",
    CONTROL: "control: the same, on networks with their initial weights",
    "hu_deviation": "distance of the HU value to the mean of the body",
    "hu_rarity": "how rare the HU value is in the training scans",
    "smoothed_hu_rarity": "the same after smoothing by 2 mm",
    "centre_distance": "far from the centre of the scan",
    "centre_proximity": "near the centre of the scan",
    "skin_depth": "deep under the skin",
    "skin_proximity": "near the skin",
}


def render_page(report: Report) -> str:
    """The whole page; pictures, style and text are inside."""
    style = files("screener_nnu.demo").joinpath("style.css").read_text(encoding="utf-8")
    body = "\n".join(
        [
            _header(report),
            _tiles(report),
            _results(report),
            _cases(report),
            _learning(report),
            _fine_tuning(report),
            _steps(report),
            _definitions("Why the plan is what it is", _REASONS_NOTE, report.reasons),
            _definitions("Versions", "", report.versions),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>screener_nnu demo</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


_REASONS_NOTE = (
    "Every setting is a function of the scans' fingerprint, the preset and the memory. "
    "The plan says why:"
)


def _header(report: Report) -> str:
    return (
        "<header>\n<h1>Anomalies in CT, found without a label</h1>\n"
        f'<p class="lead">{escape(report.introduction)}</p>\n</header>'
    )


def _tiles(report: Report) -> str:
    rows = [(f"{name}, AUROC", report.row(name)) for name in SCREENER]
    rows.append(("untrained networks, AUROC", report.row(CONTROL)))
    best = report.best_baseline
    if best:
        rows.append((f"best baseline ({best.method}), AUROC", best))
    tiles = [(_figure(row.auroc), label) for label, row in rows if row]
    tiles.append((duration(sum(step.seconds for step in report.steps)), "for everything"))
    cells = (f'<div class="tile"><b>{a}</b><span>{escape(b)}</span></div>' for a, b in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _results(report: Report) -> str:
    heads = ("method", "AUROC [95 %]", "AUROC, FPR < 0.3", "average precision", "best Dice")
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    rows = "\n".join(_table_row(row) for row in report.ranked)
    roc = f"<h3>Curves</h3>{_picture(report.roc)}" if report.roc else ""
    return (
        "<section>\n<h2>Results on the test scans</h2>\n"
        f'<p class="verdict">{escape(report.verdict)}</p>\n'
        f'<div class="wide"><table>\n<tr>{head}</tr>\n{rows}\n</table></div>\n'
        '<p class="note">All voxels of the body in all test scans, pooled; intervals by a '
        "bootstrap over scans. Best Dice has chosen its threshold on these very scans.</p>\n"
        f"{roc}</section>"
    )


def _table_row(row: MethodRow) -> str:
    kind = {CONTROL: "control"}.get(row.method, "baseline" if row.is_baseline else "screener")
    share = 100 * min(max(row.auroc, 0.0), 1.0) if math.isfinite(row.auroc) else 0.0
    interval = ""
    if all(math.isfinite(end) for end in row.interval):
        interval = f"<small>[{row.interval[0]:.3f}, {row.interval[1]:.3f}]</small>"
    others = (row.auroc_fpr30, row.average_precision, row.best_dice)
    cells = "".join(f"<td>{_figure(value)}</td>" for value in others)
    explanation = escape(_EXPLANATIONS.get(row.method, ""))
    return (
        f'<tr class="{kind}"><td>{escape(row.method)}<small>{explanation}</small></td>'
        f"<td>{_figure(row.auroc)}{interval}"
        f'<span class="bar"><i style="width:{share:.1f}%"></i></span></td>{cells}</tr>'
    )


def _cases(report: Report) -> str:
    if not report.cases:
        return ""
    parts = [
        f'<h3>{escape(case.title)}</h3>\n<div class="slices">'
        f"{''.join(map(_picture, case.pictures))}</div>"
        for case in report.cases
    ]
    colours = ", ".join(escape(colour) for colour in report.colours)
    legend = (
        '<p class="legend"><span>low<span class="scale" style="background:linear-gradient(90deg, '
        f'{colours})"></span>high anomaly score</span>'
        '<span><span class="outline"></span>annotated lesion (never shown in training)</span></p>'
    )
    return (
        "<section>\n<h2>Anomaly maps</h2>\n<p>Slices with the largest cut through a lesion. "
        "The colours of a method mean the same in all scans: transparent below the 80th, "
        "full at the 99.8th percentile of its scores in the bodies shown.</p>\n"
        f"{legend}\n" + "\n".join(parts) + "\n</section>"
    )


def _learning(report: Report) -> str:
    return (
        "<section>\n<h2>How the stages learned</h2>\n<p>Left the training loss, right the figure "
        "on validation scans; the dashed line is the network before training.</p>\n"
        f'<div class="curves">{"".join(map(_picture, report.curves))}</div>\n</section>'
    )


def _fine_tuning(report: Report) -> str:
    if not report.fine_tuning:
        return ""
    rows = "".join(
        f"<tr><td>{escape(start)}</td><td>{_figure(dice)}</td></tr>"
        for start, dice in report.fine_tuning.items()
    )
    return (
        "<section>\n<h2>Fine-tuning</h2>\n<p>The student's UNet fits stock nnU-Net, which was "
        f"started from it and from scratch, {escape(report.budget)} each. <b>This shows that the "
        "path works and is no result</b>: nnU-Net trains 1000 epochs of 250.</p>\n"
        '<div class="wide"><table><tr><th>start</th><th>mean validation Dice</th></tr>'
        f"{rows}</table></div>\n</section>"
    )


def _steps(report: Report) -> str:
    exports = "\n".join(f'export {key}="{value}"' for key, value in report.environment.items())
    items = "\n".join(
        f'<li><div class="step"><b>{escape(step.title)}</b>'
        f'<span class="time">{duration(step.seconds)}</span></div>'
        + (f"<pre>{escape(broken_command(step.command))}</pre>" if step.command else "")
        + "</li>"
        for step in report.steps
    )
    return (
        "<section>\n<h2>What was run</h2>\n<p>The same commands work on your own scans; without "
        "<code>-o</code> the plan's own schedules hold, with <code>--preset balanced</code> those "
        f"of a 24 GB GPU.</p>\n<pre>{escape(exports)}</pre>\n"
        f'<ol class="steps">\n{items}\n</ol>\n</section>'
    )


def _definitions(title: str, note: str, entries: Mapping[str, str]) -> str:
    text = f"<p>{escape(note)}</p>\n" if note else ""
    pairs = "\n".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries.items())
    return f"<section>\n<h2>{escape(title)}</h2>\n{text}<dl>\n{pairs}\n</dl>\n</section>"


def _picture(picture: Picture) -> str:
    data, caption = b64encode(picture.png).decode(), escape(picture.caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _figure(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "&ndash;"
