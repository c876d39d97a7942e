"""The commands that faults are tried on, and the folders that each starts from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from screener_nnu.synthetic import write_phantom_dataset
from tests.conftest import DATASET, SPACING, TINY, TinyWorld, enter, write_dicom_series
from tests.faults.attempts import Command

_EPOCHS = 8
_OPTIMISERS = ("descriptor", "condition.contrast", "density", "distillation", "pretext", "igd")
_CPU = ("-device", "cpu")
_CASES, _STAGES = "preprocessed/*/*_screener/*.json", "results/*/*/fold_all/checkpoint_final.pth"

_TUNED = "results/Dataset902_*/*/fold_*/checkpoint_final.pth"
_SHORT = ("--epochs", _EPOCHS, "--iterations", 2, "-np", 1, *_CPU)
_OF_NNUNET = r"results/Dataset902_[^/]*/nnUNetTrainer__[^/]*/fold_"


def _tiny(root: Path) -> list[object]:
    words: list[object] = ["plan_and_preprocess", "-d", 901, "--preset", "cpu", "--num_test", 1]
    return [*words, "-np", 2, *(word for setting in TINY for word in ("-o", setting))]


def _train(stage: str) -> Callable[[Path], list[object]]:
    return lambda root: ["train", 901, "3d_fullres", stage, *_CPU]


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "import",
            lambda root: ["import", "-i", root / "export", "-d", 510, "--name", "My", "-np", 2],
            ("raw/Dataset510_My/imagesTr/*",),
            0.1,
        ),
        Command("plan_and_preprocess", _tiny, (_CASES,)),
        Command("train chain", _train("chain"), (_STAGES, "preprocessed/*/*_scores/*/*.npy")),
        Command("train pretext", _train("pretext")),
        Command("train igd", _train("igd")),
        Command("train autoencoder", _train("autoencoder")),
        Command("train padim", _train("padim"), ("preprocessed/*/*_maps/*/*.npy",)),
        Command("train start_denoising", _train("start_denoising")),
        Command("calibrate", lambda root: ["calibrate", "-d", 901, *_CPU], (), 0.6),
        Command(
            "predict",
            lambda root: [
                *("predict", "-d", 901, "-i", root / "scans", "-o", root / "maps", *_CPU),
                *("--threshold", "p99", "--findings", "--page"),
            ],
            ("maps/phantom_????.nii.gz",),
            0.5,
        ),
        Command(
            "synthesize_anomalies",
            lambda root: [
                *("synthesize_anomalies", "-i", root / "scans", "-o", root / "set", "-np", 2),
                *("--kinds", "hypodense", "pasted"),
            ],
            ("set/*/placements/*.json",),
        ),
        Command(
            "evaluate",
            lambda root: [
                *("evaluate", "-i", root / "maps", "-r", root / "set" / "hypodense" / "masks"),
                *("-o", root / "figures", "-np", 1, "--images", root / "scans"),
            ],
            ("figures/histograms/*/*.npz",),
        ),
        Command(
            "export_model",
            lambda root: ["export_model", 901, "-o", root / "model.zip"],
            least=0.5,
        ),
        Command(
            "ablate",
            lambda root: [
                *("ablate", 901, "--densities", "gaussian", "--cells", "untrained/none/gaussian"),
                *_CPU,
            ],
            (_STAGES,),
        ),
        Command(
            "compare",
            lambda root: [
                *("compare", 901, "--detectors", "teacher", "autoencoder", "--steps", 6, *_CPU)
            ],
            (_STAGES,),
        ),
        Command(
            "finetune",
            lambda root: [*("finetune", "-d", 902, "--source", 901, "-f", 0), *_SHORT],
            (_TUNED,),
            varies=_OF_NNUNET,
        ),
        Command(
            "lowshot",
            lambda root: [
                *("lowshot", "-d", 902, "--source", 901, "--num_cases", 2, "--folds", 2),
                *("--init", "scratch", "student"),
                *_SHORT,
            ],
            (_TUNED,),
            varies=_OF_NNUNET + r"|lowshot[^/]*\.(md|json|csv|png)$",
        ),
    )
}
#: What starts from nothing but scans, and what from a trained chain; the rest, from a plan.
_BARE = ("plan_and_preprocess",)
_TRAINED = ("calibrate", "predict", "synthesize_anomalies", "evaluate", "export_model", "ablate")
_LABELLED = ("finetune", "lowshot")


@dataclass(frozen=True)
class Prepared:
    """Folders that are copied for every try.

    Attributes:
        world: theirs.
    """

    world: TinyWorld

    def copy(self, root: Path) -> TinyWorld:
        """The same elsewhere; times of files stay."""
        shutil.copytree(self.world.root, root, symlinks=True)
        return TinyWorld(root)


def prepare(name: str, root: Path, made: TinyWorld, trained: TinyWorld) -> Prepared:
    """The folders that a command starts from."""
    folder = root / "world"
    if name == "import":
        world = TinyWorld(folder)
        for kind in ("raw", "preprocessed", "results"):
            (folder / kind).mkdir(parents=True)
        rng = np.random.default_rng(0)
        for number in range(5):
            array = rng.integers(-900, 900, (24, 40, 36))
            series = folder / "export" / f"study{number}"
            write_dicom_series(series, array, uid=f"1.2.826.1.{number}", spacing=SPACING)
        return Prepared(world)
    world = (trained if name in (*_TRAINED, *_LABELLED) else made).copy(folder)
    if name in _BARE:
        shutil.rmtree(world.preprocessed)
    elif name in _LABELLED:
        raw = folder / "raw"
        unlabelled = (raw / DATASET).resolve()
        raw.unlink()  # all worlds share it
        raw.mkdir()
        (raw / DATASET).symlink_to(unlabelled)
        write_phantom_dataset(raw, "Dataset902_Lesions", 6, 3, lesion_labels=True, spacing=SPACING)
    elif name not in _TRAINED:
        lengthen(world)
    if name in ("predict", "synthesize_anomalies", "evaluate"):
        (folder / "scans").symlink_to((world.raw / "imagesTr").resolve())
    if name == "calibrate":
        for file in world.root.rglob("calibration.json"):
            file.unlink()
    if name == "evaluate":
        with pytest.MonkeyPatch.context() as patch:
            enter(world, patch)
            COMMANDS["synthesize_anomalies"].run(world).sound()
            COMMANDS["predict"].run(world).sound()
    return Prepared(world)


def lengthen(world: TinyWorld) -> None:
    """More epochs of two steps, so that there is time between the first and the last."""
    lengths = {"steps": 2 * _EPOCHS, "steps_per_epoch": 2, "warmup_steps": 1}
    stages = [*_OPTIMISERS, "baseline", "start"]
    words = [f"{s}.optimiser.{k}={v}" for s in stages for k, v in lengths.items()]
    plan = world.plan(*words).to_dict()
    (world.preprocessed / "ScreenerPlans.json").write_text(json.dumps(plan))


def flip(path: Path, place: float) -> None:
    """Turns a bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(bytes(content))


def cut(path: Path, place: float) -> None:
    """Cuts a file short."""
    content = path.read_bytes()
    path.write_bytes(content[: int(place * len(content))])
