"""The options of every command that works with a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from screener_nnu.plans import DEFAULT_PLANS_NAME

if TYPE_CHECKING:
    from screener_nnu.detectors import ModelRef


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds data set, plan and detector."""
    parser.add_argument("-d", dest="dataset", required=True, help="data set the model learned from")
    parser.add_argument("-p", dest="plans", default=DEFAULT_PLANS_NAME, metavar="PLANS")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--detector", metavar="NAME", help="which detector of the plan [student]")
    chosen.add_argument(
        "--teacher", action="store_true", help="short for --detector teacher, all three stages"
    )


def chosen_model(arguments: argparse.Namespace, checkpoint: Path | None = None) -> ModelRef:
    """The model that was asked for.

    Raises:
        ScreenerError: no such detector; the message lists the known ones.
    """
    from screener_nnu.detectors import STUDENT, TEACHER, ModelRef

    detector = TEACHER if arguments.teacher else arguments.detector or STUDENT
    return ModelRef(arguments.dataset, arguments.plans, detector, checkpoint)
