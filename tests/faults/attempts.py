"""Commands as people run them, what disturbs them, and what they must have made in the end."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import torch

# Of no run are they the same: logs, times, records of who wrote what, figures of costs.
_TIMES = re.compile(
    r"(\.screener_files/.*|training_log_.*\.txt|progress\.png|debug\.json|.*\.lock"
    r"|preprocessing_summary.*\.json|.*_seconds\.json|detectors\.(md|csv|json|png)|ablation\.png)$"
)
# Named after the file of the teacher, in which times stand.
_TEACHER = re.compile(r"_scores/[0-9a-f]+/")
# Counts carry the hash of the detector's file, in which there are times.
_JUDGED = re.compile(r"(/counts/.*_)[0-9a-f]{12}(?=_[0-9a-f]{12}_\d+\.npz$)")
_TEXT = (".json", ".jsonl", ".csv", ".html", ".md", ".txt")
_OF_THE_RUN = {"seconds", "written", "created", "changed_ns", "cost", "read_at", "time"}
# Ours, and nnU-Net's.
_EPOCH = re.compile(r": (?:epoch (\d+)/|Epoch (\d+)\s*$)", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """What a person types.

    Attributes:
        name: for the page.
        words: of the command line, by the root of the folders.
        items: patterns of files below the root that are not made again once they are whole.
        least: share of the time after which it is disturbed at the earliest; before, it imports.
        varies: pattern of files that no two runs make alike, which need only be there: nnU-Net's
            trainings do not go on bit for bit.
    """

    name: str
    words: Callable[[Path], Sequence[object]]
    items: tuple[str, ...] = ()
    least: float = 0.3
    varies: str = ""

    def start(self, world: Any) -> subprocess.Popen[str]:
        """Starts it as the leader of a group, with all output in one pipe's file."""
        program, *words = map(str, self.words(world.root))
        threads = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [str(Path(sys.executable).with_name(f"screener_{program}")), *words],
            env={**os.environ, **threads, **world.environment, "TQDM_DISABLE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, world: Any) -> Ended:
        """Runs it to its end."""
        begun = time.monotonic()
        process = self.start(world)
        output, _ = process.communicate(timeout=900)
        return Ended(process.returncode, output, time.monotonic() - begun)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    seconds: float

    def sound(self) -> Ended:
        """Itself; fails where it did not end well."""
        assert self.code == 0, self.output[-6000:]
        return self

    @property
    def sentence(self) -> str:
        """Its last line that says what is wrong."""
        assert "Traceback" not in self.output, self.output[-6000:]
        lines = [line.strip() for line in re.split("[\r\n]+", self.output) if line.strip()]
        # A bar of progress may stand before it in the same line.
        said = re.findall("(?:error:|stopped|skipped|left out)[^\r\n]*", self.output)
        return (said or lines or ["nothing"])[-1]


def kill_all(process: subprocess.Popen[str]) -> bool:
    """Ends a command and its workers as a power cut does; whether it was still running."""
    running = process.poll() is None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()
    return running


def kill_main(process: subprocess.Popen[str]) -> bool:
    """Ends the command alone, as a person or the system does; its workers follow by themselves."""
    running = process.poll() is None
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while _group_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _group_lives(process.pid), "workers outlive their command"
    return running


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def digest(root: Path, command: Command) -> dict[str, str]:
    """Hash of what each file below a folder says, without times."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    named = {_name(path, root): path for path in files}
    return {
        name: _hash_of(name, path, root, command)
        for name, path in named.items()
        if not _TIMES.search(name)
    }


def _hash_of(name: str, path: Path, root: Path, command: Command) -> str:
    """Hash of a file that must be alike, or that it is there."""
    if command.varies and re.search(command.varies, name):
        return "is there"
    return _hash(path, root)


def _name(path: Path, root: Path) -> str:
    name = _TEACHER.sub("_scores/*/", str(path.relative_to(root)))
    return _JUDGED.sub(r"\1*", name)


def _hash(path: Path, root: Path) -> str:
    content = path.read_bytes()
    if path.suffix in _TEXT:
        content = content.replace(str(root).encode(), b".")
    if path.suffix == ".pth":
        content = _weights(path)
    elif path.suffix == ".b2nd":  # threads write its chunks in any order
        content = blosc2.open(str(path), mode="r")[:].tobytes()
    elif path.suffix in (".json", ".jsonl"):
        text = content.decode()
        # Lines stand in the order in which workers were done.
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        plain = (json.dumps(_timeless(json.loads(line)), sort_keys=True) for line in lines)
        content = "\n".join(sorted(plain)).encode()
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
        content = repr([(n, hashlib.sha256(m).hexdigest()) for n, m in members.items()]).encode()
    return hashlib.sha256(content).hexdigest()


def _weights(path: Path) -> bytes:
    values = torch.load(path, map_location="cpu", weights_only=True)
    kept = {k: v for k, v in values.items() if k.endswith("_weights") or k == "score_statistics"}
    stream = io.BytesIO()
    for key in sorted(kept):
        for name, value in sorted((kept[key] or {}).items()):
            stream.write(f"{key}.{name}".encode())
            stream.write(
                value.numpy().tobytes() if torch.is_tensor(value) else repr(value).encode()
            )
    return stream.getvalue()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in _OF_THE_RUN}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def difference(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Names of files that are missing, left over or say something else."""
    return sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))


def whole_items(root: Path, command: Command, wanted: dict[str, str]) -> dict[Path, int]:
    """When each item was written that is there as it must be in the end."""
    found = [path for pattern in command.items for path in root.glob(pattern) if path.is_file()]
    ours = {path: _name(path, root) for path in found if not path.name.startswith(".")}
    return {
        path: path.stat().st_mtime_ns
        for path, name in ours.items()
        if name in wanted and _readable_hash(name, path, root, command) == wanted[name]
    }


def _readable_hash(name: str, path: Path, root: Path, command: Command) -> str:
    try:
        return _hash_of(name, path, root, command)
    except Exception:
        return "half a file"


def age_half_files(root: Path) -> None:
    """Turns back the clock of what was being written: young files may be those of a neighbour."""
    for path in root.rglob("*.tmp"):
        os.utime(path, (0, 0))


def made_again(items: dict[Path, int]) -> list[str]:
    """Items that were whole and have been written anew."""
    return [str(p) for p, when in items.items() if not p.is_file() or p.stat().st_mtime_ns != when]


def repeated_epochs(root: Path) -> int:
    """Epochs that were trained a second time, over all stages."""
    repeated = 0
    for folder in {path.parent for path in root.rglob("training_log_*.txt")}:
        text = "".join(path.read_text() for path in folder.glob("training_log_*.txt"))
        numbers = _EPOCH.findall(text)
        repeated += len(numbers) - len(set(numbers))
    return repeated
