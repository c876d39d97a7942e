"""Scores of whole images without learning: a data set on which one of them wins says little."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from screener_nnu.errors import CaseError
from screener_nnu.evaluation.case_table import ScoredCases
from screener_nnu.evaluation.cases import read_grey
from screener_nnu.evaluation.pairing import BODY, image_places
from screener_nnu.files import refuse_missing
from screener_nnu.map_kind import PICTURES, SCANS
from screener_nnu.preprocessing.volumes import read_array, read_geometry, read_labels

NO_LEARNING = "no learning"
"""Name in the tables, beside those of methods."""
_NAMES = ("image_mean", "image_deviation", "file_size")


def score_images(images: Path, maps: Sequence[Path], cases: Iterable[str]) -> ScoredCases:
    """Mean and standard deviation of the values of each image, and the bytes of its file.

    Of a picture they are of all its grey values, colours averaged; of a CT of the HU in the body.

    Args:
        images: folder of pictures `<case>_0000.png` or `<case>.png`, or of CT `.nii.gz` alike.
        maps: folders of the methods, for the body masks of CT.
        cases: names of the cases.

    Raises:
        ScreenerError: the folder of images does not exist.
    """
    refuse_missing(images)
    scores: dict[str, dict[str, float]] = {name: {} for name in _NAMES}
    problems: dict[str, str] = {}
    for case in tqdm(list(cases), "images", disable=None):
        try:
            path = _find_image(images, case)
            values = _values(path, maps, case)
        except CaseError as error:
            problems[case] = error.reason
            continue
        figures = (values.mean(dtype=np.float64), values.std(dtype=np.float64), path.stat().st_size)
        for name, value in zip(_NAMES, figures, strict=True):
            scores[name][case] = float(value)
    return ScoredCases(scores, problems=problems)


def _find_image(images: Path, case: str) -> Path:
    for kind in (PICTURES, SCANS):
        for path in image_places(images, case, kind):
            if path.is_file():
                return path
    raise CaseError(case, f"no image {case}{PICTURES.labels} or {case}{SCANS.labels} in {images}")


def _values(path: Path, maps: Sequence[Path], case: str) -> NDArray:
    if path.name.endswith(PICTURES.labels):
        return read_grey(path, case)
    name = f"{case}{BODY}{SCANS.labels}"
    for body in (folder / name for folder in maps):
        if body.is_file():
            inside = read_labels(body, case, read_geometry(path, case)) > 0
            if not inside.any():
                raise CaseError(case, f"the body mask {body} is empty")
            return read_array(path, case)[inside]
    raise CaseError(case, f"no body mask {name} beside the maps")
