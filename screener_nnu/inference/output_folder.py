"""The folder of the maps: what is written, not written over, and left behind by killed runs."""

from __future__ import annotations

import os
import re
import shutil
import time
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom.records import Series
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.files import TEMPORARY_ENDING, remove
from screener_nnu.inference.compressed_nifti import HEADER_PREFIX
from screener_nnu.inference.images import write_image
from screener_nnu.inference.source_identity import source_identity
from screener_nnu.outputs.products import product_endings
from screener_nnu.preprocessing.reading import RawImage, Source
from screener_nnu.preprocessing.volumes import Geometry, read_volume

if TYPE_CHECKING:
    from screener_nnu.outputs.extras import CaseExtras

# File systems allow 255 bytes; endings, and those of what is being written, need some of them.
_LONGEST_NAME = 215
_PLACE = ("spacing", "origin", "direction")
# mm; NIfTI files hold a place in single precision.
_CLOSE = 0.01
# A file is written within minutes; another process may be writing into the folder just now.
_OLD_SECONDS = 3600.0


def refuse_folder_of_scans(images: Mapping[str, Source], output: Path) -> None:
    """Refuses to write where scans lie: a map has the name of its case, as a scan may have.

    A scan lies in the folder of its name, and in that which a link leads to.

    Raises:
        ScreenerError: a scan lies in the folder.
    """
    folders: set[Path] = set()
    for source in images.values():
        if isinstance(source, Series):
            folders |= {Path(name) for name in {one.file.folder for one in source.slices}}
        else:
            folders |= {source} if source.is_dir() else {source.parent, source.resolve().parent}
    if output.resolve() in {folder.resolve() for folder in folders}:
        raise ScreenerError(
            f"{output} holds scans, which maps would replace or be taken for: give another "
            "folder for the output (-o)"
        )


def taken_names(cases: Collection[str]) -> dict[str, str]:
    """Cases whose files would have no name of their own, or none at all, and why.

    Names that differ in letter case alone, or in how an accent is written, are one name on many
    disks.
    """
    names, unusable = set(cases), {}
    beside = {"_body", "_mask", *(ending.partition(".")[0] for ending in product_endings())}
    folded: dict[str, str] = {}
    for case in sorted(names):
        owners = {case.removesuffix(end) for end in beside} & names - {case}
        first = folded.setdefault(unicodedata.normalize("NFC", case).casefold(), case)
        length = len(os.fsencode(case))
        if owners:
            owner = min(owners)
            unusable[case] = f"its map would replace {case}.nii.gz of the case {owner}: rename it"
        elif first != case:
            unusable[case] = (
                f"its name differs from {first} in letter case or accents alone, and on many disks "
                "one map would replace the other: rename it"
            )
        elif length > _LONGEST_NAME:
            unusable[case] = (
                f"its name has {length} bytes, and those of its map and findings would be too "
                f"long: rename it, to {_LONGEST_NAME} at most"
            )
    return unusable


def remove_half_written(output: Path) -> None:
    """Removes what killed runs were writing."""
    now = time.time()
    endings = "|".join(map(re.escape, (".nii.gz", ".json", ".csv", *product_endings())))
    temporary = re.compile(rf"\..+({endings})\.\d+{re.escape(TEMPORARY_ENDING)}")
    for path in output.glob(".*"):
        known = temporary.fullmatch(path.name) or path.name.startswith(HEADER_PREFIX)
        try:
            if not known or now - path.stat().st_mtime < _OLD_SECONDS:
                continue
        except FileNotFoundError:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class AnomalyMap:
    """Map (float32) and body mask (uint8) in the geometry of the scan.

    Attributes:
        vector_scores: by name, of the scan as a whole; none of most detectors.
    """

    score: sitk.Image
    body: sitk.Image
    vector_scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MapFolder:
    """Maps, body masks and masks of cases.

    Attributes:
        folder: of all of them.
        threshold: of the masks (nats); None: there are none.
        extras: what else is made of the maps.
    """

    folder: Path
    threshold: float | None
    extras: CaseExtras | None

    def path(self, case: str, end: str = "") -> Path:
        """Of the map, or of the file with another end to its name."""
        return self.folder / f"{case}{end}.nii.gz"

    def files(self, case: str) -> list[Path]:
        """Every file that may be written or removed for a case."""
        maps = [self.path(case, end) for end in ("", "_body", "_mask")]
        return list(dict.fromkeys(maps + (self.extras.files(case) if self.extras else [])))

    def write(self, case: str, source: Source, result: AnomalyMap) -> None:
        """Map, body mask and mask; killed half-way, nothing old stands beside what is new."""
        remove(self.path(case))
        if self.extras is not None:
            self.extras.forget(case)
            self.extras.begin(case, source_identity(source), result.vector_scores)
        write_image(result.body, self.path(case, "_body"))
        self._write_mask(case, result)
        # Last of the three: it stands for a finished case.
        write_image(result.score, self.path(case))

    def refuse_or_mask(self, case: str, source: Source) -> None:
        """Refuses the map of an earlier run if it is not the one asked for; writes its mask."""
        foreign = self.extras.foreign(case, source_identity(source)) if self.extras else ""
        if foreign:
            raise CaseError(case, foreign)
        if self.threshold is not None:
            self._write_mask(case, self._read(case))

    def read_of(self, raw: RawImage) -> AnomalyMap:
        """The map of an earlier run, which has to lie where the scan does.

        Raises:
            CaseError: it cannot be read, or is that of another scan.
        """
        stored = self._read(raw.case)
        found, expected = Geometry.of_image(stored.score), raw.geometry
        close = (np.allclose(getattr(found, n), getattr(expected, n), atol=_CLOSE) for n in _PLACE)
        if found.size != expected.size or not all(close):
            raise CaseError(
                raw.case,
                "the map that is there is that of another scan: add --overwrite, or give another "
                "-o",
            )
        return stored

    def _read(self, case: str) -> AnomalyMap:
        try:
            score, body = (read_volume(self.path(case, end), case) for end in ("", "_body"))
        except CaseError as error:
            raise CaseError(
                case, f"its map of an earlier run cannot be used; add --overwrite ({error.reason})"
            ) from error
        return AnomalyMap(score, body)

    def _write_mask(self, case: str, result: AnomalyMap) -> None:
        """Voxels of the body above the threshold, uint8, if there is one."""
        if self.threshold is not None:
            above = sitk.Cast(result.score > self.threshold, sitk.sitkUInt8) * result.body
            write_image(above, self.path(case, "_mask"))
