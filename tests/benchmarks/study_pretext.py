"""Image-level pre-training on public sets of pictures: which part of it helps which detector.

Rows are starts of the encoder, columns detectors on its maps or vectors; for each seed another
split is imported, planned, trained and predicted by the commands. Figures are kept in a file, so
that a run that was stopped goes on. The tables hold the mean over the seeds and a 95 % interval
over images (bootstrap within each split), and differences of rows on the same images.

python tests/benchmarks/study_pretext.py --out STUDY --seeds 3 --busi FOLDER --pneumonia NPZ
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).parent))
import picture_sets  # noqa: E402
from study_pictures import without_learning  # noqa: E402

_UNTRAINED = ("density.descriptor_plans=untrained",)
#: Settings of each row; rows with a method are trained.
ROWS: dict[str, tuple[str, ...]] = {
    "random": (*_UNTRAINED, "pretext.weights="),
    "ImageNet": _UNTRAINED,
    "SimCLR": ("pretext.method=simclr",),
    "PMSACL without centring": ("pretext.options.alpha=1.0", "pretext.options.centre_weight=0.0"),
    "PMSACL with centring": ("pretext.options.alpha=1.0",),
    "PMSACL with kappa": ("pretext.method=pmsacl",),
}
#: Detectors, and columns of their tables that are judged.
HEADS = {
    "padim_pretext": ("case_score",),
    "gaussian_pretext": ("case_score",),
    "knn_pretext": ("case_score",),
    "msde_pooled_pretext": ("vector_knn", "vector_displacement", "vector_gaussian"),
    "igd": ("image_score", "image_global", "image_local", "case_score"),
}
_NAMES = {
    ("padim_pretext", "case_score"): "PaDiM",
    ("gaussian_pretext", "case_score"): "one Gaussian",
    ("knn_pretext", "case_score"): "5 nearest, maps",
    ("msde_pooled_pretext", "vector_knn"): "5 nearest, vectors",
    ("msde_pooled_pretext", "vector_displacement"): "MSDE displacement",
    ("msde_pooled_pretext", "vector_gaussian"): "MSDE Gaussian",
    ("igd", "image_score"): "IGD",
    ("igd", "image_global"): "its global model",
    ("igd", "image_local"): "its local model",
    ("igd", "case_score"): "its map",
}
_DRAWS = 1000
Scores = dict[str, float]


@dataclass(frozen=True)
class PictureSet:
    """A set: number of its first data set, what writes its table, kinds that are judged apart."""

    number: int
    write: Callable[[Path, int], Path]
    kinds: tuple[str, ...] = ("",)
    masks: bool = False


@dataclass(frozen=True)
class Split:
    """One split of a set, imported and planned in folders of its own.

    Attributes:
        home: of the study.
        name, number: of the data set.
        labels: of its test pictures.
        steps: of a training.
    """

    home: Path
    name: str
    number: int
    labels: Mapping[str, int]
    steps: int

    def scores(self, row: str, head: str, masks: bool) -> dict[str, Scores]:
        """Scores by column and picture of a row and detector; of pixels the figures."""
        kept = self.home / "figures" / self.name / f"{row}_{head}.json".replace(" ", "_")
        if not kept.is_file():
            found = self._measure(row, head, masks)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(found))
        loaded: dict[str, dict[str, Scores]] = json.loads(kept.read_text())
        return loaded

    def _measure(self, row: str, head: str, masks: bool) -> dict[str, Scores]:
        plans = "Row_" + row.replace(" ", "_")
        settings = [w for s in self._settings(row) for w in ("-o", s)]
        own = ("-p", plans, "--from_plans", "ScreenerPlans", *settings)
        if _is_trained(row):
            _call("train", self.number, "2d", "pretext", *own)
        _call("train", self.number, "2d", head, *own)
        raw = self.home / "nnUNet_raw" / f"Dataset{self.number}_{self.name}"
        maps = self.home / "maps" / self.name / plans / head
        chosen = ("-d", self.number, "-p", plans, "--detector", head)
        _call("predict", *chosen, "-i", raw / "imagesTs", "-o", maps)
        with (maps / "cases.csv").open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        found = {c: {r["case"]: float(r[c]) for r in rows if r[c]} for c in HEADS[head]}
        if masks:
            judged = maps / "evaluation"
            pictures = ("--images", raw / "imagesTs")
            _call("evaluate", "-i", maps, "-r", raw / "labelsTs", *pictures, "-o", judged)
            found["pixels"] = _pixels(json.loads((judged / "summary.json").read_text()))
        return found

    def _settings(self, row: str) -> tuple[str, ...]:
        steps = (f"optimiser.steps={self.steps}", "optimiser.steps_per_epoch=50")
        # Depthwise convolutions are slower in bfloat16 on a processor.
        both = (f"{stage}.{s}" for stage in ("pretext", "igd") for s in steps)
        start = "igd.start=" + ("pretext" if _is_trained(row) else "backbone")
        return (*ROWS[row], *both, start, "low_precision_cpu=false")


def _is_trained(row: str) -> bool:
    """Whether the row has a training of the encoder."""
    return "density.descriptor_plans=untrained" not in ROWS[row]


def main() -> None:
    """Runs the study and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=96, help="rows and columns of a picture")
    parser.add_argument("--busi", type=Path)
    parser.add_argument("--pneumonia", type=Path)
    parser.add_argument("--sarcoma", type=Path)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--heads", nargs="+", choices=list(HEADS), default=list(HEADS))
    arguments = parser.parse_args()
    home = arguments.out.resolve()
    for root in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[root] = str(home / root)
    for name, one in _sets(arguments).items():
        splits = [_split(home, name, one, seed, arguments) for seed in arguments.seeds]
        found = {
            (row, head): [split.scores(row, head, one.masks) for split in splits]
            for row in arguments.rows
            for head in arguments.heads
        }
        for kind in one.kinds:
            title = f"{name} {kind}".strip()
            print(f"\n## {title}, image AUROC\n\n{_table(found, splits, kind)}", flush=True)
            print(_without_learning(splits, kind), flush=True)
        if one.masks:
            print(f"\n## {name}, pixels\n\n{_pixel_table(found)}", flush=True)


