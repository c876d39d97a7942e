"""Writes the page of one scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import CaseError
from screener_nnu.files import replacing
from screener_nnu.score_units import NATS
from screener_nnu.viewer.colours import Look, Shown
from screener_nnu.viewer.encoding import (
    HU_AXES,
    LABEL_AXES,
    SCORE_AXES,
    ScoreScale,
    encode_hu,
    pack,
)
from screener_nnu.viewer.findings import FindingsLike
from screener_nnu.viewer.grid import (
    Grid,
    Volumes,
    check_same_grid,
    page_grid,
    to_lps,
    volumes_on,
)
from screener_nnu.viewer.page import render_page
from screener_nnu.viewer.scene import CHANNELS, Percentile, levels_of, page_facts, rank_codes

# A page of this size opens in a second or two and still goes through most mail servers.
MOST_BYTES = 25_000_000
# Labels have one byte; findings beyond are listed, but have no outline.
_MOST_LABELS = 255
# Beyond this a score is the mark of a division by zero.
_HIGHEST_SCORE = 1e9


def write_viewer(
    path: Path,
    case: str,
    image: sitk.Image,
    score: sitk.Image,
    body: sitk.Image | None,
    threshold: float | None = None,
    findings: FindingsLike | None = None,
    percentile: Percentile | None = None,
    title: str | None = None,
    model_name: str = "",
    unit: str = NATS,
    most_bytes: int = MOST_BYTES,
) -> Shown:
    """Writes a page in which a person scrolls through a scan with its anomaly map.

    The page holds what is given here and nothing else of the scan's file.

    Args:
        path: HTML file, written whole or not at all.
        case: name of the scan, in messages and as the heading.
        image: the scan (HU), any orientation, or a picture.
        score: anomaly map (in `unit`) in the same geometry.
        body: above 0 where the map counts; everywhere if there is none.
        threshold: where the page's threshold starts (in `unit`).
        findings: table and labels; the page lists, outlines and jumps to them.
        percentile: place of a score among held-out scans, 0 to 100.
        title: heading instead of the case's name.
        model_name: shown beside it.
        unit: of the scores, `none` where they have none.
        most_bytes: voxels become larger until the page is that small.

    Returns:
        What the page shows first, for a preview.

    Raises:
        CaseError: map, body or labels are not of this scan, or there is nothing to show.
    """
    encoded = encode_case(case, image, score, body, findings, most_bytes)
    volumes, scale = encoded.volumes, encoded.scale
    ranks = rank_codes(scale, volumes.score[volumes.body], percentile)
    facts = page_facts(volumes, scale, ranks, threshold, findings, unit=unit)
    text = render_page(title or case, model_name, facts, encoded.data)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    voxel = facts["findings"][0]["voxel"] if facts["findings"] else facts["peak"]
    low, high = facts["colours"]
    window, palette = tuple(facts["window"]), facts["palette"]
    look = Look(facts["threshold"], (low, high), window, palette=palette)
    return Shown(volumes, tuple(voxel), look, unit)


@dataclass(frozen=True)
class Encoded:
    """Volumes, and their texts in a page: `hu`, of RGB also `green` and `blue`, and the others."""

    volumes: Volumes
    scale: ScoreScale
    data: dict[str, str]


def encode_case(
    case: str,
    image: sitk.Image,
    score: sitk.Image,
    body: sitk.Image | None,
    findings: FindingsLike | None = None,
    most_bytes: int = MOST_BYTES,
) -> Encoded:
    """What a page of at most so many bytes holds.

    Raises:
        CaseError: the images are not of one scan, or there is nothing to show.
    """
    image, score = to_lps(image), to_lps(score)
    body, labels = (
        None if other is None else to_lps(other)
        for other in (body, None if findings is None else findings.image)
    )
    # Compared in LPS: a scan that was read for prediction has it already, its map has the file's.
    for name, other in (("map", score), ("body mask", body), ("image of labels", labels)):
        if other is not None:
            check_same_grid(image, other, case, name)
    coarser = 1.0
    while True:
        grid = page_grid(Grid.of_image(image), coarser)
        volumes = volumes_on(grid, image, score, body, labels)
        _check_contents(volumes, case)
        scale = ScoreScale.of_scores(volumes.score[volumes.body])
        data = _pack(volumes, scale)
        # Script, style and table take a few ten thousand bytes.
        share = sum(map(len, data.values())) / (most_bytes - 100_000)
        if share <= 1 or max(grid.size) <= 16:
            return Encoded(volumes, scale, data)
        coarser *= 1.02 * share ** (1 / 3)


def _check_contents(volumes: Volumes, case: str) -> None:
    if not volumes.body.any():
        raise CaseError(case, "the body mask is empty: predict the scan again")
    # Written so that NaN is refused as well.
    if not (np.abs(volumes.score[volumes.body]) < _HIGHEST_SCORE).all():
        raise CaseError(case, "the map holds NaN or infinite scores: predict the scan again")


def _pack(volumes: Volumes, scale: ScoreScale) -> dict[str, str]:
    codes = encode_hu(volumes.hu, levels_of(volumes))
    grey_or_rgb = np.moveaxis(codes, -1, 0) if codes.ndim == 4 else codes[None]
    data = {name: "" for name in CHANNELS}
    data |= {n: pack(channel, HU_AXES) for n, channel in zip(CHANNELS, grey_or_rgb, strict=False)}
    data["score"] = pack(scale.encode(volumes.score, volumes.body), SCORE_AXES)
    data["labels"] = ""
    if volumes.labels is not None:
        labels = np.where(volumes.labels <= _MOST_LABELS, volumes.labels, 0).astype(np.uint8)
        data["labels"] = pack(labels, LABEL_AXES)
    return data
