"""Situations that people get into, and a page of what happens in each.

A test of this folder is one situation: it makes the input, runs a command as a person would, and
says how that must end. `pytest -n 0 tests/robustness --write_page` writes what happened to
`documentation/robustness.md`; without the option, the page is compared with the tests.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk  # noqa: N813

PAGE = Path(__file__).parents[2] / "documentation" / "robustness.md"
MARKER = "situation(given, code, says): what a person does, the exit code, words of the answer"
_ROWS = pytest.StashKey[list[tuple[str, str, str, str]]]()
_INTRODUCTION = """\
# What happens when something is wrong

Each row is a test of `tests/robustness`, which makes the input, runs the command and checks exit
code, message, and that no file of yours has changed. The page is what they wrote down:

    pytest -n 0 tests/robustness --write_page

Every message names the case or the path, the reason and the way out. Paths are cut here.
"""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    config.stash[_ROWS] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows = session.config.stash[_ROWS]
    if session.config.getoption("--write_page") and rows:
        PAGE.write_text(_page(rows), encoding="utf-8")


def _page(rows: list[tuple[str, str, str, str]]) -> str:
    parts = [_INTRODUCTION]
    for kind in dict.fromkeys(row[0] for row in rows):
        parts.append(f"\n## {kind}\n\n| given | command | what happens |\n|---|---|---|\n")
        first = {row[:3]: row[3] for row in reversed(rows) if row[0] == kind}
        for (_, given, command), happens in reversed(first.items()):
            parts.append(f"| {given} | `{command}` | {happens} |\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


@dataclass
class Done:
    """How a command ended."""

    code: int
    output: str


@dataclass
class Place:
    """Folders of a person, and what must hold of every command that they run.

    Attributes:
        root: everything lies below it.
        world: nnU-Net's folders, with a trained chain where it was asked for.
        given, code, says: of the situation.
        theirs: files that no command may change, with the hash of each.
    """

    root: Path
    world: Any
    given: str
    code: int
    says: tuple[str, ...]
    theirs: dict[Path, str] = field(default_factory=dict)
    happened: str = ""
    command: str = ""

    def path(self, name: str) -> Path:
        """A path below the root; its folder is made."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def person(
        self, name: str = "in/anna.nii.gz", change: Callable[..., Any] | None = None
    ) -> Path:
        """A scan of the trained data set under a name of one's own.

        Args:
            name: of the file.
            change: takes and gives HU (z, y, x).
        """
        source = sorted((self.world.raw / "imagesTr").iterdir())[0]
        image = sitk.ReadImage(str(source))
        if change is not None:
            array = change(sitk.GetArrayFromImage(image))
            made = sitk.GetImageFromArray(array)
            made.CopyInformation(image)
            image = made
        path = self.path(name)
        sitk.WriteImage(image, str(path))
        return self.mine(path)

    def mine(self, path: Path, content: bytes | None = None) -> Path:
        """Marks a file as the person's, with a content where one is given."""
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.theirs[path] = _hash(path)
        return path

    def own_raw(self) -> Path:
        """Gives the raw data sets, which all tests share, a copy that this one may change."""
        folder = self.world.root / "raw"
        if folder.is_symlink():
            shared = folder.resolve()
            folder.unlink()
            shutil.copytree(shared, folder)
        return folder

    def run(self, command: str, *words: object) -> Done:
        """Runs a command of the package in this process, and checks how it ended."""
        module = importlib.import_module(f"screener_nnu.commands.{command}")
        self.command = f"screener_{command}".replace("import_data", "import")
        output, code = _captured(lambda: module.main([os.fspath(str(word)) for word in words]))
        self.judge(Done(code, output))
        return Done(code, output)

    def predict(self, *words: object, source: str = "in", out: str = "out") -> Done:
        """`screener_predict` with the trained student."""
        return self.run(
            "predict", "-d", 901, "-i", self.root / source, "-o", self.root / out, "-device", "cpu",
            *words,
        )  # fmt: skip

    @staticmethod
    def done(code: int, output: str) -> Done:
        """How a command ended that the test itself has run."""
        return Done(code, output)

    def before(self, command: str, *words: object) -> None:
        """Runs a command that the situation starts from; it has to end well."""
        code, says, self.code, self.says = self.code, self.says, 0, ()
        self.run(command, *words)
        self.code, self.says = code, says

    def judge(self, done: Done) -> None:
        """Fails where the command ended otherwise than the situation says."""
        assert "Traceback" not in done.output, done.output
        assert done.code == self.code, done.output
        flat = " ".join(done.output.split())
        for words in self.says:
            assert re.search(words, flat), f"{words!r} is missing in:\n{done.output}"
        changed = [str(path) for path, was in self.theirs.items() if _hash(path) != was]
        assert not changed, changed
        self.happened = _sentence(done, self.says, self.root)


