"""The teacher's maps of whole scans, made once and kept on disk for the student."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch

from screener_nnu.checkpoints import write_array
from screener_nnu.inference.map_store import MapStore, maps_folder
from screener_nnu.inference.volume import images_of
from screener_nnu.plans import Plan
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.scoring.teacher import Teacher
from screener_nnu.trainers.distillation_reading import TargetFiles
from screener_nnu.trainers.score_statistics import case_scores
from screener_nnu.trainers.storing import (
    Networks,
    is_stored,
    remove_half_maps,
    scores_elsewhere,
    store_all,
)


class TeacherTargets:
    """Scores of scans, one float32 file a case on the teacher's cells: small, exact, resumable.

    Args:
        teacher: in evaluation mode, on the device.
        plan: that the teacher was trained with.
        cases_folder: of the prepared cases.
        scores_folder: of exactly this teacher's scores.
        device: of the teacher.
        with_descriptors: keep the pooled descriptors as well.
    """

    def __init__(
        self,
        teacher: Teacher,
        plan: Plan,
        cases_folder: Path,
        scores_folder: Path,
        device: torch.device,
        with_descriptors: bool,
    ) -> None:
        """Makes the folders."""
        self.teacher, self.plan, self.device = teacher, plan, device
        self.cases = CaseFolder(cases_folder)
        self.store = MapStore(maps_folder(cases_folder), teacher.features, plan, device)
        maps = self.store.files if with_descriptors else None
        self.files = TargetFiles(scores_folder, teacher.cell, maps)
        scores_folder.mkdir(parents=True, exist_ok=True)

    def fill(self, names: Iterable[str], networks: Networks | None = None) -> None:
        """Makes what is missing or older than its case; a broken case is reported and left out.

        The reader leaves it out, too.

        Args:
            names: of the cases.
            networks: the teacher's, for workers in place of this process, where there are some.
        """
        remove_half_maps(self.files.scores)
        wanted = [name for name in names if not self._is_current(name)]
        elsewhere = networks and partial(
            scores_elsewhere,
            networks=networks,
            folder=self.files.scores,
            with_descriptors=self.files.maps is not None,
        )
        here = lambda case, _: self.store_case(case)  # noqa: E731
        store_all(dict.fromkeys(wanted), here, "teacher scores", "left out", elsewhere)

    def store_case(self, case: str) -> None:
        """Stores the scores of a case.

        Raises:
            CaseError: it cannot be read.
        """
        write_array(self.files.scores / f"{case}.npy", self._scores(case).numpy())

    def _scores(self, case: str) -> torch.Tensor:
        """Scores (d, h, w); with descriptors, their maps are stored before."""
        if self.files.maps is not None:
            self.store.maps(case, images_of(self.cases, case), self.cases.changed(case))
        return case_scores(self.teacher, self.store, self.cases, case)[0]

    def _is_current(self, case: str) -> bool:
        files = [self.files.scores / f"{case}.npy"]
        if self.files.maps is not None:
            files.append(self.files.maps.y_folder / f"{case}.npy")
        return is_stored(self.cases, case, files)
