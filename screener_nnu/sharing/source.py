"""A source of fine-tuning: a pre-trained data set, or a model file that becomes one."""

from __future__ import annotations

import logging
from pathlib import Path

from screener_nnu.paths import dataset_name
from screener_nnu.sharing.manifest import StageFile

logger = logging.getLogger(__name__)


def resolve_source(source: str, plans_name: str) -> tuple[str, str]:
    """Name of the data set and of the plan to start from.

    A model file is installed first, unless it is already. When it holds no student of the given
    plan, that of its own student is taken.

    Args:
        source: number or name of a data set, or a model file `*.zip`.
        plans_name: plan asked for.

    Raises:
        ScreenerError: no such data set, or a file that cannot be installed.
    """
    if not source.lower().endswith(".zip"):
        return dataset_name(source), plans_name
    from screener_nnu.sharing.install import install_model

    model = install_model(Path(source))
    logger.info(
        "%s %s as %s",
        source,
        "has been installed" if model.fresh else "is installed",
        model.dataset,
    )
    known = StageFile(plans_name, "distillation") in model.manifest.stages
    return model.dataset, plans_name if known else model.manifest.plans_name
