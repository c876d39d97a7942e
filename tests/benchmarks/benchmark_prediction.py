"""Time and memory of prediction by phase, on generated CT, beside stock nnU-Net.

    python tests/benchmarks/benchmark_prediction.py -d 901 -p ScreenerPlans [--sizes mid]

makes scans of three sizes from a phantom (head to foot it is repeated upside down, in between it
is interpolated, and every voxel gets noise, so that the files are as hard to pack as real ones),
and predicts each in a process of its own: student and teacher phase by phase, several scans in a
row as `screener_predict` does, and nnU-Net's predictor with the student's architecture and two
outputs. nnU-Net writes a mask of whole numbers, we a map of float32 and a mask; mirroring is off
for both; nnU-Net takes its own tiles (the plan's patch, Gaussian weights, steps of half a tile),
then tiles as large as ours. Processor seconds are those of all threads of the process; with
`--device cuda`, seconds are those of the clock.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from screener_nnu.inference.predict import Predictor

SIZES = {
    "small": ((100, 256, 256), (1.0, 1.5, 1.5)),
    "mid": ((400, 512, 512), (1.0, 0.78, 0.78)),
    "long": ((1200, 512, 512), (1.0, 0.78, 0.78)),
}
MODELS = ("student", "teacher", "nnunet", "nnunet_large_tile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", dest="dataset", required=True)
    parser.add_argument("-p", dest="plans", default="ScreenerPlans")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--row", type=int, default=3, help="scans in a row (0: leave that out)")
    parser.add_argument("--child", nargs=2, metavar=("MODEL", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_child(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            path = Path(folder) / f"{size}_0000.nii.gz"
            make_scan(path, *SIZES[size])
            print(f"\n{size}: {' x '.join(map(str, SIZES[size][0]))} voxels (z, y, x)")
            _table([(m, _measure(m, path)) for m in arguments.models])
            path.unlink()


def make_scan(path: Path, shape: tuple[int, int, int], spacing: tuple[float, ...]) -> None:
    """Writes a CT of a phantom (z, y, x), int16."""
    import SimpleITK as sitk  # noqa: N813

    from screener_nnu.preprocessing.resampling import resampled_slabs
    from screener_nnu.synthetic import generate_phantom

    coarse = (4.0, 3.0, 3.0)
    body = generate_phantom(3, coarse).image_hu
    wanted = [round(n * s / c) for n, s, c in zip(shape, spacing, coarse, strict=True)]
    margins = [max(0, n - have) for n, have in zip(wanted[1:], body.shape[1:], strict=True)]
    body = np.pad(body, [(0, 0), *((m // 2, m - m // 2) for m in margins)], constant_values=-1000)
    turns = [body[::-1] if i % 2 else body for i in range(-(-wanted[0] // len(body)))]
    whole = np.concatenate(turns)[: wanted[0]]
    scan = np.empty(shape, np.int16)
    generator = np.random.default_rng(0)
    for first, rows in resampled_slabs(whole, shape):
        noise = generator.standard_normal(rows.shape, np.float32) * 15
        scan[first : first + len(rows)] = np.clip(rows + noise, -1024, 3071).round()
    image = sitk.GetImageFromArray(scan)
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(path), useCompression=True)


def _measure(model: str, path: Path) -> dict[str, Any]:
    """A fresh process, so that its peak of memory is that of one scan."""
    command = [sys.executable, *sys.argv, "--child", model, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{model} failed:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def _table(rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Seconds by phase, and wall seconds and memory of the whole."""
    print("| | read | prepare | network | back | write | total (wall) | peak GB | of nnunet |")
    print("|---|---|---|---|---|---|---|---|---|")
    stock = next((row["seconds"]["total"] for name, row in rows if name == "nnunet"), None)
    for name, row in rows:
        seconds = row["seconds"]
        cells = [f"{seconds[p]:.1f}" for p in ("read", "prepare", "network", "back", "write")]
        ratio = f"{seconds['total'] / stock:.2f}" if stock else ""
        cells += [f"{seconds['total']:.1f} ({row['wall']:.1f})", f"{row['peak_gb']:.1f}", ratio]
        print(f"| {name} | {' | '.join(cells)} |")
        if "in_a_row" in row:
            print(f"  {name}, scans in a row: {row['in_a_row']}")


