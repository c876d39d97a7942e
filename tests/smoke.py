"""A plain install works: run by itself, away from the repository, after `pip install <wheel>`.

It needs no test package. Every command answers `--help`, all rooms are there with the files that
are no Python, and phantoms become a plan and cases.
"""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

DATASET = "Dataset901_Smoke"
OVERRIDES = ("descriptor.volumes_per_step=2", "low_precision_cpu=false")


def main() -> None:
    """Ends with an error where anything is missing."""
    package = import_module("screener_nnu")
    place = Path(str(package.__file__)).resolve()
    assert Path(__file__).resolve().parents[1] not in place.parents, f"{place} is the clone itself"
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "screener_nnu.")]
    assert {"screener_nnu.planners.run", "screener_nnu.trainers.run"} <= set(names), names
    from screener_nnu.viewer.page import asset

    for name in ("page.html", "index.html", "index.css"):
        assert asset(name), name
    for script in sorted(entry_points(group="console_scripts"), key=lambda entry: entry.name):
        if script.value.startswith("screener_nnu."):
            subprocess.run([script.name, "--help"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        _plan(Path(folder))
    print(f"{len(names)} modules of {place.parent}: installed and working")


def _plan(root: Path) -> None:
    """Plans and prepares three phantoms by the commands."""
    from screener_nnu.synthetic import write_phantom_dataset

    kinds = ("raw", "preprocessed", "results")
    environment = {f"nnUNet_{kind}": str(root / kind) for kind in kinds}
    write_phantom_dataset(root / "raw", DATASET, 3, 7, spacing=(12.0, 9.0, 9.0))
    settings = [word for setting in OVERRIDES for word in ("-o", setting)]
    subprocess.run(
        ["screener_plan_and_preprocess", "-d", "901", "--preset", "cpu", "-np", "1", *settings],
        check=True,
        env={**os.environ, **environment},
    )
    cases = list((root / "preprocessed" / DATASET / "ScreenerPlans_screener").glob("*.json"))
    assert len(cases) == 3, cases


if __name__ == "__main__":
    sys.exit(main())
