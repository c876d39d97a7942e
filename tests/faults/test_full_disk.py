"""A disk that fills up: one sentence, no half file, and more space is all that it takes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.attempts import age_half_files, made_again, whole_items

_SLACK = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many bytes, or that disk with another size."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def resize(size: int) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={size}"
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
        )
        if made.returncode:
            pytest.skip(f"no disk of its own can be mounted: {made.stderr.decode().strip()}")
        mounted = True
        return place

    yield resize
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def used(folder: Path) -> int:
    """Bytes that its files take on the disk."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(512 * path.stat().st_blocks for path in files)


def taken(disk: Path) -> int:
    """Bytes of a disk that are taken."""
    state = os.statvfs(disk)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


_GROWING = [
    "import",
    "plan_and_preprocess",
    "train chain",
    "train pretext",
    "train padim",
    "predict",
    "synthesize_anomalies",
    "evaluate",
    "export_model",
    "finetune",
    "lowshot",
]


@pytest.mark.parametrize("bench", _GROWING, indirect=True)
def test_a_disk_that_fills_up(bench: Any, tmp_path: Path, disk: Callable[[int], Path]) -> None:
    world = bench.fresh(tmp_path / "whole")
    before = used(world.root)
    bench.ends_as_wanted(world)
    added = used(world.root) - before
    filled, said = 0, ""
    for number in range(bench.tries):
        place = disk(before + added + 64 * _SLACK)
        world = bench.fresh(place / f"world{number}")
        disk(taken(place) + int(bench.random.uniform(0.05, 0.9) * added))
        ended = bench.command.run(world)
        if ended.code:
            filled += 1
            assert "space" in ended.output, ended.output[-3000:]
            said = ended.sentence.replace(f"{world.root}/", "")
        disk(before + added + 64 * _SLACK)
        items = whole_items(world.root, bench.command, bench.wanted)
        age_half_files(world.root)
        bench.ends_as_wanted(world)
        assert not made_again(items)
        subprocess.run(["rm", "-rf", str(world.root)], check=True)
    assert filled
    bench.tell("the disk fills up", f"{said[:160]}; goes on with more space", tries=filled)
