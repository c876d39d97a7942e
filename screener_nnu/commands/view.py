"""`screener_view`: pages in which a person scrolls through scans with their anomaly maps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from screener_nnu.commands._run import run, user_path

if TYPE_CHECKING:
    from screener_nnu.viewer.folder import ViewOptions


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="screener_view",
        description="Write an HTML page that shows a CT with its anomaly map, and a picture of "
        "it. The page needs a browser and nothing else. With folders: a page of each map and "
        "index.html. Research software, no medical device.",
    )
    parser.add_argument(
        "-i",
        dest="image",
        type=user_path,
        required=True,
        help="scan (file or DICOM folder), or scans",
    )
    parser.add_argument(
        "-m",
        dest="map",
        type=user_path,
        required=True,
        help="its map, or a folder of screener_predict",
    )
    parser.add_argument(
        "-o", dest="output", type=user_path, required=True, help="page.html, or a folder of pages"
    )
    parser.add_argument(
        "-b",
        dest="body",
        type=user_path,
        help="body mask (default: <map>_body.nii.gz, if it is there)",
    )
    parser.add_argument(
        "-f",
        dest="findings",
        type=user_path,
        nargs="+",
        help="findings: JSON, image of labels, or both (default: <map>_findings.json, .nii.gz)",
    )
    parser.add_argument(
        "--threshold", type=float, help="score at which the page's threshold starts"
    )
    parser.add_argument(
        "--unit",
        help="of the scores, none where they have none (default: that of the findings, else nats)",
    )
    parser.add_argument("--title", help="heading of a single page (default: name of the scan)")
    parser.add_argument("--model", default="", metavar="NAME", help="shown beside the heading")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.map.is_dir():
        if arguments.body or arguments.findings or arguments.title:
            parser.error("-b, -f and --title are of a single map: leave them out with a folder")
        run(lambda: _view_folder(arguments))
    else:
        run(lambda: _view_case(arguments))


def _options(arguments: argparse.Namespace) -> ViewOptions:
    from screener_nnu.viewer.folder import ViewOptions

    return ViewOptions(
        arguments.threshold,
        model_name=arguments.model,
        title=arguments.title,
        unit=arguments.unit,
    )


def _view_folder(arguments: argparse.Namespace) -> None:
    from screener_nnu.errors import ScreenerError
    from screener_nnu.viewer.folder import own_pages, view_folder

    options = _options(arguments)
    own_pages(arguments.output)
    rows, skipped = view_folder(arguments.image, arguments.map, arguments.output, options)
    print(f"{len(rows)} pages in {arguments.output}, {len(skipped)} scans skipped")
    if not rows:
        raise ScreenerError("no page could be written; the reasons stand above")


def _view_case(arguments: argparse.Namespace) -> None:
    from dataclasses import replace

    from screener_nnu.errors import ScreenerError
    from screener_nnu.files import refuse_missing
    from screener_nnu.inference.images import find_images
    from screener_nnu.score_units import behind
    from screener_nnu.viewer.folder import beside_map, own_pages, view_case

    for path in (arguments.map, arguments.body, *(arguments.findings or [])):
        if path is not None:
            refuse_missing(path)
    if arguments.output.suffix.lower() != ".html":
        raise ScreenerError(f"-o {arguments.output}: a page ends in .html")
    own_pages(arguments.output.parent, [arguments.output])
    images = find_images(arguments.image)
    if len(images) != 1:
        raise ScreenerError(f"{arguments.image} holds {len(images)} scans: give one, as the map is")
    case, image = next(iter(images.items()))
    files = beside_map(arguments.map, case, image)
    if arguments.body:
        files = replace(files, body=arguments.body)
    if arguments.findings:
        files = replace(files, findings=tuple(arguments.findings))
    row = view_case(files, arguments.output, _options(arguments))
    megabytes = arguments.output.stat().st_size / 1e6
    print(f"{arguments.output}: {megabytes:.1f} MB, peak {row.peak:.1f}{behind(row.unit)}")
