"""Pages of scans whose maps lie in files, and the index of a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from tqdm import tqdm

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.files import OutputError, remove_half_written_of
from screener_nnu.inference.images import find_images, kind_of
from screener_nnu.map_kind import PICTURES, SCANS, MapKind
from screener_nnu.ownership import own_folder
from screener_nnu.preprocessing.image_files import VOLUME_ENDINGS
from screener_nnu.preprocessing.modality import CT, PICTURE
from screener_nnu.preprocessing.pictures import is_picture
from screener_nnu.preprocessing.reading import Source, read_image
from screener_nnu.preprocessing.volumes import read_volume
from screener_nnu.score_units import NATS
from screener_nnu.viewer.findings import FindingsLike, read_findings
from screener_nnu.viewer.grid import image_of, to_lps
from screener_nnu.viewer.index import INDEX, CaseRow, page_name, write_index
from screener_nnu.viewer.preview import thumbnail, write_preview
from screener_nnu.viewer.scene import Percentile
from screener_nnu.viewer.write import write_viewer

logger = logging.getLogger(__name__)

_BODY = "_body"
# What stands near the beginning of every page, behind its style.
_MARK = b"<b>Research software, no medical device.</b> A map shows what is rare"
_HEAD = 1 << 16


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case.

    Attributes:
        case: name of the scan.
        image: the scan, a file or the folder of a DICOM series.
        score: its map.
        body: body mask, if there is one.
        findings: list (JSON) and labels, whichever there are.
    """

    case: str
    image: Source
    score: Path
    body: Path | None
    findings: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ViewOptions:
    """What is the same for all pages.

    Attributes:
        threshold: where the page's threshold starts; else that of the findings.
        percentile: place of a score among held-out scans, 0 to 100.
        model_name: shown beside the name of the case.
        title: heading of a single page, instead of the case's name.
        unit: of the scores, `none` where they have none; else that of the findings, else nats.
    """

    threshold: float | None = None
    percentile: Percentile | None = None
    model_name: str = ""
    title: str | None = None
    unit: str | None = None


def beside_map(score: Path, case: str, image: Source) -> CaseFiles:
    """A case whose body mask and findings lie where `screener_predict` writes them."""
    stem = next(
        (score.name[: -len(e)] for e in VOLUME_ENDINGS if score.name.lower().endswith(e)),
        score.stem,
    )
    labels = _kind_of(score).labels
    body = score.with_name(f"{stem}{_BODY}{labels}")
    listed = (score.with_name(f"{stem}_findings{ending}") for ending in (".json", labels))
    return CaseFiles(
        case,
        image,
        score,
        body if body.is_file() else None,
        tuple(path for path in listed if path.is_file()),
    )


def _kind_of(score: Path) -> MapKind:
    return PICTURES if score.suffix == PICTURES.map else SCANS


def find_cases(images: Path, maps: Path) -> tuple[list[CaseFiles], dict[str, str]]:
    """Cases of a folder of `screener_predict`: maps that have a body mask beside them.

    Returns:
        The cases, and why others have no page.

    Raises:
        ScreenerError: no map there, or no scan.
    """
    scans = find_images(images)
    kind = kind_of(scans)
    # Hidden ones are what a killed run left half written.
    files = (path.name for path in maps.glob(f"*{_BODY}{kind.labels}") if path.name[0] != ".")
    names = sorted(name.removesuffix(kind.labels) for name in files)
    cases = [name.removesuffix(_BODY) for name in names]
    known = set(cases)
    # The map of a scan called `whole_body` is no body mask of `whole`.
    cases = [
        case
        for case in cases
        if f"{case}{_BODY}" not in known or (maps / f"{case}{kind.map}").is_file()
    ]
    if not cases:
        raise ScreenerError(
            f"no map <case>{kind.map} with <case>{_BODY}{kind.labels} in {maps}, as of {kind.noun}s"
        )
    found, skipped = [], {}
    for case in cases:
        score = maps / f"{case}{kind.map}"
        if not score.is_file():
            skipped[case] = f"{score.name} is missing: predict the {kind.noun} again"
        elif case not in scans:
            skipped[case] = (
                f"no {kind.noun} of that name in {images}: give the folder of the {kind.noun}s"
            )
        else:
            found.append(beside_map(score, case, scans[case]))
    return found, skipped


