"""Scores of the teacher on whole training scans, on its cell grid."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.inference.volume import teacher_cells, teacher_input
from screener_nnu.plans import Plan, Shape
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.sampling.spread import spread
from screener_nnu.scoring.teacher import Teacher

logger = logging.getLogger(__name__)

#: Scans that score statistics are measured on.
MOST_SCANS = 24


def case_scores(
    teacher: Teacher, cases: CaseFolder, case: str, plan: Plan, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (d, h, w) in nats of a stored case and which cells lie in the body, both on CPU.

    Raises:
        ScreenerError: a score is no finite number.
    """
    grid_shape = cases.shape(case, "hu")
    equalised = torch.from_numpy(cases.read(case, "equalised")).to(device)
    scores = teacher_cells(teacher, teacher_input(equalised, grid_shape), plan).cpu()
    require_finite(f"the teacher's scores of {case}", scores)
    body = torch.from_numpy(cases.read(case, "body"))
    return scores, body_cells(body, grid_shape, teacher.cell, tuple(scores.shape)) > 0.5  # type: ignore[arg-type]


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


def body_cells(body: torch.Tensor, grid_shape: Shape, cell: Shape, cells: Shape) -> torch.Tensor:
    """Fraction of body in each cell of the plan's grid."""
    mask = body[None, None].float()
    if tuple(body.shape) != tuple(grid_shape):
        mask = F.interpolate(mask, grid_shape, mode="nearest-exact")
    missing = [n * c - g for n, c, g in zip(cells, cell, grid_shape, strict=True)]
    mask = F.pad(mask, [v for m in missing[::-1] for v in (0, m)])
    return F.avg_pool3d(mask, cell)[0, 0]


def measure_scores(
    teacher: Teacher, folder: Path, names: Iterable[str], plan: Plan, device: torch.device
) -> dict[str, float]:
    """Mean, standard deviation, lowest and highest score (nats) in the body of up to 24 scans."""
    cases = CaseFolder(folder)
    values = []
    for case in tqdm(spread(names, MOST_SCANS), desc="score statistics", unit="scan"):
        try:
            scores, inside = case_scores(teacher, cases, case, plan, device)
        except CaseError as error:
            logger.warning("left out: %s", error)
            continue
        values.append(scores[inside])
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
