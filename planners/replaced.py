"""What rests on scans that were replaced: trained stages, and the cases of other plans."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from screener_nnu.paths import begun_stages, preprocessed_folder, train_command
from screener_nnu.planners.existing import names_of
from screener_nnu.planners.stored import plans_of
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.preprocessing.source_state import SourceState

logger = logging.getLogger(__name__)


def warn_of_dependents(
    dataset: str, folder: Path, replaced: list[str], scans: Mapping[str, SourceState]
) -> None:
    """Names the stages that were trained on the scans as they were, and plans that hold them yet.

    Args:
        dataset: full name.
        folder: of the cases that are made again.
        replaced: those cases.
        scans: how the scans are now.
    """
    stages, commands, others = [], [], []
    for path, plan in plans_of(preprocessed_folder(dataset)):
        affected = names_of(plan.settings.split) & set(replaced)
        own = path.with_name(plan.settings.data_identifier)
        if affected and own == folder:
            begun = begun_stages(dataset, path.stem)
            stages += [f"{', '.join(begun)} of {path.stem}"] if begun else []
            commands += [f"{train_command(dataset, stage, path.stem)} --restart" for stage in begun]
        elif any(_is_outdated(own, case, scans[case]) for case in affected):
            others.append(path.stem)
    if stages:
        logger.warning(
            "trained on scans as they were before: %s; what is trained stays, and this trains it "
            "anew on the scans as they are now:\n%s",
            "; ".join(stages),
            "\n".join(f"    {command}" for command in commands),
        )
    if others:
        logger.warning(
            "%s still have cases of the scans as they were before: run "
            "screener_plan_and_preprocess for each, with its -p",
            ", ".join(others),
        )


def _is_outdated(folder: Path, case: str, scan: SourceState) -> bool:
    marker = CaseFolder(folder).whole_marker(case)
    return marker is not None and not marker.is_of(scan)
