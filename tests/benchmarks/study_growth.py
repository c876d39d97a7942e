"""How time and memory of planning, preparation and prediction grow with number and size of scans.

    python tests/benchmarks/study_growth.py --out FOLDER --scans 10 100 1000 --edges 96 192 288 384

Numbers: generated scans of one size go through each command; the slope is that of the logarithms
(1: twice the scans, twice the cost). Sizes: one scan of an edge in voxels of 1.5 mm, prepared on
that grid and predicted. Memory is the highest of the command and of one of its processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from many_scans import write_many_scans  # noqa: E402

_SPACING = (9.0, 7.5, 7.5)
_STUDENT = (
    "distillation.target=hu_rarity",
    *("distillation.optimiser.steps=2", "distillation.optimiser.warmup_steps=1"),
    "calibration.max_scans=4",
)
_NUMBER, _SIZES = 980, 981


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scans", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--edges", type=int, nargs="*", default=[96, 192, 288, 384])
    parser.add_argument("--workers", default="2")
    arguments = parser.parse_args()
    home = arguments.out.resolve()
    for root in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[root] = str(home / root)
    numbers = {count: _of_number(home, count, arguments.workers) for count in arguments.scans}
    if numbers:
        _table("scans", numbers)
    if arguments.edges:
        _table("edge", {edge: _of_size(home, edge) for edge in arguments.edges}, 3)


def _of_number(home: Path, count: int, workers: str) -> dict[str, tuple[float, float]]:
    dataset = _NUMBER
    name = f"Dataset{dataset}_Number"
    for root in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        shutil.rmtree(home / root / name, ignore_errors=True)
    write_many_scans(home / "nnUNet_raw", name, count, _SPACING)
    spacing = [str(v) for v in _SPACING]
    plan = ["plan_and_preprocess", "-d", str(dataset), "--preset", "cpu", "-np", workers]
    plan += ["--spacing", *spacing]
    overrides = [word for setting in _STUDENT for word in ("-o", setting)]
    train = ["train", str(dataset), "3d_fullres", "distillation", "-device", "cpu", *overrides]
    images, maps = home / "nnUNet_raw" / name / "imagesTr", home / f"maps{count}"
    predict = ["predict", "-d", str(dataset), "-i", str(images), "-o", str(maps), "-device", "cpu"]
    found = {
        "fingerprint and plan": _run([*plan, "--no_preprocessing"]),
        "preparation": _run(plan),
        "both again, all done": _run(plan),
    }
    _run(train)
    found["prediction"] = _run(predict)
    found["prediction again, all done"] = _run(predict)
    return found


def _of_size(home: Path, edge: int) -> dict[str, tuple[float, float]]:
    """A cylinder of noise, read from its file and prepared on its own grid."""
    import SimpleITK as sitk  # noqa: N813

    y, x = np.ogrid[-1 : 1 : edge * 1j, -1 : 1 : edge * 1j]
    noise = np.random.default_rng(0).normal(40, 20, (edge,) * 3).astype(np.float32)
    noise[:, y * y + x * x > 0.8] = -1000
    image = sitk.GetImageFromArray(noise.astype(np.int16))
    image.SetSpacing((_VOXEL,) * 3)
    path = home / f"size_{edge}.nii.gz"
    home.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    read = f"raw = read_image(Path({str(path)!r}), 'scan')\n"
    made = read + _PREPARE.format(folder=str(home / f"case_{edge}"))
    return {"reading": _python(_IMPORTS + read), "preparation": _python(_IMPORTS + made)}


_VOXEL = 1.5
_IMPORTS = """
from pathlib import Path
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.case_files import write_case
from screener_nnu.preprocessing.prepare import prepare_image
from screener_nnu.preprocessing.reading import read_image
"""
_PREPARE = f"""
grid = ({_VOXEL},) * 3
settings = PreprocessingSettings(grid, grid, (-1000.0, 1000.0), (-1000.0, 300.0))
write_case(Path({{folder!r}}), 'scan', prepare_image(raw, settings))
"""


def _run(words: Sequence[str]) -> tuple[float, float]:
    command = str(Path(sys.executable).with_name(f"screener_{words[0]}"))
    return _timed([sys.executable, command, *words[1:]])


def _python(code: str) -> tuple[float, float]:
    return _timed([sys.executable, "-c", code])


def _timed(command: Sequence[str]) -> tuple[float, float]:
    """Seconds, and the highest memory (GB) of the process or of one that it waited for."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        print(said[-2000:], file=sys.stderr)
        raise SystemExit(f"{' '.join(command[:3])} failed")
    return time.monotonic() - begun, usage.ru_maxrss * 1024 / 1e9


def _table(what: str, found: dict[int, dict[str, tuple[float, float]]], power: int = 1) -> None:
    """Rows of commands; the slope is over the logarithm of the number, or of the voxels."""
    counts = list(found)
    heads = " | ".join(f"{count} {what}" for count in counts)
    print(f"\n| | {heads} | slope of time | slope of memory |\n|---|{'---|' * (len(counts) + 2)}")
    for command in found[counts[0]]:
        values = np.array([found[count][command] for count in counts])
        cells = " | ".join(f"{seconds:.1f} s, {memory:.2f} GB" for seconds, memory in values)
        x = power * np.log(counts)
        slopes = [np.polyfit(x, np.log(column), 1)[0] for column in values.T]
        print(f"| {command} | {cells} | {slopes[0]:.2f} | {slopes[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
