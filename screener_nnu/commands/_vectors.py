"""Options of how vectors of whole scans are scored."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from screener_nnu.outputs.cohort import VectorRequest

_SETTINGS = ("block_order", "gaussian_on", "paper_bug")


def add_vector_options(parser: argparse.ArgumentParser) -> None:
    """Adds the mode and the settings of a cohort."""
    group = parser.add_argument_group("scores of whole scans (msde)")
    group.add_argument(
        "--msde_mode",
        choices=["reference", "cohort"],
        default="reference",
        help="move each by the training scans alone, or all scans of this run together, as "
        "published [reference]",
    )
    group.add_argument(
        "--msde_block_order",
        choices=["given", "random"],
        help="of a cohort: blocks by the order of the names, or by a random one [the plan's]",
    )
    group.add_argument(
        "--msde_gaussian_on",
        choices=["train_only", "joint_train"],
        help="of a cohort: which shifted training scans the Gaussian is fitted to [the plan's]",
    )
    group.add_argument(
        "--msde_paper_bug",
        action="store_true",
        default=None,
        help="of a cohort: weights as in the public code of the paper",
    )


def vector_request(arguments: argparse.Namespace) -> VectorRequest:
    """What was asked for."""
    from screener_nnu.outputs.cohort import VectorRequest

    given = {name: getattr(arguments, f"msde_{name}") for name in _SETTINGS}
    changes = {name: value for name, value in given.items() if value is not None}
    return VectorRequest(arguments.msde_mode, changes)
