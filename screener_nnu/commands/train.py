"""`screener_train`: trains one stage, or all in order."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from screener_nnu.commands._run import run

_STAGES = ("descriptor", "condition", "position", "density", "distillation")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train a stage of a plan. A killed run goes on by itself, a finished one is "
        "left alone."
    )
    parser.add_argument("dataset", help="number or name of the data set")
    parser.add_argument("configuration", choices=["3d_fullres"])
    parser.add_argument("stage", choices=[*_STAGES, "chain"], help="chain: all that the plan needs")
    parser.add_argument("-p", dest="plans", default="ScreenerPlans", metavar="PLANS")
    parser.add_argument(
        "-o",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting, for instance descriptor.loss=infonce; with -p a plan of that name is made",
    )
    parser.add_argument(
        "--from_plans",
        default=None,
        metavar="PLANS",
        help="plan that a new plan of -p and -o is made from (ScreenerPlans)",
    )
    parser.add_argument("-num_gpus", type=int, default=1)
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], default=None)
    parser.add_argument("--restart", action="store_true", help="forget an earlier run")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> None:
    from screener_nnu.paths import set_default_folders

    set_default_folders()
    from screener_nnu.devices import choose_device
    from screener_nnu.planners.variants import derive_plan
    from screener_nnu.trainers.run import train_stage

    derive_plan(
        arguments.dataset,
        arguments.plans,
        arguments.overrides,
        arguments.from_plans,
        arguments.restart,
    )
    device = choose_device(arguments.device)
    for stage in _stages(arguments):
        train_stage(
            arguments.dataset,
            stage,
            arguments.plans,
            device,
            arguments.restart,
            arguments.num_gpus,
        )


def _stages(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The stages to train; of a chain, those whose network comes from elsewhere are left out."""
    if arguments.stage != "chain":
        return (arguments.stage,)
    from screener_nnu.conditions import TRAINED_BY
    from screener_nnu.paths import plan_file
    from screener_nnu.plans import read_plan

    _, settings = read_plan(plan_file(arguments.dataset, arguments.plans))
    if settings.distillation.density_plans:
        return ("distillation",)
    stages = [] if settings.density.descriptor_plans else ["descriptor"]
    if settings.condition.kind in TRAINED_BY and not settings.density.condition_plans:
        stages.append(TRAINED_BY[settings.condition.kind])
    return (*stages, "density", "distillation")
