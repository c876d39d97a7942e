"""What a student learns to read the condition from: positions of scans, stored a file a scan."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from screener_nnu.checkpoints import write_array
from screener_nnu.descriptors.student_features import StudentFeatures
from screener_nnu.errors import CaseError
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.sampling.randomness import numpy_generator
from screener_nnu.trainers.density_maps import CropSource
from screener_nnu.trainers.reading import CaseReader, CropSample, Pinnable
from screener_nnu.trainers.storing import is_stored, remove_half_maps, store_all

#: Positions that are kept of a scan, of one crop of it.
KEPT_POSITIONS = 3000


def positions_in_body(source: CropSource, sample: CropSample) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps (n, channels) and condition (n, d_cond) at the positions in the body of a crop.

    Raises:
        CaseError: none is.
    """
    maps, c, inside = source.maps(sample, [])
    assert c is not None
    places = inside[0].flatten().nonzero()[:, 0]
    if not len(places):
        raise CaseError(sample.case, "the crop that was drawn of it holds no body")
    rows, condition = (m[0].flatten(1)[:, places].T for m in (maps, c))
    return rows, condition


class RowStore:
    """What is read and the condition at positions here and there, float16, a file a scan.

    The networks see a crop of each scan once; a step then draws positions of many scans, which a
    step of one crop would not mix.

    Args:
        folder: of exactly these networks' rows.
        source: of crops and their maps.
        features: that these maps are of.
        seed: of the crops and positions.
    """

    def __init__(
        self, folder: Path, source: CropSource, features: StudentFeatures, seed: int
    ) -> None:
        """Keeps what a file is made with."""
        self.folder, self.source, self.features, self.seed = folder, source, features, seed
        self.cases = CaseFolder(source.folder)

    def fill(self, names: Iterable[str]) -> None:
        """Makes what is missing or older than its case; a broken case is reported and left out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_half_maps(self.folder)
        missing = [name for name in names if not is_stored(self.cases, name, [self._path(name)])]
        wanted = dict.fromkeys(missing)
        store_all(wanted, lambda case, _: self._store(case), "positions", "left out")

    def _path(self, case: str) -> Path:
        return self.folder / f"{case}.npy"

    def _store(self, case: str) -> None:
        key = zlib.crc32(case.encode())
        generator = numpy_generator(self.seed, "condition rows", key)
        reader = self.source.reader((case,), self.seed, "condition rows")
        rows, condition = positions_in_body(self.source, reader.read(case, generator))
        read, _ = self.features.parted(rows)
        joined = torch.cat([read, condition], dim=1)
        count = min(KEPT_POSITIONS, len(joined))
        kept = np.sort(generator.permutation(len(joined))[:count])
        values = joined[torch.from_numpy(kept).to(joined.device)].half().cpu().numpy()
        write_array(self._path(case), values)


@dataclass(frozen=True)
class RowSample(Pinnable):
    """Positions of a scan: rows (n, channels + d_cond), float32."""

    rows: torch.Tensor


class RowReader(CaseReader[RowSample]):
    """Draws stored positions, `positions` of a scan."""

    def __init__(
        self,
        folder: Path,
        rows: Path,
        names: tuple[str, ...],
        seed: int,
        stage: str,
        positions: int,
    ) -> None:
        """See `CaseReader`; `rows` is the folder of a `RowStore`."""
        super().__init__(folder, names, seed, stage)
        self.rows, self.positions = rows, positions

    def read(self, case: str, generator: np.random.Generator) -> RowSample:
        """Some positions of a scan, each of which may come more than once."""
        try:
            stored = np.load(self.rows / f"{case}.npy", mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise CaseError(case, f"its stored positions cannot be read ({error})") from error
        places = np.sort(generator.integers(0, len(stored), self.positions))
        return RowSample(torch.from_numpy(stored[places].astype(np.float32)))
