"""Files that are torn, changed or removed behind a command's back."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.attempts import difference, digest, kill_all
from tests.faults.commands import cut, flip

# Command, which of its files, by a pattern below the root, and what is to be done where it refuses.
_FILES = [
    ("import", "raw/Dataset510_My/imagesTr/*.nii.gz"),
    ("plan_and_preprocess", "preprocessed/*/*_screener/*_hu.b2nd"),
    ("plan_and_preprocess", "preprocessed/*/*_screener/*_equalised.b2nd"),
    ("plan_and_preprocess", "preprocessed/*/*_screener/*.json"),
    ("plan_and_preprocess", "preprocessed/*/screener_fingerprint_cases.jsonl"),
    ("train padim", "preprocessed/*/*_maps/*/*.npy"),
    ("train chain", "preprocessed/*/*_scores/*/*.npy"),
    ("predict", "maps/*.nii.gz"),
    ("predict", "maps/cases.csv"),
    ("synthesize_anomalies", "set/*/images/*.nii.gz"),
    ("evaluate", "figures/histograms/*/*.npz"),
]


# What reads the files of a training.
_LAST_STAGES = {"train padim": "*_padim__*", "train chain": "DistillationTrainer__*"}


def removed(path: Path, place: float) -> None:
    """As if it had never been."""
    path.unlink()


@pytest.mark.parametrize("fault", [cut, removed])
@pytest.mark.parametrize(("bench", "pattern"), _FILES, indirect=["bench"])
def test_a_finished_file_is_damaged(
    bench: Any, pattern: str, fault: Callable[[Path, float], None], tmp_path: Path
) -> None:
    """The command is run again: the file is made again, or named with what is to be done."""
    refused = 0
    for _ in range(bench.tries):
        world = bench.fresh(tmp_path / "world")
        bench.command.run(world).sound()
        path = bench.random.choice(sorted(world.root.glob(pattern)))
        last = _LAST_STAGES.get(bench.command.name)
        if last:  # a finished stage is not looked into
            for stage in world.root.glob(f"results/*/{last}/fold_all"):
                shutil.rmtree(stage)
        fault(path, bench.random.uniform(0, 0.95))
        ended = bench.command.run(world)
        named = path.name in ended.output
        if ended.code or named:
            refused += 1
            assert named and "Traceback" not in ended.output, ended.output[-3000:]
            path.unlink(missing_ok=True)
            ended = bench.command.run(world).sound()
        odd = difference(digest(world.root, bench.command), bench.wanted)
        assert not odd, (str(path), odd[:5], ended.output[-2000:])
    word = {"cut": "is cut short", "removed": "is removed"}[fault.__name__]
    happened = "is made again" if not refused else "is named; made again once it is deleted"
    bench.tell(f"`{Path(pattern).name}` {word}", happened)


@pytest.mark.parametrize("fault", [cut, flip])
@pytest.mark.parametrize("bench", ["train chain", "train pretext", "train igd"], indirect=True)
def test_the_last_checkpoint_is_torn(
    bench: Any, fault: Callable[[Path, float], None], tmp_path: Path
) -> None:
    """The training goes on from the one before, or says how to begin anew."""
    refused = 0
    for _ in range(bench.tries):
        world = bench.fresh(tmp_path / "world")
        process, latest = bench.command.start(world), []
        deadline = time.monotonic() + bench.seconds
        while not latest and time.monotonic() < deadline:
            latest = list(world.root.glob("results/*/*/fold_all/checkpoint_latest.pth"))
            time.sleep(0.01)
        time.sleep(bench.random.uniform(0, 0.5))
        kill_all(process)
        latest = list(world.root.glob("results/*/*/fold_all/checkpoint_latest.pth"))
        if not latest:
            continue
        fault(latest[0], bench.random.uniform(0.05, 0.95))
        ended = bench.command.run(world)
        if ended.code:
            refused += 1
            assert "--restart" in ended.sentence and "checkpoint" in ended.sentence
            shutil.rmtree(latest[0].parent)
            ended = bench.command.run(world).sound()
        odd = difference(digest(world.root, bench.command), bench.wanted)
        assert not odd, (odd, ended.output[-3000:])
    word = {"cut": "is cut short", "flip": "has a flipped bit"}[fault.__name__]
    happened = "goes on from the best epoch's, or is not affected"
    if refused:
        happened += f"; refused with the way out {refused} times"
    bench.tell(f"`checkpoint_latest.pth` {word}", happened, "the epochs since then")


_RUNNING = [
    ("plan_and_preprocess", "preprocessed/*/*_screener/*.b2nd"),
    ("train padim", "preprocessed/*/*_maps/*/*.npy"),
    ("predict", "maps/*.nii.gz"),
    ("synthesize_anomalies", "set/*/images/*.nii.gz"),
]


@pytest.mark.parametrize(("bench", "pattern"), _RUNNING, indirect=["bench"])
def test_files_vanish_while_it_runs(bench: Any, pattern: str, tmp_path: Path) -> None:
    """What is missing is named or made again; the next start mends it."""
    taken = 0
    for _ in range(bench.tries):
        world = bench.fresh(tmp_path / "world")

        def take(root: Path = world.root, when: float = bench.moment()) -> None:
            time.sleep(when)
            found = sorted(p for p in root.glob(pattern) if not p.name.startswith("."))
            if found:
                nonlocal taken
                taken += 1
                bench.random.choice(found).unlink(missing_ok=True)

        thief = threading.Thread(target=take)
        thief.start()
        ended = bench.command.run(world)
        thief.join()
        assert "Traceback" not in ended.output, ended.output[-4000:]
        if "train" in bench.command.name and ended.code == 0:
            continue  # the scan was left out, and is named
        bench.ends_as_wanted(world)
    bench.tell(
        f"`{Path(pattern).name}` vanishes while it runs", "the next start mends it", tries=taken
    )


@pytest.mark.parametrize(
    "bench",
    ["import", "plan_and_preprocess", "train chain", "train pretext", "predict", "evaluate",
     "synthesize_anomalies", "calibrate", "compare", "finetune", "lowshot"],
    indirect=True,
)  # fmt: skip
def test_two_at_once(bench: Any, tmp_path: Path) -> None:
    """Both end well, or one says that another is at work; what they made is that of one."""
    waited = 0
    for _ in range(bench.tries):
        world = bench.fresh(tmp_path / "world")
        first = bench.command.start(world)
        time.sleep(bench.random.uniform(0, 0.5) * bench.seconds)
        second = bench.command.start(world)
        outputs = [process.communicate(timeout=900)[0] for process in (first, second)]
        for process, output in zip((first, second), outputs, strict=True):
            assert "Traceback" not in output, output[-4000:]
            if process.returncode:
                waited += 1
                assert re.search(r"another (process|run) is", output), output[-3000:]
        assert first.returncode == 0 or second.returncode == 0, outputs
        bench.ends_as_wanted(world)
    happened = "both end well" if not waited else "one says that another process is at work"
    bench.tell("two processes on one output", happened)
