"""What every command does around its own work."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from screener_nnu.errors import ScreenerError, StoppedError


def run(main_body: Callable[[], None]) -> None:
    """Runs a command with logging to the terminal, and turns user errors into an exit code.

    Args:
        main_body: the command after its arguments were parsed.

    Raises:
        SystemExit: 1 after a `ScreenerError` or an error of the file system, whose message is
            printed; 75 where a run was stopped and can go on; 130 after Ctrl-C.
    """
    # Threads that wait without spinning: two runs that share the cores of a machine otherwise slow
    # each other down tenfold. It counts only when it is set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for stream in (sys.stdout, sys.stderr):
        # File names may hold bytes that are no text, and a terminal may know few letters.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Imported here: --help is answered without it.
    from tqdm.contrib.logging import logging_redirect_tqdm

    try:
        with logging_redirect_tqdm():  # lines stand above a progress bar, not in it
            main_body()
    except ScreenerError as error:
        begin = "stopped" if isinstance(error, StoppedError) else "error"
        print(f"{begin}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    except OSError as error:
        print(f"error: {of_file_system(error)}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def user_path(text: str) -> Path:
    """A path of the command line as an absolute one, `~` included: messages then name the place.

    Links are kept as they are.
    """
    return Path(os.path.abspath(os.path.expanduser(text)))


def of_file_system(error: OSError) -> str:
    """An error of the file system as a sentence: where, what, and the way out."""
    from screener_nnu.files import disk_is_full

    reason = error.strerror or str(error) or type(error).__name__
    if disk_is_full(error):
        way_out = "free some space there and run the same command again"
    elif isinstance(error, FileNotFoundError):
        way_out = "see to it that it is there, and run the same command again"
    else:
        way_out = "see to its rights, or give another path"
    name = error.filename2 or error.filename
    if name is None:
        return f"{reason}: {way_out}"
    shown = os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else str(name)
    return f"{os.path.abspath(shown)}: {reason}; {way_out}"
