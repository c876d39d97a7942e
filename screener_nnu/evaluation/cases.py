"""Files of one case (map, body, annotation, image): paired by name, checked, read, and how.

Of a scan they are `.nii.gz`, of a picture the map is a `.tif` and all others are `.png`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage.io
from numpy.typing import NDArray

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.baselines import (
    BASELINES,
    NEED_HISTOGRAM,
    PICTURE_BASELINES,
    BaselineInput,
    HuHistogram,
    baseline_names,
)
from screener_nnu.evaluation.froc import MIN_VOLUME_MM3
from screener_nnu.files import refuse_missing
from screener_nnu.outputs.products import product_endings
from screener_nnu.preprocessing.volumes import (
    Geometry,
    is_flat,
    read_array,
    read_geometry,
    read_labels,
)

ENDING = ".nii.gz"
PICTURE_MAP = ".tif"
PICTURE = ".png"
BODY = "_body"
# Part of every signature: a change of what is counted must count anew.
_FORMAT = 2


@dataclass(frozen=True)
class Measurement:
    """Settings of the counts; travels to worker processes.

    Attributes:
        labels: annotation values that are pathology; None takes all above zero.
        hu_histogram: HU of the bodies of all planned scans, for the rarity baselines.
        seed: seed of everything drawn.
        min_volume_mm3: least volume of a detection and of a lesion in the FROC; pixels of pictures.
    """

    labels: tuple[int, ...] | None = None
    hu_histogram: HuHistogram | None = None
    seed: int = 0
    min_volume_mm3: float = MIN_VOLUME_MM3

    def describe(self, methods: Iterable[str]) -> dict[str, Any]:
        """The settings that change the counts of some methods, for a signature."""
        histogram = None
        if self.hu_histogram is not None and not NEED_HISTOGRAM.isdisjoint(methods):
            content = self.hu_histogram.edges.tobytes() + self.hu_histogram.counts.tobytes()
            histogram = hashlib.sha256(content).hexdigest()[:16]
        return {
            "format": _FORMAT,
            "labels": sorted(self.labels) if self.labels is not None else None,
            "hu_histogram": histogram,
            "seed": self.seed,
            "min_volume_mm3": self.min_volume_mm3,
        }


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case.

    Attributes:
        case: name of the case.
        maps: anomaly map of each method.
        body: body mask.
        mask: annotation.
        image: CT in HU or picture, or None when baselines are left out.
    """

    case: str
    maps: dict[str, Path]
    body: Path
    mask: Path
    image: Path | None

    @property
    def is_picture(self) -> bool:
        """Whether the case is a picture."""
        return self.body.name.endswith(PICTURE)


