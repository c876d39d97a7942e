"""The demo from one end to the other, with a few steps on a few phantoms of few voxels."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Worker processes import the main module, hence the guard.
SCRIPT = """
from pathlib import Path

from screener_nnu.demo.run import run_demo
from screener_nnu.demo.settings import DemoSize

if __name__ == "__main__":
    run_demo(
        Path("out"),
        size=DemoSize(
            training_scans=4,
            test_scans=2,
            labelled_scans=3,
            width=4,
            descriptor=2,
            condition=2,
            density=2,
            distillation=2,
            epochs=1,
            iterations=1,
            planning=(
                *("--spacing", "8", "8", "8", "-o", "density.crop_size=[32,40,40]"),
                *("-o", "descriptor.volumes_per_step=1", "-o", "density.volumes_per_step=1"),
                *("-o", "condition.contrast.volumes_per_step=1"),
                *("-o", "distillation.volumes_per_step=1"),
            ),
        ),
    )
"""
STEPS = 10
METHODS = {"student", "teacher", "untrained", "hu_rarity", "skin_depth", "centre_proximity"}


def _run(folder: Path) -> str:
    (folder / "small.py").write_text(SCRIPT)
    command = [sys.executable, "small.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_demo_runs_writes_its_page_and_resumes(tmp_path: Path) -> None:
    first = _run(tmp_path)
    assert first.count("done in") == STEPS
    assert re.search(r"This will take about \d+ min on this machine", first)
    assert first.rstrip().endswith(f"Open {tmp_path / 'out' / 'report.html'}")
    assert len(first.splitlines()) < 100

    out = tmp_path / "out"
    summary = json.loads((out / "evaluation" / "summary.json").read_text())
    assert METHODS <= set(summary["methods"])
    assert summary["cases"] == ["normal_0000", "phantom_0000", "phantom_0001"]
    page = (out / "report.html").read_text()
    for method, values in summary["methods"].items():
        assert re.search(rf"<td>{method}<small>.*?<td>{values['auroc']:.3f}", page)
    assert page.count("data:image/png;base64,") >= 6 * 3 + 4 + 1
    assert "screener_finetune -d 902 --source 901 -f 0 --init scratch" in page
    seconds = json.loads((out / "demo.json").read_text())["seconds"]
    assert len(seconds) == STEPS

    written = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.suffix in (".pth", ".gz")}
    again = _run(tmp_path)
    assert again.count("done in") == STEPS and "will take" not in again
    assert written == {p: p.stat().st_mtime_ns for p in written}
    assert json.loads((out / "demo.json").read_text())["seconds"] == seconds
