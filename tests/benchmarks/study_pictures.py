"""Detectors on public sets of pictures, by the commands: image AUROC, and of pixels with masks.

For each seed another split is imported, planned and predicted; a run that was stopped goes on. The
table has the mean over the seeds, and the lowest and highest in brackets.

python tests/benchmarks/study_pictures.py --out STUDY --seeds 3 --busi FOLDER --sarcoma FOLDER \
    --pneumonia NPZ --phantoms

With `--minutes`, detectors that are trained get as many minutes each, by `screener_compare`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parent))
import picture_sets  # noqa: E402

DENSITIES = ("padim", "pca", "knn", "msde")
#: Whole-image scores that stand in the table, of detectors that have them.
VECTORS = ("plain", "distance", "knn", "gaussian", "displacement")
Figures = dict[tuple[str, str], list[float]]


@dataclass(frozen=True)
class PictureSet:
    """A set, and how it is planned.

    Attributes:
        number: of its data sets; each seed takes the next one.
        write: makes its table, of a seed.
        plan: options of `screener_plan_and_preprocess`.
        masks: whether pixels are judged.
        kinds: parts of names of abnormal cases that are judged apart.
    """

    number: int
    write: Callable[[Path, int], Path]
    plan: tuple[str, ...] = ()
    masks: bool = False
    kinds: tuple[str, ...] = ("",)
    detectors: tuple[str, ...] = field(
        default=tuple(f"{d}_{end}" for end in ("imagenet", "untrained") for d in DENSITIES)
    )


def main() -> None:
    """Runs the study and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--busi", type=Path)
    parser.add_argument("--sarcoma", type=Path)
    parser.add_argument("--pneumonia", type=Path)
    parser.add_argument("--phantoms", action="store_true")
    parser.add_argument("--whole", action="store_true", help="all of a picture is body")
    parser.add_argument("--detectors", nargs="+", help="in place of those without training")
    parser.add_argument("--train", default="", help="options of screener_train, in one word")
    parser.add_argument("--minutes", type=float, help="of steps of each of --detectors")
    parser.add_argument("--plan", default="", help="options of the plan, in one word")
    arguments = parser.parse_args()
    for name, one in _sets(arguments).items():
        figures: Figures = defaultdict(list)
        for seed in range(arguments.seeds):
            for key, value in _run(name, one, seed, arguments).items():
                figures[key].append(value)
        print(f"\n## {name}\n\n{_table(figures)}", flush=True)


def _sets(arguments: argparse.Namespace) -> dict[str, PictureSet]:
    found = {}
    if arguments.busi:
        found["Busi"] = PictureSet(
            700,
            lambda table, seed: picture_sets.busi(arguments.busi, table, seed),
            kinds=("benign", "malignant"),
        )
    if arguments.sarcoma:
        found["Sarcoma"] = PictureSet(
            720,
            lambda table, seed: picture_sets.sarcoma_slices(arguments.sarcoma, table, seed),
            masks=True,
        )
    if arguments.pneumonia:
        found["Pneumonia"] = PictureSet(
            740, lambda table, seed: picture_sets.pneumonia(arguments.pneumonia, table, seed)
        )
    if arguments.phantoms:
        found["Phantoms"] = PictureSet(760, picture_sets.phantom_slices, masks=True)
    return found


def _run(name: str, one: PictureSet, seed: int, arguments: argparse.Namespace) -> dict:
    """Figures by detector and name, of one split."""
    home = arguments.out.resolve()
    number, full = one.number + seed, f"Dataset{one.number + seed}_{name}"
    roots = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    world = {**os.environ, **{root: str(home / root) for root in roots}}
    table = home / f"{full}.csv"
    if not table.is_file():
        one.write(table, seed)
    whole = ("-o", "preprocessing.body_threshold=-1") if arguments.whole else ()
    _call(world, "import", "-i", table, "-d", number, "--name", name)
    planned = (*one.plan, *whole, *shlex.split(arguments.plan))
    _call(world, "plan_and_preprocess", "-d", number, "--preset", "cpu", *planned)
    plan_of = _within_minutes(world, number, home / f"{full}_minutes", arguments)
    raw, figures = home / "nnUNet_raw" / full, {}
    with (raw / "pictures.csv").open(encoding="utf-8") as stream:
        labels = {
            r["case"]: int(r["label"]) for r in csv.DictReader(stream) if r["split"] == "test"
        }
    for detector in arguments.detectors or (*one.detectors, "msde_pooled"):
        if detector not in plan_of:
            _call(world, "train", number, "2d", detector, *shlex.split(arguments.train))
        maps = home / "maps" / full / detector
        chosen = ("--detector", detector, "-p", plan_of.get(detector, "ScreenerPlans"))
        _call(world, "predict", "-d", number, "-i", raw / "imagesTs", "-o", maps, *chosen)
        figures |= _of_images(detector, maps / "cases.csv", labels, one.kinds)
        if detector == "msde_pooled":
            cohort = home / "maps" / full / "cohort"
            _call(
                world,
                "predict",
                *("-d", number, "-i", raw / "imagesTs", "-o", cohort, *chosen),
                *("--msde_mode", "cohort"),
            )
            of_cohort = _of_images("cohort", cohort / "cases.csv", labels, one.kinds)
            figures |= {k: v for k, v in of_cohort.items() if k[0] == "cohort gaussian"}
        if one.masks:
            judged = maps / "evaluation"
            _call(
                world,
                "evaluate",
                *("-i", maps, "-r", raw / "labelsTs", "--images", raw / "imagesTs", "-o", judged),
            )
            figures |= _of_pixels(detector, json.loads((judged / "summary.json").read_text()))
    return {**figures, **without_learning(raw / "imagesTs", labels, one.kinds)}


