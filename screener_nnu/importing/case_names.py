"""Case names of pictures: from their paths, safe in every file system, and never two alike."""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

# Files allow 255 bytes, and need room for endings and temporary names.
_MAX_NAME = 150
_HASH = 8
_ODD = re.compile(r"[^A-Za-z0-9_-]+")
_CHANNEL = "_0000"
_SAYING_NOTHING = ("..", "imagesTr", "imagesTs")


def case_names(sources: Sequence[str], taken: Iterable[str]) -> list[str]:
    """A name for each path: letters, digits, `-` and `_`.

    Names that would differ from another by the case of letters alone, or not at all, end in a hash
    of the path.

    Args:
        sources: paths with `/`.
        taken: names that other cases of the data set have.

    Example:
        >>> case_names(["a/Bild 1.PNG", "a/b\u00e4r_0000.tif", "a/bild-1.jpg"], [])
        ['a_Bild-1_dd13dd70', 'a_bar', 'a_bild-1_98b71171']
    """
    folder = _common_folder(sources)
    names = [_safe(source, folder) for source in sources]
    counts = Counter(name.casefold() for name in [*names, *taken])
    return [
        name if counts[name.casefold()] == 1 else f"{name}_{_digest(source)}"
        for name, source in zip(names, sources, strict=True)
    ]


def _common_folder(sources: Sequence[str]) -> PurePosixPath:
    """The folder of all absolute paths, whose names would say where a disk is mounted."""
    parents = [str(PurePosixPath(s).parent) for s in sources if s.startswith("/")]
    return PurePosixPath(posixpath.commonpath(parents) if parents else "/")


def _safe(source: str, folder: PurePosixPath) -> str:
    path = PurePosixPath(source)
    path = path.relative_to(folder) if path.is_absolute() else path
    parts = [part for part in (*path.parts[:-1], path.stem) if part not in _SAYING_NOTHING]
    text = unicodedata.normalize("NFKD", "_".join(parts).removesuffix(_CHANNEL))
    letters = "".join(letter for letter in text if not unicodedata.combining(letter))
    name = _ODD.sub("-", letters).strip("-_") or "picture"
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME - _HASH - 1]}_{_digest(source)}"


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:_HASH]
