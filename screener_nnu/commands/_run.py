"""What every command does around its own work."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from screener_nnu.errors import ScreenerError


def run(main_body: Callable[[], None]) -> None:
    """Runs a command with logging to the terminal, and turns user errors into an exit code.

    Args:
        main_body: the command after its arguments were parsed.

    Raises:
        SystemExit: 1 after a `ScreenerError`, whose message is printed; 130 after Ctrl-C.
    """
    # Threads that wait without spinning: two runs that share the cores of a machine otherwise slow
    # each other down tenfold. It counts only when it is set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main_body()
    except ScreenerError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
