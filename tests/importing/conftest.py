"""Small pictures, all different, and an import of them."""

from __future__ import annotations

import csv
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screener_nnu.commands.import_data import main
from screener_nnu.preprocessing.pictures import write_picture

SIZE = (14, 11)
NAME = "Dataset610_Pictures"


@dataclass
class Import:
    """Pictures in a folder, the command, and what it wrote and printed."""

    source: Path
    raw: Path
    capsys: pytest.CaptureFixture[str]
    caplog: pytest.LogCaptureFixture

    @staticmethod
    def pixels(name: str, channels: int = 1, bits: int = 8) -> np.ndarray:
        """Noise (C, H, W) that is another for each name."""
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        kind = np.uint8 if bits == 8 else np.uint16
        return generator.integers(0, 2**bits, (channels, *SIZE), dtype=kind)

    def write(self, *names: str, channels: int = 1, bits: int = 8) -> None:
        """Writes PNG files of noise into the source."""
        for name in names:
            write_picture(self.pixels(name, channels, bits), self.source / name)

    def normals(self, number: int = 10, folder: str = "") -> list[str]:
        """Writes so many pictures."""
        names = [f"{folder}n{index:03d}.png" for index in range(number)]
        self.write(*names)
        return names

    def write_mask(self, name: str, value: int = 255) -> np.ndarray:
        """Writes a mask with a rectangle; gives it as (H, W) of 0 and 1."""
        mask = np.zeros(SIZE, np.uint8)
        mask[3:6, 2:7] = value > 0
        write_picture(mask * np.uint8(value), self.source / name)
        return mask

    def list(self, *lines: str) -> Path:
        """Writes a table of pictures."""
        path = self.source / "list.csv"
        path.write_text("path,label,split,mask,group\n" + "\n".join(lines), encoding="utf-8")
        return path

    @property
    def folder(self) -> Path:
        return self.raw / NAME

    def run(self, *more: Any, source: Path | None = None, number: int = 610) -> str:
        """All that is printed and logged."""
        self.caplog.clear()
        arguments = ["-i", source or self.source, "-d", number, "--name", "Pictures", "-np", 0]
        with self.caplog.at_level("INFO"):
            main([str(argument) for argument in [*arguments, *more]])
        return self.capsys.readouterr().out + self.caplog.text

    def refused(self, *more: Any, source: Path | None = None) -> str:
        """The error of a run that is refused."""
        with pytest.raises(SystemExit):
            self.run(*more, source=source)
        return self.capsys.readouterr().err

    def table(self, name: str = "pictures.csv") -> list[dict[str, str]]:
        with (self.folder / name).open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def files(self) -> set[str]:
        found = self.folder.rglob("*.*")
        return {str(p.relative_to(self.folder)) for p in found if ".screener_files" not in str(p)}


@pytest.fixture
def importer(
    tmp_path: Path,
    empty_world: Any,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Import:
    """An import from `tmp_path / "in"`."""
    (tmp_path / "in").mkdir()
    return Import(tmp_path / "in", empty_world.root / "raw", capsys, caplog)
