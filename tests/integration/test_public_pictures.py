"""PaDiM on breast ultrasound (BUSI) is what others measure; only where the pictures are at hand.

`SCREENER_TEST_BUSI` names the folder with `normal`, `benign` and `malignant` in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Image AUROC of another implementation on splits of its own, with ImageNet features.
OTHERS = {"benign": 0.881, "malignant": 0.735}


@pytest.mark.slow
@pytest.mark.skipif("SCREENER_TEST_BUSI" not in os.environ, reason="SCREENER_TEST_BUSI is not set")
def test_padim_agrees_with_others(tmp_path: Path) -> None:
    study = Path(__file__).parents[1] / "benchmarks" / "study_pictures.py"
    words = ["--out", str(tmp_path), "--seeds", "3", "--busi", os.environ["SCREENER_TEST_BUSI"]]
    command = [sys.executable, str(study), *words, "--detectors", "padim_imagenet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    row = next(line for line in lines if line[0] == "padim_imagenet")
    columns = next(line for line in lines if "image benign" in line)
    for kind, expected in OTHERS.items():
        found = row[columns.index(f"image {kind}") + 1].partition(" ")[0]
        assert float(found) == pytest.approx(expected, abs=0.05), done.stdout
