"""`screener_demo`: a whole small run on computed CT, no data needed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from screener_nnu.commands._run import run, user_path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="screener_demo",
        description="Compute CT phantoms, run every command on them with the cpu preset and show "
        "what came out in a page. Takes a quarter of an hour on two cores, and no data. A killed "
        "run goes on where it stopped.",
    )
    parser.add_argument(
        "-o",
        dest="output",
        type=user_path,
        default=Path("screener_demo"),
        metavar="FOLDER",
        help="folder of everything that is written [./screener_demo]",
    )
    parser.add_argument("--restart", action="store_true", help="delete an earlier demo there")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _demo(arguments))


def _demo(arguments: argparse.Namespace) -> None:
    from screener_nnu.demo.run import run_demo

    run_demo(arguments.output, arguments.restart)
