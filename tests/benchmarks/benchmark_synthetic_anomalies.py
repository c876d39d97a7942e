"""AUROC on synthetic anomalies in the test scans of a plan, beside every baseline.

    python tests/benchmarks/benchmark_synthetic_anomalies.py -d 901 -o anomalies \
        --models student teacher untrained=ScreenerPlans_untrained

puts every kind of synthetic anomaly into the scans that the plan keeps for
evaluation, predicts each model's maps of them and evaluates every kind by itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from screener_nnu.commands import evaluate, predict
from screener_nnu.paths import FINGERPRINT_FILE, plan_file, preprocessed_folder
from screener_nnu.plans import read_plan
from screener_nnu.synthetic import synthesize_test_set
from screener_nnu.synthetic.anomalies import KINDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", dest="dataset", required=True)
    parser.add_argument("-o", dest="output", type=Path, required=True)
    parser.add_argument("-p", dest="plans", default="ScreenerPlans")
    parser.add_argument("--use", choices=["test", "validation"], default="test")
    parser.add_argument("--models", nargs="+", default=["student", "teacher"])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    _, settings = read_plan(plan_file(arguments.dataset, arguments.plans))
    folder = preprocessed_folder(arguments.dataset)
    cases = json.loads((folder / FINGERPRINT_FILE).read_text())["cases"]
    names = getattr(settings.split, arguments.use)
    if not (arguments.output / "placement.json").is_file():
        images = [Path(cases[name]["image"]) for name in names]
        synthesize_test_set(images, arguments.output, arguments.seed)
    for kind in KINDS:
        _evaluate_kind(arguments, arguments.output / kind)


def _evaluate_kind(arguments: argparse.Namespace, folder: Path) -> None:
    maps = []
    for model in arguments.models:
        name, _, plans = model.partition("=")
        output = folder / "maps" / name
        request = ["-d", arguments.dataset, "-i", str(folder / "images"), "-o", str(output)]
        request += ["-p", plans or arguments.plans]
        predict.main(request if name.startswith("student") else [*request, "--teacher"])
        maps.append(f"{name}={output}")
    print(f"\n{folder.name}")
    evaluate.main(
        ["-i", *maps, "-r", str(folder / "masks"), "--images", str(folder / "images")]
        + ["-d", arguments.dataset, "-o", str(folder / "evaluation")]
    )


if __name__ == "__main__":
    main()
