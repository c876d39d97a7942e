"""The one interface of all densities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from screener_nnu.errors import ScreenerError
from screener_nnu.networks.unet import in_full_precision
from screener_nnu.plans import DensitySettings
from screener_nnu.setting_values import parse


@dataclass(frozen=True)
class NoSettings:
    """Of a density that has none of its own."""


class ConditionalDensity(nn.Module, ABC):
    """A density q(y | c) of a descriptor map given a condition map, voxel by voxel.

    A subclass implements `_log_prob`, and `_initialise` if it starts from data. Both get checked
    inputs in the precision of the parameters, with autocast off: two flow steps in bfloat16
    already move the likelihood by tenths of a nat.

    Attributes:
        reach: how many positions beyond a position its log-density depends on, per axis.
        fitted: whether it is computed from rows in one pass, see `FittedDensity`, and not trained.
        settles: whether its scores need `settle`; they are no normalised likelihoods then.
        builds_on_meta: whether it can be built of names and shapes alone; another density says in
            `least_numbers` how many numbers it holds at least.
        unit: of its score; `nats` of a likelihood, `none` of a distance.
        Settings: class of its own settings, `density.options` in a plan; its fields are arguments
            of the density.

    Args:
        dim: channels d of the descriptor map.
        cond_dim: channels d_cond of the condition map; 0 for an unconditional density.
    """

    reach: int = 0
    fitted: ClassVar[bool] = False
    settles: ClassVar[bool] = False
    builds_on_meta: ClassVar[bool] = True
    unit: ClassVar[str] = "nats"
    Settings: ClassVar[type] = NoSettings
    initialised: Tensor

    def __init__(self, dim: int, cond_dim: int = 0) -> None:
        """Checks and stores the two widths."""
        super().__init__()
        if dim < 1 or cond_dim < 0:
            raise ScreenerError(f"a density needs dim >= 1, cond_dim >= 0, not {dim}, {cond_dim}")
        self.dim = dim
        self.cond_dim = cond_dim
        # In the state dict, so that a resumed run does not start from a batch again.
        self.register_buffer("initialised", torch.tensor(False))

    @classmethod
    def of_plan(cls, dim: int, cond_dim: int, settings: DensitySettings) -> ConditionalDensity:
        """The density that a plan asks for, not yet initialised.

        Raises:
            ScreenerError: a setting is unknown, of another type or outside its limits.
        """
        return cls(dim, cond_dim, **cls.options(settings))

    @classmethod
    def options(cls, settings: DensitySettings) -> dict[str, Any]:
        """Its own settings, those of the plan over the defaults.

        Raises:
            ScreenerError: see `of_plan`.
        """
        return asdict(parse(cls.Settings, settings.options, "screener.density.options"))

    @classmethod
    def least_numbers(cls, settings: DensitySettings) -> int:
        """Numbers that one of these settings holds at least, told before it is built."""
        return 0

    def forward(self, y: Tensor, c: Tensor | None = None) -> Tensor:
        """Does what `log_prob` does; data-parallel wrappers need the name."""
        return self.log_prob(y, c)

    def log_prob(self, y: Tensor, c: Tensor | None = None) -> Tensor:
        """Evaluates the log-density.

        Args:
            y: descriptor map, (B, d, D, H, W).
            c: condition map, (B, d_cond, D, H, W); `None` if the density is unconditional.

        Returns:
            log q(y | c) in nats, (B, D, H, W).

        Raises:
            ValueError: the maps do not have those shapes.
        """
        y, c = self._checked(y, c)
        with in_full_precision(y.device.type):
            return self._log_prob(y, c)

    @torch.no_grad()
    def initialise(self, y: Tensor, c: Tensor | None = None) -> None:
        """Sets data-dependent starting values; once, a second call changes nothing.

        The result depends on the batch alone, not on train or eval mode. Data-parallel training
        calls it before wrapping, so that all ranks take the values of the first.

        Args:
            y: descriptor map of a first batch, (B, d, D, H, W).
            c: its condition map, (B, d_cond, D, H, W), or `None`.
        """
        if self.initialised:
            return
        y, c = self._checked(y, c)
        with torch.autocast(y.device.type, enabled=False):
            self._initialise(y, c)
        self.initialised.fill_(True)

    def settle(self, y: Tensor, c: Tensor | None) -> None:  # noqa: B027 (optional hook)
        """Measures what scores need beside the parameters, from maps of training scans.

        Called before scores are asked for, whenever parameters have changed, of a density that
        `settles`.
        """

    @property
    def has_vector_scores(self) -> bool:
        """Whether it was fitted to vectors of scans, see `vector_scores`."""
        return False

    def vector_scores(self, vector: Tensor) -> dict[str, float]:
        """Scores of a scan by the mean of its descriptors, by name; higher is more anomalous.

        Args:
            vector: mean over the positions in the body, (d,).

        Returns:
            None, unless a subclass was fitted to such vectors.
        """
        return {}

    def cohort_scores(
        self, vectors: Tensor, names: Sequence[str], **changes: Any
    ) -> list[dict[str, float]]:
        """Scores of scans as those of `vector_scores`, which here depend on each other.

        Args:
            vectors: (n, d).
            names: of the scans.
            **changes: settings that differ from those of the fit.

        Returns:
            One dictionary a scan, which also says that it was scored in a `cohort`, and of which
            size.
        """
        return [{} for _ in names]

    @abstractmethod
    def _log_prob(self, y: Tensor, c: Tensor | None) -> Tensor:
        """Log-density (B, D, H, W) of checked maps."""

    def _initialise(self, y: Tensor, c: Tensor | None) -> None:  # noqa: B027 (optional hook)
        """Sets starting values from checked maps; nothing unless a subclass says so."""

    def _checked(self, y: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Checks the shapes and brings both maps to the precision of the parameters."""
        weights = (value for value in self.state_dict().values() if value.is_floating_point())
        dtype = next((value.dtype for value in weights), torch.float32)
        if y.ndim != 5 or y.shape[1] != self.dim:
            raise ValueError(f"y must be (B, {self.dim}, D, H, W), got {tuple(y.shape)}")
        if (c is None) != (self.cond_dim == 0):
            given = "no condition" if c is None else "a condition"
            raise ValueError(f"a density with cond_dim = {self.cond_dim} was given {given}")
        if c is None:
            return y.to(dtype), None
        expected = (y.shape[0], self.cond_dim, *y.shape[2:])
        if c.shape != expected:
            raise ValueError(f"c must be {expected}, got {tuple(c.shape)}")
        return y.to(dtype), c.to(dtype)
