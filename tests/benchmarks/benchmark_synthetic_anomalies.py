"""AUROC on synthetic anomalies in the test scans of a plan, beside every baseline.

    python tests/benchmarks/benchmark_synthetic_anomalies.py -d 901 -o anomalies \
        --models student teacher untrained=ScreenerPlans_untrained

puts every kind of synthetic anomaly into the scans that the plan keeps for evaluation
(`screener_synthesize_anomalies`), predicts each model's maps of them and evaluates every kind by
itself. Calling it again goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from screener_nnu.commands import evaluate, predict, synthesize_anomalies
from screener_nnu.synthetic.anomalies import KINDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", dest="dataset", required=True)
    parser.add_argument("-o", dest="output", type=Path, required=True)
    parser.add_argument("-p", dest="plans", default="ScreenerPlans")
    parser.add_argument("--use", choices=["test", "validation"], default="test")
    parser.add_argument("--models", nargs="+", default=["student", "teacher"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    synthesize_anomalies.main(
        ["-d", arguments.dataset, "-p", arguments.plans, "--use", arguments.use]
        + ["-o", str(arguments.output), "--seed", str(arguments.seed)]
        + ["--kinds", *arguments.kinds]
    )
    for kind in arguments.kinds:
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
