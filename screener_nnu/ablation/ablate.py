"""The whole ablation: train, judge, report."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from screener_nnu.ablation.anomaly_store import AnomalyStore
from screener_nnu.ablation.figures import MEAN, auroc_draws, table_row
from screener_nnu.ablation.grid import Cell
from screener_nnu.ablation.judged import Judged
from screener_nnu.ablation.report import write_ablation
from screener_nnu.ablation.run import train_cells
from screener_nnu.ablation.scoring import judge_baselines, judge_teacher
from screener_nnu.checkpoints import read_checkpoint
from screener_nnu.evaluation.baselines import training_histogram
from screener_nnu.paths import cases_folder, dataset_name, finished_checkpoint, plan_file
from screener_nnu.plans import read_plan
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.sampling.spread import at_most
from screener_nnu.synthetic.cases import PAINTED

logger = logging.getLogger(__name__)


def ablate(
    dataset: int | str,
    base_name: str,
    cells: Sequence[Cell],
    use: str,
    seed: int,
    device: torch.device,
    folder: Path,
    num_scans: int | None = None,
) -> str:
    """Trains what is missing of the cells, judges all and writes the report.

    Args:
        dataset: number or name.
        base_name: plan that the cells are variants of.
        cells: to train and compare.
        use: `test` or `validation`, the scans of the split that get anomalies.
        seed: of the anomalies.
        device: to train and score on.
        folder: of the report and of what is kept for the next run.
        num_scans: see `open_comparison`.

    Returns:
        The table.
    """
    name = dataset_name(dataset)
    anomalies, counts = open_comparison(name, base_name, use, seed, folder, num_scans=num_scans)
    baselines = [table_row(method, [one]) for method, one in counts.items()]
    plans = train_cells(name, base_name, cells, device)
    judged: dict[str, list[Judged]] = defaultdict(list)
    likelihoods: dict[str, list[float]] = defaultdict(list)
    for cell in sorted(cells):
        judged[cell.name].append(
            judge_teacher(name, plans[cell], anomalies, device, folder / "counts")
        )
        likelihoods[cell.name].append(_held_out_nll(name, plans[cell]))
    ordered = list(dict.fromkeys(cell.name for cell in cells))
    rows = [table_row(method, judged[method], likelihoods[method]) for method in ordered]
    values = _settings(name, base_name, anomalies, use)
    return write_ablation(rows, baselines, folder, values)


def open_comparison(
    dataset: int | str,
    plans: str,
    use: str,
    seed: int,
    folder: Path,
    family: str = PAINTED,
    num_scans: int | None = None,
) -> tuple[AnomalyStore, dict[str, Judged]]:
    """What every comparison begins with: anomalies in scans, and rows of the baselines.

    Args:
        dataset: number or name.
        plans: plan that has the split.
        use: `test` or `validation`, the scans of the split that get anomalies.
        seed: of the anomalies.
        folder: where anomalies and counts are kept for the next run.
        family: of the anomalies, one of `FAMILIES`.
        num_scans: take so many of these scans at most, spread evenly over their names.

    Returns:
        The anomalies, painted, and counts of the baselines without learning, the best first.
    """
    settings = read_plan(plan_file(dataset, plans)).settings
    cases = CaseFolder(cases_folder(dataset, settings.data_identifier))
    names = getattr(settings.split, use)
    chosen = at_most(names, num_scans)
    anomalies = AnomalyStore(cases, chosen, settings, seed, folder / "anomalies", family)
    anomalies.fill()
    counts = judge_baselines(anomalies, training_histogram(dataset), folder / "counts")
    best = {name: auroc_draws(one)[MEAN][0] for name, one in counts.items()}
    return anomalies, {name: counts[name] for name in sorted(best, key=best.__getitem__)[::-1]}


def _held_out_nll(dataset: str, plans_name: str) -> float:
    """NLL of the epoch that was kept, on validation scans."""
    found = read_checkpoint(finished_checkpoint(dataset, "density", plans_name))["nll"]
    return math.nan if found is None else float(found)


def _settings(dataset: str, base_name: str, anomalies: AnomalyStore, use: str) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "plans": base_name,
        "scans": list(anomalies.names),
        "left_out": anomalies.left_out,
        "use": use,
        "anomaly_seed": anomalies.seed,
    }
