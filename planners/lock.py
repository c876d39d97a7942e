"""One run at a time plans a data set; others wait and find its work done."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path

from screener_nnu.locks import locked

logger = logging.getLogger(__name__)


def only_run(folder: Path) -> AbstractContextManager[None]:
    """Waits for another run that reads or plans the same data set.

    Raises:
        ScreenerError: nothing can be written into the folder.
    """

    def tell() -> None:
        logger.info("another run is planning %s: waiting for it", folder.name)

    return locked(folder / ".screener_planning.lock", "nnUNet_preprocessed", tell)
