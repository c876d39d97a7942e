"""`screener_ablate`: trains and compares a grid of losses, conditions and densities."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from screener_nnu.commands._run import run, user_path
from screener_nnu.commands.compare import add_comparison_arguments, compare


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train and compare combinations of descriptor loss, condition and density on "
        "synthetic anomalies in held-out scans. Stages are shared; those that are finished stay, "
        "and a killed run goes on. Writes ablation.md, .csv, .json and .png."
    )
    add_comparison_arguments(parser)
    parser.add_argument(
        "--losses", nargs="*", help="vicreg, infonce, untrained (default: the plan's)"
    )
    parser.add_argument(
        "--conditions", nargs="*", default=["none", "sincos", "ape", "masking_invariant"]
    )
    parser.add_argument("--densities", nargs="*", default=["gaussian", "flow"])
    parser.add_argument("--seeds", type=int, default=1, help="runs of each combination (1)")
    parser.add_argument(
        "--cells",
        nargs="*",
        default=["untrained/none/gaussian", "untrained/none/flow"],
        metavar="LOSS/CONDITION/DENSITY[/SEED]",
        help="single combinations beside the grid (default: the controls without training)",
    )
    parser.add_argument(
        "--detectors",
        nargs="+",
        metavar="NAME",
        help="in place of a grid, what screener_compare does with these detectors",
    )
    parser.add_argument(
        "-o", dest="output", type=user_path, help="default: ablation_PLANS_USE among the results"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: compare(arguments) if arguments.detectors else _ablate(arguments))


def _ablate(arguments: argparse.Namespace) -> None:
    from screener_nnu.paths import plan_file, results_folder, set_default_folders

    set_default_folders()
    from screener_nnu.ablation.ablate import ablate
    from screener_nnu.ablation.grid import grid_cells
    from screener_nnu.ablation.report import ablation_files, own_report
    from screener_nnu.devices import choose_device
    from screener_nnu.plans import read_plan

    settings = read_plan(plan_file(arguments.dataset, arguments.plans)).settings
    folder = arguments.output or (
        results_folder(arguments.dataset) / f"ablation_{arguments.plans}_{arguments.use}"
    )
    device, seed = choose_device(arguments.device), arguments.anomaly_seed
    dataset, plans, use = arguments.dataset, arguments.plans, arguments.use
    losses = [settings.descriptor.loss] if arguments.losses is None else arguments.losses
    cells = grid_cells(
        losses, arguments.conditions, arguments.densities, arguments.seeds, arguments.cells
    )
    own_report(folder, ablation_files(folder))
    print(ablate(dataset, plans, cells, use, seed, device, folder, arguments.num_scans))
