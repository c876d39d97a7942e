"""Arguments of `screener_evaluate`."""

from __future__ import annotations

import argparse

from screener_nnu.commands._cluster import add_cluster_options
from screener_nnu.commands._run import user_path
from screener_nnu.least_volume import MINIMUM_ML


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="screener_evaluate",
        description="Evaluates anomaly maps against annotations, beside baselines that learn "
        "nothing, scores of whole cases against labels, or merges evaluations of different cases. "
        "Writes summary.json, cases.csv, pooled.csv, curves.png, bins.npz and "
        "histograms/METHOD/CASE.npz, and of whole cases cases_summary.json and cases_roc.png. A "
        "stopped evaluation goes on where it was.",
    )
    parser.add_argument(
        "-i",
        dest="maps",
        nargs="+",
        metavar="MAPS",
        help="folder of maps CASE.nii.gz with body masks CASE_body.nii.gz, of pictures CASE.tif "
        "with CASE_body.png, or several as name=FOLDER to stand in one table",
    )
    parser.add_argument(
        "-r",
        dest="masks",
        type=user_path,
        help="folder of annotations CASE.nii.gz, of pictures CASE.png",
    )
    parser.add_argument(
        "--cases",
        type=user_path,
        metavar="TABLE",
        help="CSV file with columns case and label (0 normal, 1 abnormal), and perhaps group and "
        "split, such as pictures.csv of a raw data set: evaluates the scores in MAPS/cases.csv; "
        "with -r or without",
    )
    parser.add_argument(
        "--threshold_from",
        type=user_path,
        metavar="TABLE",
        help="such a file of cases in MAPS: the threshold of the case score is the best one on "
        "them, and they are left out of the figures (default: the 95th percentile of held-out "
        "normal cases)",
    )
    parser.add_argument(
        "--merge",
        type=user_path,
        nargs="+",
        metavar="FOLDER",
        help="instead of -i and -r: finished evaluations of different cases over equal bins, "
        "whose stored histograms become one evaluation",
    )
    parser.add_argument(
        "--images",
        type=user_path,
        help="folder of CT images in HU, CASE_0000.nii.gz or CASE.nii.gz, or of pictures .png, for "
        "the baselines",
    )
    parser.add_argument(
        "-d", dest="dataset", help="pre-training data set (number or name), for the rarity of HU"
    )
    parser.add_argument(
        "-o",
        dest="out",
        type=user_path,
        help="output folder (default: MAPS/evaluation); required with --merge",
    )
    _add_options(parser)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Arguments that are not files."""
    parser.add_argument(
        "--labels",
        type=int,
        nargs="+",
        help="annotation values that are pathology (default: all above 0); other values count "
        "as normal",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="score, chosen elsewhere: Dice of the voxels above it, those of screener_predict "
        "--threshold (default: the best one on these cases, which is optimistic)",
    )
    parser.add_argument(
        "--bins",
        type=user_path,
        metavar="FILE",
        help="bins.npz of another evaluation, so that both can be merged",
    )
    parser.add_argument(
        "--protocol",
        choices=("full", "paper"),
        default="full",
        help="paper: report as well AUROC on up to 1000 lesion and 1000 other voxels drawn from "
        "each scan",
    )
    parser.add_argument(
        "--min_volume",
        type=float,
        default=1000 * MINIMUM_ML,
        metavar="MM3",
        help="FROC: least volume of a detection and of a lesion in mm^3, of pictures in pixels "
        "(%(default)g)",
    )
    parser.add_argument(
        "--no_bootstrap", action="store_true", help="leave out the intervals over cases"
    )
    parser.add_argument(
        "-np", dest="processes", type=int, default=2, help="cases read at the same time (2)"
    )
    add_cluster_options(parser)
