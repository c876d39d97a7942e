"""The steps of the demo: each is a command that a user would type."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from screener_nnu.demo.settings import LABELLED, PRETRAINING, DemoPaths, DemoSize
from screener_nnu.plans import VOLUMES

SOURCE = str(int(PRETRAINING[7:10]))
TARGET = str(int(LABELLED[7:10]))
UNTRAINED_PLANS = "ScreenerPlans_untrained"
METHODS = ("student", "teacher", "untrained")
PROCESSES = 2


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: key in the record of times.
        title: what it does, for terminal and page.
        command: the line that a user would type.
        action: does it; the commands leave alone what is finished.
    """

    name: str
    title: str
    command: str
    action: Callable[[], object]


def demo_steps(paths: DemoPaths, size: DemoSize, device: str) -> list[Step]:
    """All steps in order."""
    return [
        _phantoms(paths, size),
        _command_step(
            "plan",
            "Fingerprint the scans, plan every stage, preprocess",
            "plan_and_preprocess",
            [
                *("-d", SOURCE, "--preset", "cpu", "--width", str(size.width)),
                *("-np", str(PROCESSES), *size.planning),
            ],
        ),
        *_training(size, device),
        *(_prediction(paths, method, device) for method in METHODS),
        _evaluation(paths),
        *(_fine_tuning(size, start, device) for start in ("student", "scratch")),
    ]


def _phantoms(paths: DemoPaths, size: DemoSize) -> Step:
    def write() -> None:
        from screener_nnu.demo.phantoms import write_phantoms

        write_phantoms(paths, size)

    count = size.training_scans + size.test_scans + size.labelled_scans + 1
    title = f"Compute {count} CT phantoms (instead of downloading data)"
    return Step("phantoms", title, "", write)


def _command_step(name: str, title: str, module: str, arguments: list[str]) -> Step:
    def call() -> None:
        importlib.import_module(f"screener_nnu.commands.{module}").main(arguments)

    return Step(name, title, shlex.join([f"screener_{module}", *arguments]), call)


def _training(size: DemoSize, device: str) -> list[Step]:
    train = [SOURCE, VOLUMES]
    chosen = [word for setting in size.overrides() for word in ("-o", setting)]
    control = [f"density.{network}_plans=untrained" for network in ("descriptor", "condition")]
    control = [word for setting in control for word in ("-o", setting)]
    return [
        _command_step(
            "chain",
            "Train descriptor, condition, density and student, without any label",
            "train",
            [*train, "chain", *chosen, "-device", device],
        ),
        _command_step(
            "untrained",
            "Control: the same density on networks that have learned nothing",
            "train",
            [*train, "density", "-p", UNTRAINED_PLANS, *control, "-device", device],
        ),
    ]


def _prediction(paths: DemoPaths, method: str, device: str) -> Step:
    options = {
        "student": [],
        "teacher": ["--teacher"],
        "untrained": ["--teacher", "-p", UNTRAINED_PLANS],
    }
    images, maps = str(paths.test / "images"), str(paths.maps(method))
    arguments = ["-d", SOURCE, "-i", images, "-o", maps, *options[method], "-device", device]
    title = f"Anomaly maps of the test scans: {method}"
    return _command_step(f"predict_{method}", title, "predict", arguments)


def _evaluation(paths: DemoPaths) -> Step:
    maps = [f"{method}={paths.maps(method)}" for method in METHODS]
    masks, images = str(paths.test / "masks"), str(paths.test / "images")
    arguments = ["-i", *maps, "-r", masks, "--images", images, "-d", SOURCE]
    arguments += ["-o", str(paths.evaluation), "-np", str(PROCESSES)]
    title = "Compare with the annotation, beside baselines that learn nothing"
    return _command_step("evaluate", title, "evaluate", arguments)


def _fine_tuning(size: DemoSize, start: str, device: str) -> Step:
    arguments = ["-d", TARGET, "--source", SOURCE, "-f", "0", "--init", start]
    arguments += ["--epochs", str(size.epochs), "--iterations", str(size.iterations)]
    arguments += ["-device", device, "-np", str(PROCESSES)]
    title = f"Start stock nnU-Net on labelled scans: {start}"
    return _command_step(f"finetune_{start}", title, "finetune", arguments)
