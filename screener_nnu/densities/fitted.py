"""Densities that are computed from rows in one pass, without an optimiser."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from screener_nnu.densities.base import ConditionalDensity
from screener_nnu.densities.sized_by_data import SizedByData
from screener_nnu.errors import ScreenerError

# Rows that are scored at a time.
_ROWS = 1 << 15


class FittedDensity(SizedByData, ConditionalDensity):
    """A density of rows whose state is computed from a sample of them.

    A subclass registers its state as buffers, empty ones where their size depends on the data, and
    implements `_fit` and `_score_rows`. Rows are standardised descriptors, as the densities that
    learn by gradient see them.

    Attributes:
        least_rows: fewer cannot be fitted.
    """

    fitted: ClassVar[bool] = True

    @property
    def least_rows(self) -> int:
        """Fewer rows cannot be fitted."""
        return 2

    @property
    def streams(self) -> bool:
        """Whether a sample of rows is not enough, see `StreamedDensity`."""
        return False

    def state_bytes(self, c: Tensor | None) -> tuple[int, int]:
        """Memory of its state, and that which is taken while it is fitted, beside the rows.

        Args:
            c: conditions (N, d_cond), of each coordinate all values that occur, or `None`.

        Returns:
            Bytes of both; 0 of what is small.
        """
        return 0, 0

    @torch.no_grad()
    def fit(self, y: Tensor, c: Tensor | None, generator: torch.Generator) -> None:
        """Computes the state from rows; a second call starts anew.

        Args:
            y: descriptors, (N, d).
            c: conditions, (N, d_cond); `None` if the density is unconditional.
            generator: on the CPU, of whatever is drawn.

        Raises:
            ScreenerError: too few rows, or rows that are no finite numbers.
            ValueError: the rows do not have those shapes.
        """
        self._check_rows(y, c)
        self._refuse_few(len(y))
        with torch.autocast(y.device.type, enabled=False):
            self._fit(y.float(), None if c is None else c.float(), generator)
        self.initialised.fill_(True)

    def _check_rows(self, y: Tensor, c: Tensor | None) -> None:
        maps = (None if rows is None else rows.T[None, :, :, None, None] for rows in (y, c))
        self._checked(*maps)  # type: ignore[arg-type]
        if not all(torch.isfinite(rows).all() for rows in (y, c) if rows is not None):
            raise ScreenerError("descriptors or conditions hold values that are no finite numbers")

    def _refuse_few(self, count: int) -> None:
        if count < self.least_rows:
            raise ScreenerError(
                f"{count} positions are too few to fit {type(self).__name__}, which needs "
                f"{self.least_rows}: give more scans, or more positions a scan (density.positions)"
            )

    def fit_vectors(self, vectors: Tensor, names: Sequence[str]) -> list[str]:
        """Takes the mean descriptor (n, d) of each training scan; nothing unless overridden.

        Returns:
            Names of the oddest scans, the oddest first: abnormal ones may hide among them.
        """
        return []

    @abstractmethod
    def _fit(self, y: Tensor, c: Tensor | None, generator: torch.Generator) -> None:
        """Computes the buffers from checked rows, float32."""

    @abstractmethod
    def _score_rows(self, y: Tensor, c: Tensor | None) -> Tensor:
        """Log-density (N,) of rows (N, d), float32, or a score that is higher for typical rows."""

    def _log_prob(self, y: Tensor, c: Tensor | None) -> Tensor:
        if not self.initialised:
            raise RuntimeError("fit the density to rows before it is evaluated")
        shape = (y.shape[0], *y.shape[2:])
        rows, given = (
            None if maps is None else maps.movedim(1, -1).flatten(0, -2).float() for maps in (y, c)
        )
        assert rows is not None
        parts = [
            self._score_rows(
                rows[first : first + _ROWS], None if given is None else given[first : first + _ROWS]
            )
            for first in range(0, len(rows), _ROWS)
        ]
        return torch.cat(parts).view(shape)


class StreamedDensity(FittedDensity):
    """A fitted density that takes its rows part by part and keeps none of them.

    `begin`, `add` for each part, and `finish` do what `fit` does with all rows. A subclass
    implements `_begin`, `_add` and `_finish` in place of `_fit`.
    """

    _seen: int = 0

    @property
    def streams(self) -> bool:
        """It asks for every row unless a subclass says when."""
        return True

    def begin(self, c: Tensor | None) -> None:
        """Starts anew.

        Args:
            c: conditions (N, d_cond), of each coordinate all values that occur, or `None`.
        """
        self._seen = 0
        self._begin(c)

    @torch.no_grad()
    def add(self, y: Tensor, c: Tensor | None) -> None:
        """Adds rows, see `fit`.

        Raises:
            ScreenerError: rows that are no finite numbers.
            ValueError: the rows do not have the shapes of `fit`.
        """
        self._check_rows(y, c)
        self._seen += len(y)
        with torch.autocast(y.device.type, enabled=False):
            self._add(y.float(), None if c is None else c.float())

    @torch.no_grad()
    def finish(self) -> None:
        """Computes the state from what was added.

        Raises:
            ScreenerError: too few rows, or see the subclass.
        """
        self._refuse_few(self._seen)
        self._finish()
        self.initialised.fill_(True)

    def _fit(self, y: Tensor, c: Tensor | None, generator: torch.Generator) -> None:
        self._begin(c)
        self._add(y, c)
        self._finish()

    @abstractmethod
    def _begin(self, c: Tensor | None) -> None:
        """Forgets all rows, and lays out what the conditions decide."""

    @abstractmethod
    def _add(self, y: Tensor, c: Tensor | None) -> None:
        """Takes checked rows, float32."""

    @abstractmethod
    def _finish(self) -> None:
        """Computes the buffers."""