def _captured(call: Callable[[], object]) -> tuple[str, int]:
    """What a command prints and logs, and its exit code."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.INFO)
    try:
        with redirect_stdout(stream), redirect_stderr(stream):
            call()
        return stream.getvalue(), 0
    except SystemExit as error:
        return stream.getvalue(), error.code if isinstance(error.code, int) else 1
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def _sentence(done: Done, says: tuple[str, ...], root: Path) -> str:
    """The lines of the output that hold the words, without the root of the paths."""
    lines = [line.strip() for line in re.split(r"[\n\r]", done.output) if line.strip()]
    found = [line for line in lines if any(re.search(words, line) for words in says)]
    chosen = list(dict.fromkeys(found or lines[-1:]))[:2]
    text = " / ".join(chosen).replace(f"{root}{os.sep}", "").replace(str(root), ".")
    # A name of 240 letters is not for a table.
    text = re.sub(r"(.)\1{30,}", r"\1\1\1...", text)
    return re.sub(r"(/tmp/|/private/)\S*?/", ".../", text)


def _hash(path: Path) -> str:
    """Of content and kind; a link counts as what it says."""
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "gone"


@pytest.fixture(autouse=True)
def no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress bars stay out of the answers."""
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where a situation happens, with a trained chain."""
    yield from _judged(
        request, Place(tmp_path, request.getfixturevalue("trained"), *_said(request))
    )


@pytest.fixture
def planned(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The same with a planned data set; nothing is trained."""
    yield from _judged(request, Place(tmp_path, request.getfixturevalue("world"), *_said(request)))


def _said(request: pytest.FixtureRequest) -> tuple[str, int, tuple[str, ...]]:
    marker = request.node.get_closest_marker("situation")
    assert marker is not None, "a situation says what is given, and how it ends"
    given, code, *says = marker.args
    return given, code, tuple(says)


def _judged(request: pytest.FixtureRequest, place: Place) -> Iterator[Place]:
    yield place
    if not place.happened:
        return  # the test itself has failed, and says why
    kind = request.module.__doc__.splitlines()[0].rstrip(".")
    row = (kind, _cell(place.given), place.command, _cell(place.happened))
    if request.config.getoption("--write_page"):
        request.config.stash[_ROWS].append(row)
    elif f"| {row[1]} | `{row[2]}` |" not in PAGE.read_text(encoding="utf-8"):
        pytest.fail(
            f"{PAGE.name} lacks this: pytest -n 0 tests/robustness --write_page", pytrace=False
        )


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """From now on, no file whose name holds some text can be written to its end."""

    def fill(text: str) -> None:
        replace = os.replace

        def refused(source: Any, target: Any, **options: Any) -> None:
            if text in os.fspath(target):
                raise OSError(28, "No space left on device")
            replace(source, target, **options)

        monkeypatch.setattr(os, "replace", refused)

    return fill


@pytest.fixture
def half() -> Callable[[Path], None]:
    """Cuts a file to a half."""

    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return cut
