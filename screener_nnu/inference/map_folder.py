"""Maps, body masks and masks of cases in their folder, written, kept or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from screener_nnu.errors import CaseError
from screener_nnu.files import remove
from screener_nnu.inference.source_identity import source_identity
from screener_nnu.map_kind import SCANS, MapKind
from screener_nnu.preprocessing.image_files import write_image
from screener_nnu.preprocessing.reading import RawImage, Source
from screener_nnu.preprocessing.volumes import Geometry, read_volume

if TYPE_CHECKING:
    from screener_nnu.outputs.extras import CaseExtras

_PLACE = ("spacing", "origin", "direction")
# mm; NIfTI files hold a place in single precision.
_CLOSE = 0.01


@dataclass(frozen=True)
class AnomalyMap:
    """Map (float32) and body mask (uint8) in the geometry of the scan or picture.

    Attributes:
        vector_scores: by name, of the scan as a whole; none of most detectors.
        vector: (d,) that these are scores of.
        image_scores: by name, of the scan as a whole by a detector that has them.
    """

    score: sitk.Image
    body: sitk.Image
    vector_scores: Mapping[str, float] = field(default_factory=dict)
    vector: NDArray[np.float32] | None = None
    image_scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MapFolder:
    """Maps, body masks and masks of cases.

    Attributes:
        folder: of all of them.
        threshold: of the masks (nats); None: there are none.
        extras: what else is made of the maps.
        kind: of what is predicted.
    """

    folder: Path
    threshold: float | None
    extras: CaseExtras | None
    kind: MapKind = SCANS

    def path(self, case: str, end: str = "") -> Path:
        """Of the map, or of the mask with an end to its name."""
        return self.folder / f"{case}{end}{self.kind.labels if end else self.kind.map}"

    def files(self, case: str) -> list[Path]:
        """Every file that may be written or removed for a case."""
        maps = [self.path(case, end) for end in ("", "_body", "_mask")]
        return list(dict.fromkeys(maps + (self.extras.files(case) if self.extras else [])))

    def write(self, case: str, source: Source, result: AnomalyMap) -> None:
        """Map, body mask and mask; killed half-way, nothing old stands beside what is new."""
        remove(self.path(case))
        if self.extras is not None:
            self.extras.forget(case)
            self.extras.begin(case, source_identity(source), result)
        write_image(result.body, self.path(case, "_body"))
        self._write_mask(case, result)
        # Last of the three: it stands for a finished case.
        write_image(result.score, self.path(case))

    def refuse_or_mask(self, case: str, source: Source) -> None:
        """Refuses the map of an earlier run if it is not the one asked for; writes its mask.

        A mask at the threshold that is asked for stays.
        """
        foreign = self.extras.foreign(case, source_identity(source)) if self.extras else ""
        if foreign:
            raise CaseError(case, foreign)
        if self.threshold is None or (self.extras and self.extras.has_mask(case)):
            return
        self._write_mask(case, self._read(case))
        if self.extras:
            self.extras.note_mask(case)

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
