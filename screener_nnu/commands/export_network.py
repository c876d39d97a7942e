"""`screener_export_network`: the student as ONNX or torch.export file, for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from screener_nnu.commands._run import run, user_path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="screener_export_network",
        description="Write the distilled student as a graph that other programs run, with a JSON "
        "that holds all pre- and post-processing, and a program that needs nothing else.",
    )
    parser.add_argument("-d", dest="dataset", required=True, help="data set the model learned from")
    parser.add_argument("-p", dest="plans", default="ScreenerPlans", metavar="PLANS")
    parser.add_argument("-o", dest="output", type=user_path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--format",
        dest="formats",
        nargs="+",
        default=["onnx"],
        choices=["onnx", "torch_export", "torchscript"],
        help="onnx (default): network.onnx; torch_export: network.pt2. torchscript is refused: "
        "torch has given it up for torch_export",
    )
    parser.add_argument(
        "--dynamic",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave batch, z, y and x open (default); otherwise a graph for one tile of the plan",
    )
    parser.add_argument("--license", metavar="TEXT", help="terms of the weights, for the JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> None:
    from screener_nnu.errors import ScreenerError
    from screener_nnu.paths import set_default_folders

    if "torchscript" in arguments.formats:
        raise ScreenerError(
            "torch has deprecated TorchScript (torch.jit) in favour of torch.export: use "
            "--format torch_export for Python with torch, and onnx for everything else"
        )
    set_default_folders()
    from screener_nnu.network_export.export import JSON_NAME, NetworkRequest, export_network

    values = export_network(
        NetworkRequest(
            arguments.dataset,
            arguments.plans,
            tuple(dict.fromkeys(arguments.formats)),
            arguments.dynamic,
            arguments.license,
        ),
        arguments.output,
    )
    for file in values["files"].values():
        agreement = file["agreement"]
        print(
            f"{arguments.output / file['file']}: {file['bytes'] / 1e6:.1f} MB, differs from "
            f"PyTorch by {agreement['max_abs_nats']:.1e} nats at most "
            f"({agreement['max_relative']:.1e} of the score's standard deviation)"
        )
    print(f"{arguments.output / JSON_NAME}: pre- and post-processing")
    if not arguments.dynamic:
        tile = " x ".join(map(str, values["tiles"]["largest"]))
        print(f"the graph takes {tile} voxels alone: padding changes the map of a smaller scan")
    if not arguments.license:
        print("licence not stated: nobody knows what they may do with the weights")