def _within_minutes(
    world: Mapping[str, str], number: int, report: Path, arguments: argparse.Namespace
) -> dict[str, str]:
    """Trains all detectors, each for some minutes, and gives their plans."""
    if not arguments.minutes:
        return {}
    words = ("--detectors", *arguments.detectors, "--minutes", arguments.minutes)
    _call(world, "compare", number, *words, "--use", "validation", "-o", report)
    plans: dict[str, str] = json.loads((report / "detectors.json").read_text())["settings"][
        "plan_of"
    ]
    return plans


def _call(world: Mapping[str, str], command: str, *words: object) -> None:
    """A command of the package, whose output is shown where it fails."""
    line = [str(Path(sys.executable).parent / f"screener_{command}"), *map(str, words)]
    print(" ".join(line[-8:]), file=sys.stderr, flush=True)
    done = subprocess.run(line, env=dict(world), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def _of_images(
    detector: str, table: Path, labels: Mapping[str, int], kinds: tuple[str, ...]
) -> dict[tuple[str, str], float]:
    """Image AUROC of the case score, or of each whole-image score."""
    with table.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    columns = {detector: "case_score"}
    if detector in ("msde_pooled", "cohort"):
        short = "vectors" if detector == "msde_pooled" else detector
        columns = {f"{short} {name}": f"vector_{name}" for name in VECTORS}
    return {
        (title, f"image {kind}".strip()): _auroc(
            {row["case"]: float(row[column]) for row in rows if row[column]}, labels, kind
        )
        for title, column in columns.items()
        for kind in kinds
    }


def _auroc(scores: Mapping[str, float], labels: Mapping[str, int], kind: str) -> float:
    """Of normal cases and those abnormal ones whose name holds a word."""
    cases = [c for c, label in labels.items() if c in scores and (not label or kind in c)]
    return float(roc_auc_score([labels[c] for c in cases], [scores[c] for c in cases]))


def _of_pixels(detector: str, summary: dict) -> dict[tuple[str, str], float]:
    """Pooled figures of pixels, of the detector and of baselines without learning."""
    found = {}
    for method, values in summary["methods"].items():
        title = detector if method == "screener" else method
        for name in ("auroc", "aupro_fpr30", "average_precision", "best_dice"):
            if values.get(name) is not None:
                found[title, f"pixel {name}"] = float(values[name])
    return found


def without_learning(
    folder: Path, labels: Mapping[str, int], kinds: tuple[str, ...]
) -> dict[tuple[str, str], float]:
    """Image AUROC, by title and kind, of scores that need no training."""
    from PIL import Image

    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for case in labels:
        path = folder / f"{case}_0000.png"
        pixels = np.asarray(Image.open(path), dtype=float)
        scores["mean grey"][case] = float(pixels.mean())
        scores["deviation of grey"][case] = float(pixels.std())
        scores["file size"][case] = float(path.stat().st_size)
    return {
        (title, f"image {kind}".strip()): _auroc(values, labels, kind)
        for title, values in scores.items()
        for kind in kinds
    }


def _table(figures: Figures) -> str:
    """Markdown: a row a method, a column a figure."""
    methods = list(dict.fromkeys(method for method, _ in figures))
    columns = list(dict.fromkeys(column for _, column in figures))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method in methods:
        cells = [_cell(figures.get((method, column), [])) for column in columns]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    low, mean, high = (f"{v:.3f}".lstrip("0") for v in (min(values), np.mean(values), max(values)))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