def _sets(arguments: argparse.Namespace) -> dict[str, PictureSet]:
    found = {}
    if arguments.busi:
        busi = PictureSet(800, partial(_of, picture_sets.busi, arguments.busi))
        found["Busi"] = replace(busi, kinds=("benign", "malignant"))
    if arguments.pneumonia:
        few = partial(picture_sets.pneumonia, train=400, test=200)
        found["Pneumonia"] = PictureSet(820, partial(_of, few, arguments.pneumonia))
    if arguments.sarcoma:
        slices = partial(_of, picture_sets.sarcoma_slices, arguments.sarcoma)
        found["Sarcoma"] = PictureSet(840, slices, masks=True)
    return found


def _of(write: Callable[[Path, Path, int], Path], source: Path, table: Path, seed: int) -> Path:
    return write(source, table, seed)


def _split(
    home: Path, name: str, one: PictureSet, seed: int, arguments: argparse.Namespace
) -> Split:
    number, full = one.number + seed, f"{name}{seed}"
    table = home / f"{full}.csv"
    if not table.is_file():
        one.write(table, seed)
    _call("import", "-i", table, "-d", number, "--name", full)
    size = (arguments.size, arguments.size)
    _call("plan_and_preprocess", "-d", number, "--preset", "cpu", "--picture_size", *size, "-np", 1)
    listed = home / "nnUNet_raw" / f"Dataset{number}_{full}" / "pictures.csv"
    with listed.open(encoding="utf-8") as stream:
        rows = [r for r in csv.DictReader(stream) if r["split"] == "test"]
    labels = {r["case"]: int(r["label"]) for r in rows}
    return Split(home, full, number, labels, arguments.steps)


def _call(command: str, *words: object) -> None:
    """A command of the package, in this process."""
    print(command, *words, file=sys.stderr, flush=True)
    module = {"import": "import_data"}.get(command, command)
    import_module(f"screener_nnu.commands.{module}").main([str(word) for word in words])


def _pixels(summary: Mapping[str, dict]) -> Scores:
    names = ("auroc", "aupro_fpr30", "average_precision", "best_dice")
    found = {}
    for method, values in summary["methods"].items():
        for name in names:
            if values.get(name) is not None:
                found[f"{method} {name}"] = float(values[name])
    return found


