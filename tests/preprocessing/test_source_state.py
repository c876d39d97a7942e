"""Whether the file of a scan is still the one that was read: by time, or by content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screener_nnu.errors import CaseError
from screener_nnu.preprocessing import source_state
from screener_nnu.preprocessing.source_state import (
    SourceState,
    read_with_state,
    state_if_readable,
)


def test_state_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"x" * 3_000_000)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    state = SourceState.of(path)
    digest = hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert state == SourceState(3_000_000, 1_234_567_890_123_456_789, "", digest)
    assert state.is_untouched(path)
    # A byte in the middle, which neither size nor the ends of the file tell.
    path.write_bytes(b"x" * 1_500_000 + b"y" + b"x" * 1_499_999)
    assert not state.is_untouched(path) and SourceState.of(path).sha256 != digest
    copy = Path(shutil.copy(path, tmp_path / "copy.nii.gz"))
    assert SourceState.of(copy).sha256 == SourceState.of(path).sha256


def test_state_survives_json_and_anything_else_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    state = SourceState.of(path)
    values = json.loads(json.dumps(state.to_dict()))
    assert SourceState.from_dict(values) == state
    others: list[Any] = [None, 5, [], {}, {"size": 3}, {**values, "size": "3"}]
    for odd in [*others, {**values, "more": 1}]:
        assert SourceState.from_dict(odd) is None


def test_what_cannot_be_read_has_no_state(tmp_path: Path) -> None:
    assert state_if_readable(tmp_path / "nowhere") is None
    with pytest.raises(OSError):
        SourceState.of(tmp_path / "nowhere")
    with pytest.raises(CaseError, match="^a: .*nowhere cannot be read"):
        read_with_state(tmp_path / "nowhere", "a")


def test_state_of_a_folder(tmp_path: Path, write_dicom: Callable[..., list[Path]]) -> None:
    folder = tmp_path / "series"
    files = write_dicom(folder, np.zeros((6, 8, 8), np.int16))
    state = SourceState.of(folder)
    assert state.size == sum(file.stat().st_size for file in files)
    assert state.changed_ns == max(file.stat().st_mtime_ns for file in files)
    # What the system leaves in a folder is no part of the scan.
    (folder / ".DS_Store").write_bytes(b"window at 10, 20")
    assert state.is_untouched(folder) and SourceState.of(folder) == state
    copy = Path(shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile))
    assert not state.is_untouched(copy) and SourceState.of(copy).sha256 == state.sha256

    before = files[2].stat()
    content = bytearray(files[2].read_bytes())
    content[-1] ^= 1
    files[2].write_bytes(content)
    # Older than other files: the latest time of the folder and its size stay the same.
    os.utime(files[2], ns=(before.st_atime_ns, before.st_mtime_ns - 5_000))
    changed = SourceState.of(folder)
    assert (changed.size, changed.changed_ns) == (state.size, state.changed_ns)
    assert not state.is_untouched(folder) and changed.sha256 != state.sha256
    files[3].rename(folder / "another_name")
    assert SourceState.of(folder).sha256 != changed.sha256


def test_scan_and_state_belong_together(
    write_image: Callable[..., Path],
    person: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_image(person())
    raw, state = read_with_state(path, "a")
    assert raw.shape == (24, 40, 48) and state == SourceState.of(path)

    def replaced_meanwhile(path: Path, case: str, modality: str) -> Any:
        write_image(person(seed=1))
        return raw

    monkeypatch.setattr(source_state, "read_image", replaced_meanwhile)
    with pytest.raises(CaseError, match="changed while it was read: run again"):
        read_with_state(path, "a")
