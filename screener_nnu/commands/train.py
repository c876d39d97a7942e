"""`screener_train`: trains one stage, or all in order."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from screener_nnu.commands._cluster import add_cluster_options, cluster_of
from screener_nnu.commands._run import run
from screener_nnu.detectors import DETECTORS, STUDENT
from screener_nnu.plans import CONFIGURATIONS
from screener_nnu.stages import STAGES
from screener_nnu.starts import METHODS, PREFIX

_CHAIN = "chain"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train a stage of a plan, or a detector. A killed run goes on by itself, a "
        "finished one is left alone."
    )
    parser.add_argument("dataset", help="number or name of the data set")
    parser.add_argument(
        "configuration",
        choices=CONFIGURATIONS,
        help="3d_fullres of scans, 2d of pictures; the one that the plan has",
    )
    parser.add_argument(
        "stage",
        choices=list(
            dict.fromkeys([*STAGES, _CHAIN, *DETECTORS, *(f"{PREFIX}{name}" for name in METHODS)])
        ),
        help="a stage, or a detector with all the stages that it lacks; chain is the student; "
        f"{PREFIX}NAME is a start of fine-tuning",
    )
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
    parser.add_argument(
        "--deterministic", action="store_true", help="the same result twice on a GPU, too; slower"
    )
    parser.add_argument("--restart", action="store_true", help="forget an earlier run")
    parser.add_argument(
        "-np", dest="processes", type=int, default=0, help="workers of --cluster, which store maps"
    )
    add_cluster_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> None:
    from screener_nnu.paths import set_default_folders

    set_default_folders()
    from screener_nnu.devices import choose_device
    from screener_nnu.trainers.processes import first_alone, joined_by_torchrun
    from screener_nnu.trainers.run import train_stage

    chosen = choose_device(arguments.device)
    with cluster_of(arguments), joined_by_torchrun(chosen, arguments.num_gpus) as device:
        for stage, plans in first_alone(lambda: _planned(arguments)):
            train_stage(
                arguments.dataset,
                stage,
                plans,
                device,
                arguments.restart,
                arguments.num_gpus,
                arguments.deterministic,
            )


def _planned(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """The stages to train, each with its plan, which is made where it lacks."""
    from screener_nnu.planners.variants import derive_plan

    derive_plan(
        arguments.dataset,
        arguments.plans,
        arguments.overrides,
        arguments.from_plans,
        arguments.restart,
    )
    _refuse_other_configuration(arguments)
    return _stages(arguments)


def _refuse_other_configuration(arguments: argparse.Namespace) -> None:
    from screener_nnu.errors import ScreenerError
    from screener_nnu.paths import configuration_of

    planned = configuration_of(arguments.dataset, arguments.plans)
    if planned != arguments.configuration:
        raise ScreenerError(
            f"the plan {arguments.plans} of {arguments.dataset} has the configuration {planned} "
            f"and not {arguments.configuration}: give that"
        )


def _stages(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """The stages to train, each with its plan."""
    from screener_nnu.trainers.detector import stages_of, trained_ref

    word = STUDENT if arguments.stage == _CHAIN else arguments.stage
    return stages_of(trained_ref(arguments.dataset, arguments.plans, word), arguments.restart)
