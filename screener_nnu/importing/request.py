"""What an import is asked for, checked before anything is read or written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from screener_nnu.errors import ScreenerError
from screener_nnu.files import refuse_missing
from screener_nnu.paths import new_dataset_name, raw_root

MIN_SLICES = 20


@dataclass(frozen=True)
class ImportRequest:
    """One run of `screener_import`.

    Attributes:
        source: folder (nested, mixed) of DICOM files or a zip of one; folder or table of pictures.
        number: of the dataset.
        name: of the dataset, without `DatasetXXX_`.
        min_slices: volumes of fewer slices are skipped.
        max_thickness: volumes of thicker or wider spaced slices (mm) are skipped; 0: no limit.
        include: regular expression that Series Description must hold; empty: any.
        exclude: regular expression that it must not hold; empty: none.
        keep_names: case names and report tell patient, date, description and folder.
        processes: series read at a time; 0: in this process.
        dry_run: say what would be taken, and write nothing.
        colour: `auto`, `grey` or `rgb`, what pictures are to be.
        group_regex: regular expression whose first group in a path is the patient; empty: none.
        part, parts: share of the series that is imported, counted from 0, see `workers.part_of`.
    """

    source: Path
    number: int
    name: str
    min_slices: int = MIN_SLICES
    max_thickness: float = 0.0
    include: str = ""
    exclude: str = ""
    keep_names: bool = False
    processes: int = 0
    dry_run: bool = False
    colour: str = "auto"
    group_regex: str = ""
    part: int = 0
    parts: int = 1

    @property
    def folder(self) -> Path:
        """`$nnUNet_raw/DatasetXXX_Name`."""
        return raw_root() / f"Dataset{self.number:03d}_{self.name}"

    def check(self) -> None:
        """Refuses what cannot be carried out.

        Raises:
            ScreenerError: no source, a name or expression that is none, or a taken number.
        """
        refuse_missing(self.source)
        new_dataset_name(self.number, self.name)
        patterns = {"include": self.include, "exclude": self.exclude}
        for option, pattern in (patterns | {"group_regex": self.group_regex}).items():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ScreenerError(
                    f"--{option} '{pattern}' is no regular expression ({error})"
                ) from error
            if option == "group_regex" and pattern and not groups:
                raise ScreenerError(
                    f"--group_regex '{pattern}' has no group: put the patient in parentheses"
                )
        if (self.folder / "labelsTr").exists():
            raise ScreenerError(
                f"{self.folder.name} has labels (labelsTr), and an import has none: choose another "
                "number (-d)"
            )
