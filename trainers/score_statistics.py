"""Scores of the teacher on whole training scans, on its cell grid."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from screener_nnu.detectors.base import Detector
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.inference.map_store import MapStore, maps_folder
from screener_nnu.inference.tiles import needed_voxels
from screener_nnu.inference.volume import cells_in_body, images_of, score_map, teacher_cells
from screener_nnu.plans import Plan
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.sampling.spread import spread
from screener_nnu.scoring.teacher import Teacher

logger = logging.getLogger(__name__)

#: Scans that score statistics are measured on.
MOST_SCANS = 24


def case_scores(
    teacher: Teacher, store: MapStore, cases: CaseFolder, case: str, body_only: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (d, h, w) of a stored case and which cells lie in the body, both on the CPU.

    Args:
        teacher: on the device of the store.
        store: of its maps; those that a density has left there are used again.
        cases: folder of the cases.
        case: name.
        body_only: scores outside the body may be 0, which spares their time.

    Raises:
        ScreenerError: a score is no finite number.
    """
    grid_shape = cases.shape(case, "hu")
    body = cases.read(case, "body")
    inside = cells_in_body(body, grid_shape, teacher.cell)
    stored = store.stored(case, cases.changed(case))
    if stored is None:
        needed = needed_voxels(body, grid_shape) if body_only else None
        images = images_of(cases, case)
        scores = teacher_cells(teacher, images, store.device, store.plan, needed).scores.cpu()
    else:
        y, c = (None if maps is None else maps.to(store.device) for maps in stored)
        assert y is not None
        scores = teacher.score(y, c, inside.to(store.device) if body_only else None)[0].cpu()
    require_finite(f"the teacher's scores of {case}", scores)
    return scores, inside


def require_finite(what: str, *values: torch.Tensor | None) -> None:
    """Refuses maps or scores from which a figure would be made that means nothing.

    Args:
        what: their name, with that of the scan.
        *values: a condition's may be None.

    Raises:
        ScreenerError: a value is NaN or infinite.
    """
    if any(v is not None and not torch.isfinite(v).all() for v in values):
        raise ScreenerError(
            f"{what} hold values that are no finite numbers: look at that scan and plan without it "
            "if it is damaged; if it is sound, train the stage that gave them anew, with a lower "
            "learning_rate"
        )


def measure_scores(
    teacher: Teacher, folder: Path, names: Iterable[str], plan: Plan, device: torch.device
) -> dict[str, float]:
    """Mean, standard deviation, lowest and highest score (nats) in the body of up to 24 scans."""
    cases = CaseFolder(folder)
    store = MapStore(maps_folder(folder), teacher.features, plan, device)

    def scores_of(case: str) -> torch.Tensor:
        scores, inside = case_scores(teacher, store, cases, case, body_only=True)
        return scores[inside]

    return _statistics_over(folder, names, scores_of)


def measure_tiled_scores(
    detector: Detector, folder: Path, names: Iterable[str], plan: Plan, device: torch.device
) -> dict[str, float]:
    """The same of a detector of tiles, in its unit."""
    cases = CaseFolder(folder)

    def scores_of(case: str) -> torch.Tensor:
        images = cases.read(case, "hu"), cases.read(case, "equalised")
        body = cases.read(case, "body")
        scores = torch.from_numpy(score_map(detector, *images, plan, device, body))
        require_finite(f"scores of {case}", scores)
        return scores[cells_in_body(body, scores.shape, (1, 1, 1))]

    return _statistics_over(folder, names, scores_of)


def _statistics_over(
    folder: Path, names: Iterable[str], scores_of: Callable[[str], torch.Tensor]
) -> dict[str, float]:
    """Statistics of the scores in the bodies of up to 24 scans; one that is broken is left out."""
    values = []
    for case in tqdm(spread(names, MOST_SCANS), desc="score statistics", unit="scan"):
        try:
            values.append(scores_of(case))
        except CaseError as error:
            logger.warning("left out: %s", error)
    if not values:
        raise ScreenerError(f"no training scan in {folder} can be read")
    return statistics_of(values)


def statistics_of(values: Sequence[torch.Tensor]) -> dict[str, float]:
    """`mean`, `std`, `lowest` and `highest` of scores, pooled in double precision.

    Raises:
        ScreenerError: they are no scale, since scores do not differ or are no finite numbers.
    """
    pooled = torch.cat(list(values)).double()
    statistics = {
        "mean": float(pooled.mean()),
        "std": float(pooled.std()),
        "lowest": float(pooled.min()),
        "highest": float(pooled.max()),
    }
    if not math.isfinite(sum(statistics.values())) or not statistics["std"] > 0:
        raise ScreenerError(
            f"scores of training scans give no scale ({statistics}): plan with more scans, or "
            "train the stage that gave them anew"
        )
    return statistics
