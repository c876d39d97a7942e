"""Thousands of generated scans on a cluster of this machine that kills workers for their memory.

    python tests/benchmarks/benchmark_cluster.py --out FOLDER --scans 2000 --large 10 --worker_gb 2

Small scans, and a few whose preparation needs more memory than a worker may take, are planned,
prepared and predicted on Dask's workers; the small ones are prepared by processes of ours, too, and
by nnU-Net's own preprocessing, in the same run and with as many processes. The network is trained
for two steps: times count here, not what it finds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from many_scans import write_many_scans  # noqa: E402

_SMALL, _LARGE, _POOL = 990, 991, 992
_SPACING = (6.0, 5.0, 5.0)
_LARGE_SHAPE = (512, 512, 512)
_STUDENT = (
    "distillation.target=hu_rarity",
    *("distillation.optimiser.steps=2", "distillation.optimiser.warmup_steps=1"),
    "calibration.max_scans=4",
)


def main() -> None:
    """Runs all of it and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=2000)
    parser.add_argument("--large", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--worker_gb", type=float, default=2.0)
    arguments = parser.parse_args()
    home, workers = arguments.out.resolve(), str(arguments.workers)
    for root in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[root] = str(home / root)
    os.environ.pop("nnUNet_n_proc_DA", None)  # with 0, nnU-Net's planner fails
    _generate(home / "nnUNet_raw", arguments.scans, arguments.large)
    cluster = ["--cluster", "-np", workers, "--worker_gb", str(arguments.worker_gb)]
    made = ["--preset", "cpu", "--spacing", "6", "5", "5"]
    pool = ["-d", str(_SMALL), str(_LARGE), "--pool", str(_POOL), "All", *made]
    every, count = arguments.scans + arguments.large, arguments.scans
    print("| | scans | s | scans a second |\n|---|---|---|---|")
    planned = ["plan_and_preprocess", *pool, *cluster, "--no_preprocessing"]
    _row("fingerprint and plan, cluster", every, _seconds(planned))
    _row("preparation, cluster", every, _seconds(["plan_and_preprocess", *pool, *cluster]))
    summary = home / "nnUNet_preprocessed" / f"Dataset{_POOL}_All" / "preprocessing_summary.json"
    done = json.loads(summary.read_text())
    print(f"prepared {done['done']}, skipped {len(done['skipped'])}", file=sys.stderr)
    own = ["plan_and_preprocess", "-d", str(_SMALL), *made, "-np", workers]
    _seconds([*own, "--no_preprocessing"])
    _row("preparation, processes", count, _seconds(own))
    _row("preparation, nnU-Net", count, _nnunet(workers))
    overrides = [word for setting in _STUDENT for word in ("-o", setting)]
    _seconds(["train", str(_POOL), "3d_fullres", "distillation", "-device", "cpu", *overrides])
    scans = home / "nnUNet_raw" / f"Dataset{_SMALL}_Small" / "imagesTr"
    predict = ["predict", "-d", str(_POOL), "-i", str(scans), "-device", "cpu"]
    _row("prediction, cluster", count, _seconds([*predict, "-o", str(home / "maps"), *cluster]))
    _row("prediction, one process", count, _seconds([*predict, "-o", str(home / "alone")]))


def _generate(raw: Path, scans: int, large: int) -> None:
    """Both data sets, unless they are there."""
    import SimpleITK as sitk  # noqa: N813

    if not (raw / f"Dataset{_SMALL}_Small").is_dir():
        write_many_scans(raw, f"Dataset{_SMALL}_Small", scans, _SPACING, labels=True)
    folder = raw / f"Dataset{_LARGE}_Large"
    if folder.is_dir():
        return
    small = raw / f"Dataset{_SMALL}_Small"
    (folder / "imagesTr").mkdir(parents=True)
    first = sitk.ReadImage(str(sorted((small / "imagesTr").iterdir())[0]))
    whole = np.array(first.GetSize()) * first.GetSpacing()
    for number in range(large):
        size = [int(n) for n in _LARGE_SHAPE[::-1]]
        spacing = (whole / size).tolist()
        image = sitk.Resample(
            first, size, sitk.Transform(), sitk.sitkLinear, first.GetOrigin(), spacing
        )
        sitk.WriteImage(image, str(folder / "imagesTr" / f"large_{number:04d}_0000.nii.gz"))
    text = (small / "dataset.json").read_text()
    description = {**json.loads(text), "numTraining": large}
    (folder / "dataset.json").write_text(json.dumps(description))


def _seconds(words: Sequence[str]) -> float:
    """Time of one of our commands."""
    command = str(Path(sys.executable).with_name(f"screener_{words[0]}"))
    return _timed([sys.executable, command, *words[1:]])


def _nnunet(workers: str) -> float:
    """Time of nnU-Net's preprocessing alone."""
    entry = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import {0}; {0}()"
    plan = [sys.executable, "-c", entry.format("extract_fingerprint_entry")]
    _timed([*plan, "-d", str(_SMALL), "-np", workers])
    plan = [sys.executable, "-c", entry.format("plan_experiment_entry")]
    # Nearly the grid of ours: it chooses one of its own otherwise.
    spacing = ["-overwrite_target_spacing", *map(str, _SPACING)]
    _timed([*plan, "-d", str(_SMALL), *spacing, "-overwrite_plans_name", "Same"])
    run = [sys.executable, "-c", entry.format("preprocess_entry")]
    own = ["-plans_name", "Same", "-c", "3d_fullres", "-np", workers]
    seconds = _timed([*run, "-d", str(_SMALL), *own])
    folder = Path(os.environ["nnUNet_preprocessed"]) / f"Dataset{_SMALL}_Small"
    if not any(folder.glob("Same_*/*.b2nd")):
        raise SystemExit("nnU-Net has prepared nothing: see above")
    return seconds


def _timed(command: Sequence[str]) -> float:
    begin = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode:  # ours do where a scan is skipped, and have said why
        print(f"{command[1]} ended with {done.returncode}", file=sys.stderr)
    return time.monotonic() - begin


def _row(what: str, scans: int, seconds: float) -> None:
    print(f"| {what} | {scans} | {seconds:.0f} | {scans / seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
