"""Functions that other processes import by name, which tests cannot offer."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def made_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """Makes a module that processes find, and gives its `work`, which notes tries in `marks`."""

    def make(name: str, text: str) -> Any:
        name = f"screener_{name}_{os.getpid()}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        (tmp_path / "marks").mkdir()
        return partial(import_module(name).work, marks=str(tmp_path / "marks"))

    return make
