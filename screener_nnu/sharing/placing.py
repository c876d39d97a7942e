"""Folders put in the place of others, all of them or none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from screener_nnu.errors import ScreenerError

_STAGING = ".installing_"


@contextmanager
def staging_folders(targets: list[Path]) -> Iterator[list[Path]]:
    """Empty folders on the file systems of the targets; gone afterwards, with what is left in them.

    Those of an earlier process that was killed are emptied. Names do not begin with `Dataset`, so
    that nobody takes them for one.
    """
    folders = [target.with_name(f"{_STAGING}{target.name}") for target in targets]
    try:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        yield folders
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def aside(folder: Path) -> Path:
    """A free name beside a folder, for what it holds now."""
    number = 1
    while (place := folder.with_name(f"replaced_{folder.name}_{number}")).exists():
        number += 1
    return place


def move_all(moves: list[tuple[Path, Path]]) -> None:
    """Renames folders in order; when one cannot be renamed, those before it go back.

    Raises:
        ScreenerError: a rename failed; everything is where it was.
    """
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            if target.exists():
                raise FileExistsError(f"{target} exists")
            source.rename(target)
            done.append((source, target))
    except BaseException as error:
        for source, target in reversed(done):
            target.rename(source)
        if isinstance(error, OSError):
            raise ScreenerError(f"nothing was installed: {error}") from error
        raise
