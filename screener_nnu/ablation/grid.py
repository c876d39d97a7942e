"""Cells of an ablation, and the plans that train them without repeating a stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from screener_nnu.conditions import CONDITIONS, TRAINED_BY
from screener_nnu.densities import DENSITIES
from screener_nnu.descriptors import UNTRAINED
from screener_nnu.errors import ScreenerError
from screener_nnu.losses import LOSSES
from screener_nnu.plans import ScreenerSettings


@dataclass(frozen=True, order=True)
class Cell:
    """One combination.

    Attributes:
        loss: of the descriptor, or `untrained` for a descriptor (and condition) with initial
            weights, the control.
        condition, density: by the names that a plan uses.
        seed: added to the plan's own.
    """

    loss: str
    condition: str
    density: str
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses names that nothing is registered under."""
        known = {"loss": [*LOSSES, UNTRAINED], "condition": CONDITIONS, "density": DENSITIES}
        for field, names in known.items():
            if getattr(self, field) not in names:
                raise ScreenerError(
                    f"no {field} '{getattr(self, field)}'; known: {', '.join(names)}"
                )

    @property
    def name(self) -> str:
        """`loss/condition/density`, the same for all seeds."""
        return f"{self.loss}/{self.condition}/{self.density}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Reads `loss/condition/density` or `loss/condition/density/seed`.

        Example:
            >>> Cell.parse("vicreg/none/flow/2")
            Cell(loss='vicreg', condition='none', density='flow', seed=2)
        """
        words = text.split("/")
        if len(words) not in (3, 4) or not (words[3:] or ["0"])[0].isdigit():
            raise ScreenerError(f"'{text}' is not of the form loss/condition/density[/seed]")
        return cls(words[0], words[1], words[2], int((words[3:] or ["0"])[0]))


@dataclass(frozen=True)
class StagePlan:
    """A stage to train: the plan's name and its settings beside those of the base plan.

    Without `overrides` (None), the plan is there and stays as it is.
    """

    stage: str
    plans_name: str
    overrides: tuple[str, ...] | None = ()


def grid_cells(
    losses: Iterable[str],
    conditions: Iterable[str],
    densities: Iterable[str],
    seeds: int = 1,
    more: Iterable[str] = (),
) -> list[Cell]:
    """The product of the three with seeds 0 to `seeds` - 1, and cells given one by one.

    Raises:
        ScreenerError: less than one seed, or a cell that is none.
    """
    if seeds < 1:
        raise ScreenerError(f"--seeds {seeds}: one run of each combination is the least")
    cells = [Cell(*names) for names in product(losses, conditions, densities, range(seeds))]
    return list(dict.fromkeys([*cells, *(Cell.parse(text) for text in more)]))


def stages_of_cell(cell: Cell, base_name: str, base: ScreenerSettings) -> list[StagePlan]:
    """The stages of a cell in order, the density last.

    Descriptors differ by loss and seed, learned conditions by kind and seed (their loss is that of
    the base plan), so that cells share them. Those with the settings of the base plan are its own,
    or those of the plans whose networks its density uses.
    """
    stages = []
    descriptor = condition = UNTRAINED
    seed = (f"seed={base.seed + cell.seed}",) if cell.seed else ()
    suffix = f"_seed{cell.seed}" if cell.seed else ""
    if cell.loss != UNTRAINED:
        same = cell.loss == base.descriptor.loss
        known = base.density.descriptor_plans if same and not seed else ""
        descriptor = known or base_name + ("" if same else f"_{cell.loss}") + suffix
        loss = () if same else (f"descriptor.loss={cell.loss}",)
        stages.append(StagePlan("descriptor", descriptor, None if known else (*loss, *seed)))
        condition, learned = _condition_stage(cell, base_name, base, seed, suffix)
        stages += learned
    overrides = (
        f"condition.kind={cell.condition}",
        f"density.kind={cell.density}",
        f"density.descriptor_plans={descriptor}",
        f"density.condition_plans={condition}",
        *seed,
    )
    name = "_".join([base_name, cell.loss, cell.condition, cell.density]) + suffix
    return [*stages, StagePlan("density", name, overrides)]


def _condition_stage(
    cell: Cell, base_name: str, base: ScreenerSettings, seed: tuple[str, ...], suffix: str
) -> tuple[str, list[StagePlan]]:
    """Name of the plan whose condition is used, and the stage that trains it, if there is one."""
    stage = TRAINED_BY.get(cell.condition)
    if stage is None:
        return "", []
    same = cell.condition == base.condition.kind
    known = base.density.condition_plans if same and not seed else ""
    name = known or base_name + ("" if same else f"_{cell.condition}") + suffix
    kind = () if same else (f"condition.kind={cell.condition}",)
    return name, [StagePlan(stage, name, None if known else (*kind, *seed))]
