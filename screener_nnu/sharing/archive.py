"""The zip itself: written member by member, read as the work of a stranger."""

from __future__ import annotations

import hashlib
import json
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from screener_nnu.errors import ScreenerError
from screener_nnu.sharing.manifest import DESCRIPTION, Manifest, is_member, read_manifest

# All members are stored as they are: weights do not shrink, and nothing can swell when it is read.
_STORED = zipfile.ZIP_STORED
_MAX_MEMBERS = 64
_MAX_TEXT_BYTES = 16 << 20
_CHUNK = 1 << 20
_ENCRYPTED = 0x1
# The last four: a place outside the file, a name in no alphabet, an unknown flag, a huge number.
_DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    OverflowError,
)


class ModelWriter:
    """Adds members to a stream, then `model.json`, which lists them; use it in a `with` block.

    Args:
        stream: seekable, open for writing.
    """

    def __init__(self, stream: BinaryIO) -> None:
        """Starts an empty archive."""
        self._archive = zipfile.ZipFile(stream, "w", _STORED)
        self._files: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> ModelWriter:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the archive, not the stream."""
        self._archive.close()

    def add(self, name: str, content: bytes) -> None:
        """Adds one member.

        Raises:
            ScreenerError: the name of a data set or plan cannot be part of a model file.
        """
        if not is_member(name):
            raise ScreenerError(
                f"'{name}' cannot stand in a model file: give the plan a name of the letters a to "
                "z, digits, '_', '.' and '-'"
            )
        # One date for all, so that a file does not tell when it was made.
        info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        self._archive.writestr(info, content)
        self._files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def finish(self, description: dict[str, Any]) -> None:
        """Adds `model.json`, with size and hash of every member."""
        self.add(DESCRIPTION, json_bytes({**description, "files": dict(self._files)}))


def json_bytes(values: Any) -> bytes:
    """Indented JSON."""
    return (json.dumps(values, indent=2) + "\n").encode()


def parse_json(content: bytes, name: str) -> Any:
    """Reads the JSON of a member.

    Raises:
        ScreenerError: it is none, or nested beyond all reason.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ScreenerError(f"{name} is not valid JSON ({error})") from error


@contextmanager
def open_model(path: Path) -> Iterator[tuple[zipfile.ZipFile, Manifest]]:
    """Opens a model file whose list of members has been checked; contents have not been.

    Raises:
        ScreenerError: missing, no zip, cut off, members that do not belong there, or another
            format version.
    """
    if not path.is_file():
        raise ScreenerError(f"no model file {path}")
    try:
        with _damage_named():
            archive = zipfile.ZipFile(path)
        with archive:
            _check_members(archive.infolist(), path.stat().st_size)
            content = b"".join(read_chunks(archive, DESCRIPTION))
            members = [info.filename for info in archive.infolist()]
            yield archive, read_manifest(parse_json(content, DESCRIPTION), members)
    except ScreenerError as error:
        raise ScreenerError(f"{path} was not installed: {error}") from error


@contextmanager
def _damage_named() -> Iterator[None]:
    """Turns what Python's module says of a broken zip into an error of ours."""
    try:
        yield
    except _DAMAGE as error:
        raise ScreenerError(
            f"it is damaged or no model file ({error}): copy or download it again"
        ) from error


def read_chunks(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """Content of a member.

    Raises:
        ScreenerError: it cannot be read, or its checksum is wrong.
    """
    with _damage_named():
        stream = archive.open(name)
    with stream:
        while True:
            with _damage_named():
                chunk = stream.read(_CHUNK)
            if not chunk:
                return
            yield chunk


def extract_member(archive: zipfile.ZipFile, manifest: Manifest, name: str, target: Path) -> None:
    """Writes a member to a path of ours and compares its size and hash with the manifest's.

    Raises:
        ScreenerError: the content is not what `model.json` says, or it cannot be written.
    """
    size, digest = manifest.files[name]
    seen, read = hashlib.sha256(), 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            for chunk in read_chunks(archive, name):
                read += len(chunk)
                seen.update(chunk)
                stream.write(chunk)
    except OSError as error:
        raise ScreenerError(f"{name} cannot be written here ({error})") from error
    if (read, seen.hexdigest()) != (size, digest):
        raise ScreenerError(
            f"the sha256 of {name} is not the one in model.json: the file was changed after its "
            "export or damaged; get it again from whom it came"
        )


def _check_members(members: list[zipfile.ZipInfo], archive_bytes: int) -> None:
    """Names, kinds and sizes, before anything is read."""
    if len(members) > _MAX_MEMBERS:
        raise ScreenerError(f"it has {len(members)} members; a model has {_MAX_MEMBERS} at most")
    seen: set[str] = set()
    for info in members:
        # Of the name as it is written: zipfile cuts it at a NUL and turns backslashes.
        if info.orig_filename != info.filename or not is_member(info.orig_filename):
            raise ScreenerError(
                "it was not made by screener_export_model: a model has no member "
                f"{info.orig_filename[:200]!r}"
            )
        if info.filename.lower() in seen:
            raise ScreenerError(f"the member {info.filename} is there twice")
        seen.add(info.filename.lower())
        _check_kind(info)
    if sum(info.file_size for info in members) > archive_bytes:
        raise ScreenerError("its members claim more bytes than the file has")
    if DESCRIPTION not in seen:
        raise ScreenerError("it has no model.json; a model file is made by screener_export_model")


def _check_kind(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or info.is_dir():
        raise ScreenerError(f"the member {info.filename} is a link or no plain file")
    if info.compress_type != _STORED or info.compress_size != info.file_size:
        raise ScreenerError(
            f"the member {info.filename} is compressed, which an export never is: take the file as "
            "it was exported"
        )
    if info.flag_bits & _ENCRYPTED:
        raise ScreenerError(f"the member {info.filename} is encrypted")
    if not info.filename.endswith(".pth") and info.file_size > _MAX_TEXT_BYTES:
        raise ScreenerError(f"the member {info.filename} has an absurd {info.file_size} bytes")
