"""Help is there at once: no command imports torch before it needs it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

COMMANDS = {
    e.name: e.value
    for e in entry_points(group="console_scripts")
    if e.value.startswith("screener_nnu.")
}
HEAVY = (
    "numpy",
    "torch",
    "nnunetv2",
    "scipy",
    "SimpleITK",
    "matplotlib",
    "skimage",
    "sklearn",
    "pydicom",
)
SCRIPT = """
import sys
from importlib.metadata import EntryPoint

sys.argv = [sys.argv[1], "--help"]
main = EntryPoint(sys.argv[0], {value!r}, "console_scripts").load()
try:
    main()
except SystemExit as end:
    code = end.code
print("loaded:", *(name for name in {heavy!r} if name in sys.modules))
sys.exit(code)
"""


def test_the_commands_are_installed() -> None:
    assert {f"screener_{n}" for n in ("plan_and_preprocess", "train", "predict", "evaluate")} < set(
        COMMANDS
    )


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_imports_nothing_heavy(command: str) -> None:
    script = SCRIPT.format(value=COMMANDS[command], heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script, command], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: {command}" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded:"
