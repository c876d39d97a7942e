"""Checkpoints appear whole or not at all, and reading them runs no code."""

from __future__ import annotations

import errno
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu import files
from screener_nnu.checkpoints import read_checkpoint, write_checkpoint
from screener_nnu.errors import ScreenerError

VALUES: dict[str, Any] = {
    "network_weights": {"a": torch.arange(50_000.0)},
    "init_args": {"fold": "all"},
    "axes": (0, 1, 2),
    "figure": None,
}


def test_round_trip_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_latest.pth"
    for epoch in (1, 2):
        write_checkpoint({**VALUES, "epoch": epoch}, path)
    read = read_checkpoint(path)
    assert torch.equal(read.pop("network_weights")["a"], VALUES["network_weights"]["a"])
    assert read == {"init_args": {"fold": "all"}, "axes": (0, 1, 2), "figure": None, "epoch": 2}
    assert os.listdir(tmp_path) == [path.name]


class FullDisk(io.FileIO):
    """Takes some bytes, then has no room."""

    room = 20_000

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("moment", ["write", "sync"])
def test_full_disk_keeps_the_old_file(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint_latest.pth"
    write_checkpoint({"epoch": 1}, path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        if moment == "write":
            patch.setattr(Path, "open", lambda self, mode: FullDisk(str(self), mode))
        else:
            patch.setattr(files.os, "fsync", _no_space)
        with pytest.raises(ScreenerError, match="no space left.*run the same") as error:
            write_checkpoint(VALUES, path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_keep_their_own_words(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    with pytest.raises(Exception, match="(?i)is a directory"):
        path.mkdir()
        write_checkpoint(VALUES, path)
    path.rmdir()
    with pytest.raises(Exception, match="(?i)pickle"):
        write_checkpoint({"function": lambda: None}, path)
    assert os.listdir(tmp_path) == []


def test_missing_and_torn_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_final.pth"
    with pytest.raises(ScreenerError, match=rf"{path} cannot be used: it is not there"):
        read_checkpoint(path)
    write_checkpoint(VALUES, path)
    whole = path.read_bytes()
    for kept in (0, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:kept])
        reason = "damaged" if kept else "empty"
        with pytest.raises(ScreenerError, match=rf"{path} cannot be used: it is {reason}"):
            read_checkpoint(path)


def test_a_file_that_is_no_checkpoint_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(torch.zeros(3), path)
    with pytest.raises(ScreenerError, match=rf"{path} .* no checkpoint, but a Tensor"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "not a checkpoint")
    with pytest.raises(ScreenerError, match=rf"{path} cannot be used: it is damaged"):
        read_checkpoint(path)


class Stranger:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_reading_runs_no_code(tmp_path: Path) -> None:
    path, trace = tmp_path / "checkpoint.pth", tmp_path / "trace"
    torch.save({"network_weights": Stranger(trace)}, path)
    with pytest.raises(ScreenerError, match="could run code of a stranger"):
        read_checkpoint(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.is_dir()  # otherwise the file would not show anything


def test_a_flipped_bit_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    write_checkpoint({"network_weights": {"w": torch.arange(4096.0)}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor(1234.0).numpy().tobytes())] ^= 0x10
    path.write_bytes(bytes(content))
    with pytest.raises(ScreenerError, match="it is damaged .* has another checksum"):
        read_checkpoint(path)