def own_pages(folder: Path, pages: Sequence[Path] | None = None) -> None:
    """Puts a folder of pages under the rule of `ownership`.

    What an earlier version has written is ours where it holds the sentence of every page.

    Args:
        folder: of the pages.
        pages: those that are to be written, where it is known.

    Raises:
        ScreenerError: the index or one of the pages is there and not ours.
    """
    owned = own_folder(folder)
    there = [*folder.glob("*.html")] if pages is None else list(pages)
    ours = [page for page in there if page.is_file() and _MARK in page.read_bytes()[:_HEAD]]
    owned.adopt([*ours, *(page.with_suffix(".png") for page in ours)])
    wanted = [folder / INDEX] if pages is None else list(pages)
    wanted += [page.with_suffix(".png") for page in pages or ()]
    owned.refuse_foreign(wanted)
    remove_half_written_of(folder, [path.name for path in wanted])


def view_folder(
    images: Path, maps: Path, output: Path, options: ViewOptions
) -> tuple[list[CaseRow], Mapping[str, str]]:
    """Writes a page and a picture of each case, and `index.html`.

    Returns:
        The cases with a page, and why each other case has none.

    Raises:
        ScreenerError: there is no map, or no scan.
    """
    cases, skipped = find_cases(images, maps)
    rows = []
    noun = _kind_of(cases[0].score).noun if cases else SCANS.noun
    for files in tqdm(cases, desc="pages", unit=noun):
        try:
            rows.append(view_case(files, output / page_name(files.case), options))
        except OutputError:
            raise  # the next page would fare no better
        except CaseError as error:
            skipped[files.case] = error.reason
        except ScreenerError as error:
            skipped[files.case] = str(error)
        # Whatever else a damaged file brings about: the other cases are not to suffer from it.
        except (RuntimeError, OSError, ValueError, MemoryError) as error:
            skipped[files.case] = f"{type(error).__name__}: {error}"
    for case, reason in skipped.items():
        logger.warning("no page of %s: %s", case, reason)
    write_index(output, rows, skipped, noun)
    return rows, skipped


def view_case(files: CaseFiles, page: Path, options: ViewOptions) -> CaseRow:
    """Writes the page of one case and, beside it, its picture.

    Raises:
        CaseError: a file is unreadable, or they are not of one scan.
    """
    picture = isinstance(files.image, Path) and is_picture(files.image)
    image = image_of(read_image(files.image, files.case, PICTURE if picture else CT))
    score = read_volume(files.score, files.case)
    body = None if files.body is None else read_volume(files.body, files.case)
    findings = read_findings(files.findings, score, files.case) if files.findings else None
    return write_case(files.case, image, score, body, page, options, findings)


def write_case(
    case: str,
    image: sitk.Image,
    score: sitk.Image,
    body: sitk.Image | None,
    page: Path,
    options: ViewOptions,
    findings: FindingsLike | None = None,
) -> CaseRow:
    """Writes the page of one case and, beside it, its picture.

    Args:
        case: name of the scan.
        image: the scan (HU), any orientation.
        score: its map.
        body: body mask.
        page: HTML file; the picture has the same name and ends in `.png`.
        options: of all pages.
        findings: list and labels.

    Raises:
        CaseError: the images are not of one scan.
    """
    threshold = options.threshold
    if threshold is None:
        threshold = getattr(findings, "threshold", None)
    unit = options.unit or getattr(findings, "unit", None) or NATS
    shown = write_viewer(
        page,
        case,
        image,
        score,
        body,
        threshold,
        findings,
        options.percentile,
        options.title,
        options.model_name,
        unit,
    )
    write_preview(page.with_suffix(".png"), options.title or case, shown)
    peak = _peak(score, body)
    rank = None if options.percentile is None else options.percentile(peak)
    count = None if findings is None else len(findings.rows)
    return CaseRow(case, page, peak, rank, count, thumbnail(shown), unit)


def _peak(score: sitk.Image, body: sitk.Image | None) -> float:
    """Highest score in the body; both may be stored along other axes."""
    scores = sitk.GetArrayFromImage(to_lps(score)).astype(np.float32, copy=False)
    inside = True if body is None else sitk.GetArrayFromImage(to_lps(body)) > 0
    return float(np.max(scores, where=inside, initial=-np.inf))
