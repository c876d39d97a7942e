"""`screener_synthesize_anomalies`: a test set out of unlabelled scans."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screener_nnu.commands._cluster import add_cluster_options, add_part_options, cluster_of
from screener_nnu.commands._run import run, user_path
from screener_nnu.errors import ScreenerError

if TYPE_CHECKING:
    from screener_nnu.preprocessing.reading import Source
    from screener_nnu.synthetic.anomaly_settings import BlobSettings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Paint synthetic anomalies, with their masks, into scans that nobody has "
        "annotated: to choose settings and to compare runs with screener_evaluate. Each kind is "
        "written by itself. A killed run goes on where it stopped."
    )
    parser.add_argument(
        "-i", dest="input", type=user_path, help="folder of images (HU), or one file"
    )
    parser.add_argument("-d", dest="dataset", help="planned data set whose held-out scans to take")
    parser.add_argument("-o", dest="output", type=user_path, required=True)
    parser.add_argument("-p", dest="plans", default="ScreenerPlans", metavar="PLANS")
    parser.add_argument(
        "--use", choices=["test", "validation"], default="test", help="scans of the plan (test)"
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        help="some of pasted hypodense hyperdense constant deformation (default: all)",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-np", dest="processes", type=int, default=2, help="scans at a time (2)")
    add_part_options(parser, "paint")
    _add_settings(parser)
    add_cluster_options(parser)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Options that become `BlobSettings`; without them, its defaults hold."""
    group = parser.add_argument_group("anomalies")
    pair: dict[str, Any] = {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    group.add_argument("--mean_count", type=float, help="mean number in a scan, Poisson (5)")
    group.add_argument("--radius", **pair, help="mm (6 20)")
    group.add_argument("--edge", type=float, help="width of the soft edge in mm (5)")
    group.add_argument("--body_share", type=float, help="share of the body to fill (0.0075)")
    group.add_argument("--contrast", **pair, help="HU of hypodense and hyperdense (40 120)")
    group.add_argument("--displacement", **pair, help="mm that deformation moves tissue (4 12)")
    group.add_argument(
        "--visible", type=float, help="least mean absolute change in HU of other kinds (50)"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _synthesize(arguments))


def _synthesize(arguments: argparse.Namespace) -> None:
    from screener_nnu.synthetic.anomalies import KINDS
    from screener_nnu.synthetic.anomaly_set import synthesize_test_set

    unknown = set(arguments.kinds or []) - set(KINDS)
    if unknown:
        raise ScreenerError(f"--kinds {' '.join(sorted(unknown))}: choose from {' '.join(KINDS)}")
    with cluster_of(arguments):
        report = synthesize_test_set(
            _images(arguments),
            arguments.output,
            arguments.seed,
            [kind for kind in KINDS if kind in (arguments.kinds or KINDS)],
            _settings(arguments),
            arguments.processes,
            arguments.part,
            arguments.parts,
        )
    print(_table(report))


def _images(arguments: argparse.Namespace) -> dict[str, Source]:
    """Scans by case name: those of a folder, or the held-out ones of a plan."""
    if (arguments.input is None) == (arguments.dataset is None):
        raise ScreenerError("give either a folder of images (-i) or a planned data set (-d)")
    if arguments.input is not None:
        from screener_nnu.inference.images import find_images

        return find_images(arguments.input)
    from screener_nnu.paths import (
        FINGERPRINT_FILE,
        plan_file,
        preprocessed_folder,
        set_default_folders,
    )
    from screener_nnu.plans import read_plan
    from screener_nnu.preprocessing.modality import CT, modality_of

    set_default_folders()
    settings = read_plan(plan_file(arguments.dataset, arguments.plans)).settings
    planned = modality_of(settings.preprocessing)
    if planned.name != CT:
        raise ScreenerError(
            f"{arguments.plans} is a plan of {planned.title}, and anomalies are painted into scans "
            "of CT alone, in HU"
        )
    names = getattr(settings.split, arguments.use)
    if not names:
        raise ScreenerError(
            f"{arguments.plans} keeps no scans for {arguments.use}: take --use validation, or plan "
            "with screener_plan_and_preprocess --num_test 10"
        )
    path = preprocessed_folder(arguments.dataset) / FINGERPRINT_FILE
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return {name: Path(cases[name]["image"]) for name in names}


def _settings(arguments: argparse.Namespace) -> BlobSettings:
    """Settings of the anomalies: what was given on the command line, over the defaults."""
    from dataclasses import fields

    # Imported here, as all that is slow to import, so that --help is there at once.
    from screener_nnu.synthetic.anomaly_settings import BlobSettings

    given: dict[str, Any] = {}
    for field in fields(BlobSettings):
        value = getattr(arguments, field.name, None)
        if value is not None:
            given[field.name] = tuple(value) if isinstance(value, list) else value
    return BlobSettings(**given)


def _table(report: dict[str, Any]) -> str:
    """Kinds, one a line."""
    from screener_nnu.synthetic.anomaly_set import highest_position

    lines = [
        f"{'kind':<12}{'scans':>7}{'anomalies':>11}{'volume ml':>11}   highest positional AUROC"
    ]
    for kind, values in report["kinds"].items():
        position, figure = highest_position(values)
        lines.append(
            f"{kind:<12}{len(values['scans']):>7}{values['anomalies']:>11}"
            f"{values['volume_ml']:>11.0f}   {figure:.3f} ({position})"
        )
    return "\n".join(lines)
