"""The libraries that write DICOM, which only some users need."""

from __future__ import annotations

import importlib
from types import ModuleType

from screener_nnu.errors import ScreenerError


def load_highdicom() -> ModuleType:
    """The module `highdicom`.

    Raises:
        ScreenerError: it is not installed.
    """
    return _load("highdicom")


def load_pydicom() -> ModuleType:
    """The module `pydicom`, which comes with `highdicom`.

    Raises:
        ScreenerError: it is not installed.
    """
    return _load("pydicom")


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ScreenerError(
            f"DICOM output needs {name}, which is not installed ({error}): "
            "pip install 'screener_nnu[dicom]'"
        ) from error
