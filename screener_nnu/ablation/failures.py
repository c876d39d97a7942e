"""Detectors that a comparison goes on without."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from screener_nnu.errors import ScreenerError, StoppedError

logger = logging.getLogger(__name__)


class Failures:
    """Notes which detectors could not be trained or judged; the others go on.

    Args:
        first: the detector that the others are compared with, which no table does without.

    Attributes:
        reasons: first line of what was wrong, by detector.
    """

    def __init__(self, first: str) -> None:
        """Nothing has failed yet."""
        self.first = first
        self.reasons: dict[str, str] = {}

    @contextmanager
    def guard(self, detector: str) -> Iterator[None]:
        """Work for one detector, which ends at a `ScreenerError`.

        Raises:
            ScreenerError: of the first detector.
            StoppedError: the whole command was asked to end.
        """
        try:
            yield
        except StoppedError:
            raise
        except ScreenerError as error:
            if detector == self.first:
                raise
            logger.warning("%s is left out: %s", detector, error)
            self.reasons.setdefault(detector, str(error).partition("\n")[0])

    def left(self, detectors: list[str]) -> list[str]:
        """Those of some detectors that have not failed."""
        return [detector for detector in detectors if detector not in self.reasons]
