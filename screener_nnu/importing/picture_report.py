"""Reports of an import of pictures: tables for people, JSON and a journal for the next run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from screener_nnu.csv_files import write_csv
from screener_nnu.errors import ScreenerError
from screener_nnu.files import replacing
from screener_nnu.importing.records import NAMES, TEST, Form, PictureRow
from screener_nnu.importing.report import KEPT, REPORT, TAKEN
from screener_nnu.importing.report import TABLE as REPORT_TABLE
from screener_nnu.importing.writing import ENDING, IMAGE_FOLDERS
from screener_nnu.preprocessing.raw_dataset import PICTURE_TABLE

_CASES_COLUMNS = ("case", "split", "label", "group", "source")
# What tells a file from a later one; of no use in a table for people.
_STAMP = ("bytes", "changed", "sha256")
_JOURNAL = ".pictures.jsonl"


@dataclass
class Report:
    """What earlier runs into a data set have done, and this one.

    Attributes:
        form: of the written pictures; None before any was.
        rows: by source.
    """

    form: Form | None = None
    rows: dict[str, PictureRow] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Report:
        """Of the data set in a folder as it is now, with what a killed run has noted.

        Raises:
            ScreenerError: the report is not ours.
        """
        report = cls()
        path = folder / REPORT
        if path.is_file():
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
                report.form = Form(values["channels"], values["bits"])
                report._add(values["pictures"])
            except (ValueError, KeyError, TypeError) as error:
                raise ScreenerError(
                    f"{path} is not that of an import of pictures ({error!r}): delete it, or "
                    "choose another -d"
                ) from error
        if (folder / _JOURNAL).is_file():
            report._add_journal(folder / _JOURNAL)
        report._forget_deleted(folder)
        return report

    def write(self, folder: Path) -> None:
        """Writes `import.json`, `import.csv` and `pictures.csv`, and removes the journal."""
        assert self.form is not None
        rows = [self.rows[key] for key in sorted(self.rows)]
        values = (row.values() for row in rows)
        _write_json(folder / REPORT, self.form, rows)
        write_csv(folder / REPORT_TABLE, [n for n in NAMES if n not in _STAMP], values)
        taken = sorted(self.taken(), key=lambda row: (row.split == TEST, row.case))
        write_csv(folder / PICTURE_TABLE, _CASES_COLUMNS, (row.values() for row in taken))
        (folder / _JOURNAL).unlink(missing_ok=True)

    def taken(self) -> list[PictureRow]:
        """The pictures that are cases."""
        return [row for row in self.rows.values() if row.status in (TAKEN, KEPT)]

    def _forget_deleted(self, folder: Path) -> None:
        """Cases whose image was deleted are none any more; without any, the form is free."""
        places = {split: folder / name for split, name in IMAGE_FOLDERS.items()}
        there = {s: set(os.listdir(p)) if p.is_dir() else set() for s, p in places.items()}
        self.rows = {
            source: row
            for source, row in self.rows.items()
            if row.status != TAKEN or f"{row.case}{ENDING}" in there[row.split]
        }
        if not self.taken():
            self.form = None

    def _add(self, values: Iterable[dict[str, Any]]) -> None:
        for value in values:
            self.rows[value["source"]] = PictureRow(**value)

    def _add_journal(self, path: Path) -> None:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                value = json.loads(line)
                if "source" in value:
                    self._add([value])
                else:
                    self.form = Form(**value)
            except (ValueError, TypeError):  # the line that a kill cut off
                continue


@contextmanager
def journal(folder: Path, form: Form) -> Iterator[Callable[[PictureRow], None]]:
    """Gives what notes each finished picture at once, so that a killed run goes on.

    Args:
        folder: of the data set.
        form: of the written pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _JOURNAL).open("a", encoding="utf-8") as stream:

        def note(values: dict[str, Any]) -> None:
            stream.write(f"{json.dumps(values)}\n")
            stream.flush()

        # On a line of its own, also after one that a kill cut off.
        stream.write("\n")
        note(asdict(form))
        yield lambda row: note(row.values())


def own_files(folder: Path) -> list[Path]:
    """The files of a report."""
    return [folder / name for name in (REPORT, REPORT_TABLE, PICTURE_TABLE)]


def _write_json(path: Path, form: Form, rows: Sequence[PictureRow]) -> None:
    """One line a picture: the whole as one text would take ten times the memory."""
    head = json.dumps(asdict(form))[:-1]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(f'{head}, "pictures": [')
        for index, row in enumerate(rows):
            stream.write(f"{',' * (index > 0)}\n{json.dumps(row.values())}")
        stream.write("\n]}\n")
