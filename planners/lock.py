"""One run at a time plans a data set; others wait and find its work done."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from screener_nnu.locks import one_after_another


def only_run(folder: Path) -> AbstractContextManager[None]:
    """Waits for another run that reads or plans the same data set.

    Raises:
        ScreenerError: nothing can be written into the folder.
    """
    lock = folder / ".screener_planning.lock"
    return one_after_another(lock, "nnUNet_preprocessed", f"planning {folder.name}")
