"""What is asked for each picture, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from screener_nnu.importing.report import KEPT, TAKEN

TRAIN, TEST = "train", "test"
NORMAL, ABNORMAL, UNKNOWN = "0", "1", ""
COLOURS = {1: "grey", 3: "rgb"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture as a layout lists it.

    Attributes:
        source: path relative to the input, with `/`, or an absolute one of a table.
        split: `train` or `test`.
        label: `0` normal, `1` abnormal, empty if unknown.
        group: the patient; empty if not known.
        mask: path of the mask, as `source`; empty if there is none.
    """

    source: str
    split: str = TRAIN
    label: str = NORMAL
    group: str = ""
    mask: str = ""


@dataclass(frozen=True)
class Form:
    """How all pictures of a data set are written: 1 or 3 channels of 8 or 16 bits."""

    channels: int
    bits: int

    def __str__(self) -> str:
        """For messages."""
        return f"{COLOURS[self.channels]}, {self.bits} bit"


@dataclass(frozen=True, slots=True)
class PictureRow:
    """What became of one picture.

    Attributes:
        source: as in `Entry`, and so `split`, `label` and `group`.
        status: `taken`, `kept` (an earlier run took it), `skipped`, or `would be taken`.
        case: name of the case.
        mask: file of the mask that is to be written or was; empty if none.
        reason: why it was skipped, or what is wrong with its mask.
        notes: what was changed when it was read.
        channels: 1 for what shows grey, 3 for colour; 0 if not known.
        bits: 8 or 16; 0 for 16 that hold values of 8, or if not known.
        bytes: size of the file.
        changed: time of its last change (ns).
        sha256: of the file; empty where no other has its size.
    """

    source: str
    status: str
    case: str = ""
    split: str = TRAIN
    label: str = ""
    group: str = ""
    mask: str = ""
    reason: str = ""
    notes: str = ""
    channels: int = 0
    bits: int = 0
    bytes: int = 0
    changed: int = 0
    sha256: str = ""

    def line(self) -> str:
        """The row for people."""
        return f"{self.status} {self.source}{f': {self.reason}' * bool(self.reason)}"

    def values(self) -> dict[str, Any]:
        """All values by name; `kept` is stored as `taken`, which it was."""
        found = {name: getattr(self, name) for name in NAMES}
        return found | {"status": TAKEN if self.status == KEPT else self.status}


NAMES = tuple(f.name for f in fields(PictureRow))