def _table(found: Mapping, splits: Sequence[Split], kind: str) -> str:
    """Markdown: a row a start, a column a detector; behind each the difference to ImageNet."""
    heads = list(dict.fromkeys(head for _, head in found))
    columns = [(h, c) for h in heads for c in HEADS[h]]
    lines = ["| | " + " | ".join(_NAMES[c] for c in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for row in dict.fromkeys(row for row, _ in found):
        cells = []
        for head, column in columns:
            own = [s[column] for s in found[row, head]]
            other = [s[column] for s in found["ImageNet", head]] if "ImageNet" != row else None
            cells.append(_cell(own, other, splits, kind))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _without_learning(splits: Sequence[Split], kind: str) -> str:
    """A line for what needs no training: grey values, and the size of the file."""
    found: dict[str, list[float]] = defaultdict(list)
    for split in splits:
        images = split.home / "nnUNet_raw" / f"Dataset{split.number}_{split.name}" / "imagesTs"
        for (title, _), value in without_learning(images, split.labels, (kind,)).items():
            found[title].append(value)
    return "; ".join(f"{title} {_range(values)}" for title, values in found.items())


def _cell(
    own: Sequence[Scores], other: Sequence[Scores] | None, splits: Sequence[Split], kind: str
) -> str:
    drawn = _drawn(own, other, splits, kind)
    mean = np.mean(
        [a for a, _ in (_aurocs(o, None, s, kind) for o, s in zip(own, splits, strict=True))]
    )
    low, high = np.percentile(drawn[0], (2.5, 97.5))
    text = f"{mean:.3f} [{low:.3f}, {high:.3f}]"
    if other is not None:
        low, high = np.percentile(drawn[0] - drawn[1], (2.5, 97.5))
        text += " +" if low > 0 else " -" if high < 0 else ""
    return text


def _drawn(
    own: Sequence[Scores], other: Sequence[Scores] | None, splits: Sequence[Split], kind: str
) -> np.ndarray:
    """Mean AUROC over the splits, of images drawn again; (2, draws)."""
    rng = np.random.default_rng(0)
    values = np.zeros((2, _DRAWS))
    for number, split in enumerate(splits):
        pair = (own[number], None if other is None else other[number])
        for draw in range(_DRAWS):
            values[:, draw] += _aurocs(*pair, split, kind, rng)
    return values / len(splits)


def _aurocs(
    own: Scores,
    other: Scores | None,
    split: Split,
    kind: str,
    rng: np.random.Generator | None = None,
) -> tuple[float, float]:
    cases = [c for c, label in split.labels.items() if c in own and (not label or kind in c)]
    labels = np.array([split.labels[c] for c in cases])
    places = np.arange(len(cases))
    if rng is not None:
        parts = [np.flatnonzero(labels == value) for value in (0, 1)]
        places = np.concatenate([rng.choice(part, len(part)) for part in parts])
    found = [
        0.0 if scores is None else _rank_auroc(labels, np.array([scores[c] for c in cases]), places)
        for scores in (own, other)
    ]
    return found[0], found[1]


def _rank_auroc(labels: np.ndarray, scores: np.ndarray, places: np.ndarray) -> float:
    """Area under the curve by ranks, many times as fast as by the curve."""
    positive = labels[places] > 0
    ranks, count = rankdata(scores[places]), int(positive.sum())
    above = ranks[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(places) - count)))


def _pixel_table(found: Mapping) -> str:
    names = ("auroc", "aupro_fpr30", "average_precision", "best_dice")
    lines = ["| | detector | " + " | ".join(names) + " |", "|---" * 6 + "|"]
    for (row, head), splits in found.items():
        own = [[s["pixels"][f"screener {n}"] for s in splits] for n in names]
        lines.append(f"| {row} | {head} | " + " | ".join(_range(v) for v in own) + " |")
    some = next(iter(found.values()))
    for method in dict.fromkeys(k.rpartition(" ")[0] for k in some[0]["pixels"]):
        if method != "screener":
            own = [[s["pixels"].get(f"{method} {n}", np.nan) for s in some] for n in names]
            lines.append(f"| no learning | {method} | " + " | ".join(map(_range, own)) + " |")
    return "\n".join(lines)


def _range(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


if __name__ == "__main__":
    main()
