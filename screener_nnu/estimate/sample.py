"""A few scans of raw data sets in folders of their own, where a run can be tried."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from screener_nnu.files import bytes_below
from screener_nnu.locks import only_one
from screener_nnu.paths import dataset_name, preprocessed_root, raw_folder
from screener_nnu.plans import write_json
from screener_nnu.preprocessing.raw_dataset import find_cases, read_description
from screener_nnu.sampling.spread import spread

_FOLDER, _LOCK = ".screener_estimate", ".screener_estimate.lock"
_FOLDERS = ("raw", "preprocessed", "results")


@dataclass(frozen=True)
class Sample:
    """Folders that hold it while it is tried.

    Attributes:
        root: of nnU-Net's three folders.
        chosen: images of the sample by data set and case.
        cases: of each data set, in all.
    """

    root: Path
    chosen: Mapping[str, Mapping[str, Path]]
    cases: Mapping[str, list[str]]

    @property
    def images(self) -> dict[str, Path]:
        """Of all data sets."""
        return {f"{name}/{c}": p for name, of in self.chosen.items() for c, p in of.items()}

    def used(self, kind: str) -> int:
        """Bytes in one of the folders."""
        return bytes_below(self.root / kind)


@contextmanager
def sampled(datasets: list[str], most: int) -> Iterator[Sample]:
    """Makes folders with some scans of raw data sets, which are not copied; all of it is removed.

    nnU-Net's environment variables name these folders as long as the block lasts.

    Args:
        datasets: by number or name.
        most: scans, of each data set in its share, and one at least.

    Raises:
        ScreenerError: no such data set or no image, or another process estimates at the same time.
    """
    names = [dataset_name(one) for one in datasets]
    found = {name: find_cases(raw_folder(name)) for name in names}
    total = sum(map(len, found.values()))
    root = preprocessed_root() / _FOLDER
    with only_one(preprocessed_root() / _LOCK, "nnUNet_preprocessed", "estimating a run"):
        shutil.rmtree(root, ignore_errors=True)  # what a killed one left
        chosen: dict[str, dict[str, Path]] = {}
        before = {f"nnUNet_{kind}": os.environ[f"nnUNet_{kind}"] for kind in _FOLDERS}
        try:
            for name, cases in found.items():
                share = max(1, round(most * len(cases) / total))
                chosen[name] = {case: cases[case] for case in spread(sorted(cases), share)}
                _describe(root / "raw" / name, read_description(raw_folder(name)), chosen[name])
            for kind in _FOLDERS:
                (root / kind).mkdir(parents=True, exist_ok=True)
                os.environ[f"nnUNet_{kind}"] = str(root / kind)
            yield Sample(root, chosen, {name: sorted(cases) for name, cases in found.items()})
        finally:
            os.environ.update(before)
            shutil.rmtree(root, ignore_errors=True)


def _describe(folder: Path, values: dict[str, object], cases: Mapping[str, Path]) -> None:
    """A `dataset.json` that lists images which lie elsewhere."""
    folder.mkdir(parents=True)
    listed = {case: {"images": [str(path.absolute())]} for case, path in cases.items()}
    write_json(folder / "dataset.json", {**values, "numTraining": len(cases), "dataset": listed})