@dataclass(frozen=True)
class CaseLabels:
    """Which voxels of a case count, and which of them are annotated.

    Attributes:
        counted: body mask united with the annotation `(z, y, x)`.
        annotated: whether each counted voxel is annotated `(counted voxels,)`.
        body: body mask `(z, y, x)`.
        reference: geometry that all files of the case must have.
    """

    counted: NDArray[np.bool_]
    annotated: NDArray[np.bool_]
    body: NDArray[np.bool_]
    reference: Geometry

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing `(z, y, x)` in mm; of a picture in pixels."""
        if is_flat(self.reference):
            return 1.0, 1.0, 1.0
        x, y, z = self.reference.spacing
        return z, y, x

    @property
    def annotation(self) -> NDArray[np.bool_]:
        """Annotated voxels `(z, y, x)`."""
        volume = np.zeros(self.counted.shape, dtype=bool)
        volume[self.counted] = self.annotated
        return volume


def file_state(path: Path | None) -> list[Any] | None:
    """Name, size in bytes and time of the last change of a file."""
    if path is None:
        return None
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


def pair_cases(
    methods: Mapping[str, Path], masks: Path, images: Path | None
) -> tuple[list[CaseFiles], dict[str, str]]:
    """Pairs maps, masks and images by the name of the case.

    Every method is judged on the same cases, so a case that one method lacks is left out.

    Args:
        methods: folder of maps `<case>.nii.gz` and `<case>_body.nii.gz` of each method.
        masks: folder of annotations `<case>.nii.gz`.
        images: folder of images `<case>_0000.nii.gz` or `<case>.nii.gz`, or None.

    Returns:
        Complete cases in order of name, and the reason for each other one by name.

    Raises:
        ScreenerError: when a folder does not exist, or holds maps of scans and of pictures.
    """
    for folder in [*methods.values(), masks, *([images] if images else [])]:
        refuse_missing(folder)
        if not folder.is_dir():
            raise ScreenerError(f"{folder} is not a folder")
    pictures = _are_pictures(list(methods.values()))
    annotated = _names(masks, PICTURE if pictures else ENDING)
    if pictures:
        mapped = [_names(folder, PICTURE_MAP) for folder in methods.values()]
    else:
        mapped = [_map_names(folder, annotated) for folder in methods.values()]
    names = annotated.union(*mapped)
    complete: list[CaseFiles] = []
    skipped: dict[str, str] = {}
    for case in sorted(names):
        try:
            complete.append(_find_files(case, methods, masks, images, pictures))
        except CaseError as error:
            skipped[case] = error.reason
    return complete, skipped


def _are_pictures(folders: list[Path]) -> bool:
    """Whether folders hold maps of pictures.

    Raises:
        ScreenerError: when they hold maps of scans as well.
    """
    flat = {folder: _names(folder, PICTURE_MAP) for folder in folders}
    if not any(_names(folder, ENDING) for folder in folders):
        return any(flat.values())
    for folder, names in flat.items():
        if any((folder / f"{name}{BODY}{PICTURE}").is_file() for name in names):
            raise ScreenerError(
                f"{folder} holds maps of pictures, but there are maps of scans as well: keep them "
                "in folders of their own and evaluate one after the other"
            )
    return False


def _names(folder: Path, ending: str) -> set[str]:
    files = (path.name for path in folder.iterdir() if path.name.endswith(ending))
    return {name[: -len(ending)] for name in files}


def _map_names(folder: Path, annotated: set[str]) -> set[str]:
    """Cases of a folder of maps, told from what else a prediction writes of a case.

    A case may itself be called `whole_body`.
    """
    names = _names(folder, ENDING)
    others = names | annotated
    made = [end.removesuffix(ENDING) for end in product_endings() if end.endswith(ENDING)]

    def belongs(name: str) -> bool:
        owners = {name.removesuffix(end) for end in (BODY, "_mask", *made)} - {name}
        return bool(owners & others)

    return {name for name in names if not belongs(name)}


def _find_files(
    case: str, methods: Mapping[str, Path], masks: Path, images: Path | None, pictures: bool
) -> CaseFiles:
    of_map, ending = (PICTURE_MAP, PICTURE) if pictures else (ENDING, ENDING)
    maps = {
        method: _first(case, f"anomaly map of '{method}'", [folder / f"{case}{of_map}"])
        for method, folder in methods.items()
    }
    bodies = [folder / f"{case}{BODY}{ending}" for folder in methods.values()]
    body = _first(case, "body mask", bodies)
    mask = _first(case, "annotation", [masks / f"{case}{ending}"])
    image: Path | None = None
    if images:
        named = image_places(images, case, ending)
        image = _first(case, "picture" if pictures else "CT image", named)
    return CaseFiles(case, maps, body, mask, image)


def image_places(folder: Path, case: str, ending: str) -> list[Path]:
    """Files that may be the image of a case."""
    return [folder / f"{case}_0000{ending}", folder / f"{case}{ending}"]


def _first(case: str, kind: str, places: list[Path]) -> Path:
    for path in places:
        if path.is_file():
            return path
    raise CaseError(case, f"no {kind}: {places[0]} does not exist")


def load_labels(files: CaseFiles, labels: Collection[int] | None = None) -> CaseLabels:
    """Reads the voxels that count and those that are annotated.

    Args:
        files: files of the case.
        labels: values of the annotation that are pathology; None takes all above zero.
            Voxels of other values count as not annotated where they are in the body.

    Raises:
        CaseError: when a file cannot be read, has another geometry or holds no whole numbers, or
            the body is empty.
    """
    reference = read_geometry(next(iter(files.maps.values())), files.case)
    body = read_labels(files.body, files.case, reference) > 0
    if not body.any():
        raise CaseError(files.case, "the body mask is empty; predict this case again")
    mask = read_labels(files.mask, files.case, reference)
    annotated = mask > 0 if labels is None else np.isin(mask, sorted(labels))
    counted = body | annotated
    return CaseLabels(counted, annotated[counted], body, reference)


def iterate_scores(
    files: CaseFiles,
    labels: CaseLabels,
    hu_histogram: HuHistogram | None = None,
    wanted: Collection[str] | None = None,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields the scores of one method after the other, then of the baselines.

    Args:
        files: files of the case.
        labels: which of its voxels count.
        hu_histogram: HU of the bodies of all planned scans; without it HU rarity is left out.
        wanted: methods to yield; None yields all.

    Yields:
        Name of the method, and its scores of the counted voxels `(counted voxels,)`.

    Raises:
        CaseError: when a file cannot be read, has another geometry, or holds NaN.
    """
    for method, path in files.maps.items():
        if wanted is None or method in wanted:
            scores = read_array(path, files.case, labels.reference)
            yield method, scores.astype(np.float32, copy=False)[labels.counted]
    names = [
        name
        for name in baseline_names(hu_histogram is not None, files.is_picture)
        if wanted is None or name in wanted
    ]
    if files.image is None or not names:
        return
    read = read_grey if files.is_picture else read_array
    given = BaselineInput(
        read(files.image, files.case, labels.reference),
        labels.body,
        labels.spacing,
        hu_histogram.edges if hu_histogram else None,
        hu_histogram.counts if hu_histogram else None,
    )
    functions = PICTURE_BASELINES if files.is_picture else BASELINES
    for name in names:
        yield name, functions[name](given)[labels.counted]


def read_grey(path: Path, case: str, like: Geometry | None = None) -> NDArray[np.float32]:
    """Grey values `(1, H, W)` of a picture, those of colours averaged.

    Raises:
        CaseError: it cannot be read, or has another size than the geometry.
    """
    try:
        pixels = skimage.io.imread(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise CaseError(
            case, f"{path} cannot be read ({error}): replace the file or leave the case out"
        ) from error
    grey = (pixels[..., :3].mean(-1) if pixels.ndim == 3 else pixels).astype(np.float32)[None]
    if like is not None and grey.shape != like.size[::-1]:
        sizes = f"{grey.shape[:0:-1]} and {like.size[:2]}"
        raise CaseError(case, f"{path} and its map differ in size: {sizes} pixels (x, y)")
    return grey