class _Clock:
    """Seconds by phase: of the processor, or with another device of the clock."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.begin = time.perf_counter()

    def now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    def __call__(self, phase: str, step: Callable[[], Any]) -> Any:
        start = self.now()
        result = step()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + self.now() - start
        return result

    def summary(self) -> dict[str, Any]:
        wall = time.perf_counter() - self.begin
        seconds = {**self.seconds, "total": sum(self.seconds.values())}
        return {"seconds": seconds, "wall": wall, "peak_gb": peak_gb()}


def peak_gb() -> float:
    """Highest resident memory of this process (GB)."""
    status = Path("/proc/self/status")
    if status.is_file():
        # `getrusage` would hand down the peak of the process that started this one.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS counts bytes


def _child(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from screener_nnu.paths import set_default_folders

    set_default_folders()
    torch.set_num_threads(arguments.threads)
    model, path = arguments.child[0], Path(arguments.child[1])
    with tempfile.TemporaryDirectory() as output:
        if model.startswith("nnunet"):
            return _stock(arguments, path, Path(output), model == "nnunet_large_tile")
        return _ours(arguments, model, path, Path(output))


def _ours(arguments: argparse.Namespace, model: str, path: Path, output: Path) -> dict[str, Any]:
    import torch

    from screener_nnu.detectors import ModelRef
    from screener_nnu.inference.predict import Predictor, predict_files

    device = torch.device(arguments.device)
    loaded = ModelRef(arguments.dataset, arguments.plans, model).load(device)
    predictor = Predictor.of(loaded, device)
    result = _phases(predictor, path, output)
    if arguments.row:
        cases = {f"scan{i}": path for i in range(arguments.row)}
        begin, cpu = time.perf_counter(), time.process_time()
        assert predict_files(predictor, cases, output / "row") == {}
        seconds = (time.perf_counter() - begin) / arguments.row
        busy = (time.process_time() - cpu) / arguments.row
        memory = f"peak {peak_gb():.1f} GB"
        result["in_a_row"] = f"{seconds:.1f} s a scan, processor {busy:.1f} s, {memory}"
    return result


def _phases(predictor: Predictor, path: Path, output: Path) -> dict[str, Any]:
    """What `Predictor.predict` and `predict_files` do with one scan, step by step."""
    from screener_nnu.inference.volume import score_map
    from screener_nnu.preprocessing.image_files import write_image
    from screener_nnu.preprocessing.mapping import mask_to_input_geometry, to_input_geometry
    from screener_nnu.preprocessing.prepare import prepare_image
    from screener_nnu.preprocessing.reading import read_image

    plan, device, lowest = predictor.plan, predictor.device, predictor.lowest
    settings = plan.settings.preprocessing
    clock = _Clock(device.type)
    raw = clock("read", lambda: read_image(path, "scan"))
    made = clock("prepare", lambda: prepare_image(raw, settings))
    images = (made.hu, made.equalised)
    scorer = predictor.scorer
    scores = clock("network", lambda: score_map(scorer, *images, plan, device, made.body))
    place = (made.frame, lowest, made.body, device)
    score = clock("back", lambda: to_input_geometry(scores, *place))
    body = clock("back", lambda: mask_to_input_geometry(made.body, made.frame))
    clock("write", lambda: write_image(score, output / "map.nii.gz"))
    clock("write", lambda: write_image(body, output / "map_body.nii.gz"))
    return clock.summary()


def _stock(
    arguments: argparse.Namespace, path: Path, output: Path, large_tile: bool
) -> dict[str, Any]:
    """nnU-Net's own reading, preprocessing, sliding window and export."""
    import torch
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.export_prediction import export_prediction_from_logits
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from screener_nnu.detectors import ModelRef
    from screener_nnu.networks.unet import build_unet

    plan = ModelRef(arguments.dataset, arguments.plans).load(torch.device("cpu")).plan
    values = plan.to_dict()
    if large_tile:
        tile = list(plan.settings.inference.student_tile)
        values["configurations"]["3d_fullres"]["patch_size"] = tile
    manager = PlansManager(values)
    configuration = manager.get_configuration("3d_fullres")
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "lesion": 1},
        "file_ending": ".nii.gz",
    }
    network = build_unet(plan, 1, 2, 0).eval()
    device = torch.device(arguments.device)
    predictor = nnUNetPredictor(use_mirroring=False, device=device, allow_tqdm=False)
    predictor.manual_initialization(
        network, manager, configuration, [network.state_dict()], description, "stock", None
    )
    clock = _Clock(arguments.device)
    image, properties = clock("read", lambda: SimpleITKIO().read_images([str(path)]))
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = clock(
        "prepare",
        lambda: preprocessor.run_case_npy(
            image, None, properties, manager, configuration, description
        ),
    )
    logits = clock(
        "network",
        lambda: predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu(),
    )
    target = str(output / "mask")
    export = (logits, properties, configuration, manager, description, target, False)
    # nnU-Net resamples and writes in one function.
    clock("back", lambda: export_prediction_from_logits(*export))
    clock("write", lambda: None)
    return clock.summary()


if __name__ == "__main__":
    main()
