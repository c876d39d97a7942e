"""Faults: what kills, fills or tears, tried on every command; the page is what came of it.

These take long, and run when they are asked for: `tests/faults/run.sh`.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import TinyWorld
from tests.faults.attempts import Command, Ended, difference, digest
from tests.faults.commands import COMMANDS, Prepared, prepare

PAGE = Path(__file__).parents[2] / "documentation" / "crash_safety.md"


class Row(NamedTuple):
    """A line of the table."""

    fault: str
    command: str
    tries: int
    happened: str
    lost: str


_ROWS = pytest.StashKey[list[Row]]()


def rows_of(config: pytest.Config) -> list[Row]:
    """The rows that were told so far."""
    return config.stash[_ROWS]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.long)


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows = session.config.stash[_ROWS]
    if not session.config.getoption("--write_page") or not rows:
        return
    head, table, end = PAGE.read_text(encoding="utf-8").split("<!-- table -->\n")
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    # What was not tried this time stays.
    known = {_key(line): line for line in lines[1:]}
    for r in rows:
        line = f"| {r.fault} | `{r.command}` | {r.tries} | {r.happened} | {r.lost} |"
        known[_key(line)] = line
    heads = ["| fault | command | tries | what happened | lost |", "|---|---|---|---|---|"]
    table = "\n".join([*heads, *sorted(known.values())])
    mark = "<!-- table -->\n"
    PAGE.write_text(f"{head}{mark}{table}\n{mark}{end}", encoding="utf-8")


def _key(line: str) -> tuple[str, ...]:
    """Fault and command of a line."""
    return tuple(cell.strip() for cell in line.split("|")[1:3])


@dataclass
class Bench:
    """A command, the folders that it starts from, and what it makes undisturbed.

    Attributes:
        command: to be disturbed.
        prepared: makes such folders anew.
        wanted: digest of what it makes.
        seconds: that it takes.
        random: draws moments and places.
        tries: of a fault.
        rows: of the page.
    """

    command: Command
    prepared: Prepared
    wanted: dict[str, str]
    seconds: float
    random: random.Random
    tries: int
    rows: list[Row] = field(default_factory=list)

    def fresh(self, root: Path) -> TinyWorld:
        """Folders that nothing has happened in."""
        shutil.rmtree(root, ignore_errors=True)
        return self.prepared.copy(root)

    def moment(self) -> float:
        """Seconds after the start."""
        return self.random.uniform(self.command.least, 1.0) * self.seconds

    def tell(self, fault: str, happened: str, lost: str = "nothing", tries: int = 0) -> None:
        """Writes a row."""
        row = Row(fault, f"screener_{self.command.name}", tries or self.tries, happened, lost)
        self.rows.append(row)

    def ends_as_wanted(self, world: TinyWorld) -> Ended:
        """Runs it, and fails unless everything is as if nothing had happened."""
        ended = self.command.run(world).sound()
        odd = difference(digest(world.root, self.command), self.wanted)
        assert not odd, (odd[:8], ended.output[-3000:])
        return ended


@pytest.fixture(scope="session")
def prepared_of(
    tmp_path_factory: pytest.TempPathFactory, made_world: TinyWorld, trained_once: TinyWorld
) -> Callable[[str], Prepared]:
    """What a command starts from, made once."""
    made: dict[str, Prepared] = {}

    def of(name: str) -> Prepared:
        if name not in made:
            root = tmp_path_factory.mktemp("prepared")
            made[name] = prepare(name, root, made_world, trained_once)
        return made[name]

    return of


@pytest.fixture(scope="session")
def undisturbed(
    prepared_of: Callable[[str], Prepared], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, str], float]]:
    """What a command makes, and in how many seconds."""
    known: dict[str, tuple[dict[str, str], float]] = {}

    def of(name: str) -> tuple[dict[str, str], float]:
        if name not in known:
            world = prepared_of(name).copy(tmp_path_factory.mktemp("undisturbed") / "world")
            ended = COMMANDS[name].run(world).sound()
            known[name] = digest(world.root, COMMANDS[name]), ended.seconds
            shutil.rmtree(world.root)
        return known[name]

    return of


@pytest.fixture
def bench(
    request: pytest.FixtureRequest,
    prepared_of: Callable[[str], Prepared],
    undisturbed: Callable[[str], tuple[dict[str, str], float]],
) -> Iterator[Any]:
    """The command that the test is parametrised with."""
    name = request.param
    wanted, seconds = undisturbed(name)
    draws = random.Random(f"{request.node.name} {request.config.getoption('--fault_seed')}")
    tries = request.config.getoption("--tries")
    bench = Bench(COMMANDS[name], prepared_of(name), wanted, seconds, draws, tries)
    yield bench
    request.config.stash[_ROWS].extend(bench.rows)
