"""kill -9 at random moments: nothing finished is lost, and the end is as if undisturbed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.attempts import (
    age_half_files,
    kill_all,
    kill_main,
    made_again,
    repeated_epochs,
    whole_items,
)
from tests.faults.commands import COMMANDS

_MOST = 4  # kills of one run in turn


@pytest.mark.parametrize("bench", list(COMMANDS), indirect=True)
def test_killed_again_and_again(bench: Any, tmp_path: Path) -> None:
    """Each try is killed up to four times, the leader alone or with its workers, and then left."""
    kills, epochs = 0, 0
    for _ in range(bench.tries):
        world = bench.fresh(tmp_path / "world")
        for _ in range(bench.random.randint(1, _MOST)):
            items = whole_items(world.root, bench.command, bench.wanted)
            process = bench.command.start(world)
            time.sleep(bench.moment())
            kill = bench.random.choice([kill_all, kill_main])
            running = kill(process)
            kills += running
            assert not made_again(items)
            if not running:
                break
        items = whole_items(world.root, bench.command, bench.wanted)
        age_half_files(world.root)
        bench.ends_as_wanted(world)
        assert not made_again(items)
        repeated = repeated_epochs(world.root)
        assert repeated <= kills
        epochs += repeated
    lost = f"{epochs} epoch{'s'[: epochs > 1]} of {kills} kills" if epochs else "nothing"
    bench.tell("kill -9", "goes on; the end is that of an undisturbed run", lost, kills)
