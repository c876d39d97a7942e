"""Anomaly map, body mask, annotation and CT of one case: paired by name, checked, read."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.baselines import BASELINES, NEED_HISTOGRAM, BaselineInput

ENDING = ".nii.gz"
BODY = "_body"
# NIfTI keeps geometry in single precision: origins of a metre are then off by up to 0.1 um.
_SPACING_TOLERANCE_MM = 1e-3
_ORIGIN_TOLERANCE_MM = 1e-2
_DIRECTION_TOLERANCE = 1e-3
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError)


@dataclass(frozen=True)
class HuHistogram:
    """HU values of the bodies of all planned scans.

    Attributes:
        edges: edges of the bins in HU `(N + 1,)`.
        counts: voxels in the bins `(N,)`.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuses a histogram whose edges and counts do not belong together."""
        fitting = self.counts.size and self.edges.size == self.counts.size + 1
        if not fitting or not (np.diff(self.edges) > 0).all():
            raise ScreenerError(
                "the HU histogram of the training set is damaged; plan the data set again"
            )


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case.

    Attributes:
        case: name of the case.
        maps: anomaly map of each method.
        body: body mask.
        mask: annotation.
        image: CT in HU, or None when baselines are left out.
    """

    case: str
    maps: dict[str, Path]
    body: Path
    mask: Path
    image: Path | None


@dataclass(frozen=True)
class CaseLabels:
    """Which voxels of a case count, and which of them are annotated.

    Attributes:
        counted: body mask united with the annotation `(z, y, x)`.
        annotated: whether each counted voxel is annotated `(counted voxels,)`.
        body: body mask `(z, y, x)`.
        reference: image whose geometry all other files of the case must have.
    """

    counted: NDArray[np.bool_]
    annotated: NDArray[np.bool_]
    body: NDArray[np.bool_]
    reference: SimpleITK.ImageFileReader

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing `(z, y, x)` in mm."""
        x, y, z = self.reference.GetSpacing()
        return z, y, x

    @property
    def annotation(self) -> NDArray[np.bool_]:
        """Annotated voxels `(z, y, x)`."""
        volume = np.zeros(self.counted.shape, dtype=bool)
        volume[self.counted] = self.annotated
        return volume


def pair_cases(
    methods: Mapping[str, Path], masks: Path, images: Path | None
) -> tuple[list[CaseFiles], dict[str, str]]:
    """Pairs maps, masks and images by the name of the case.

    Every method is judged on the same cases, so a case that one method lacks is left out.

    Args:
        methods: folder of maps `<case>.nii.gz` and `<case>_body.nii.gz` of each method.
        masks: folder of annotations `<case>.nii.gz`.
        images: folder of CT images `<case>_0000.nii.gz` or `<case>.nii.gz`, or None.

    Returns:
        Complete cases in order of name, and the reason for each other one by name.

    Raises:
        ScreenerError: when a folder does not exist.
    """
    for folder in [*methods.values(), masks, *([images] if images else [])]:
        if not folder.is_dir():
            raise ScreenerError(f"{folder} is not a folder")
    annotated = _names(masks)
    names = annotated.union(*(_map_names(folder, annotated) for folder in methods.values()))
    complete: list[CaseFiles] = []
    skipped: dict[str, str] = {}
    for case in sorted(names):
        try:
            complete.append(_find_files(case, methods, masks, images))
        except CaseError as error:
            skipped[case] = error.reason
    return complete, skipped


def _names(folder: Path) -> set[str]:
    files = (path.name for path in folder.iterdir() if path.name.endswith(ENDING))
    return {name[: -len(ENDING)] for name in files}


def _map_names(folder: Path, annotated: set[str]) -> set[str]:
    """Cases of a folder of maps, told from body masks; a case may itself be called `whole_body`."""
    names = _names(folder)
    return {name for name in names if name.removesuffix(BODY) not in (names | annotated) - {name}}


def _find_files(
    case: str, methods: Mapping[str, Path], masks: Path, images: Path | None
) -> CaseFiles:
    maps = {
        method: _first(case, f"anomaly map of '{method}'", [folder / f"{case}{ENDING}"])
        for method, folder in methods.items()
    }
    bodies = [folder / f"{case}{BODY}{ENDING}" for folder in methods.values()]
    body = _first(case, "body mask", bodies)
    mask = _first(case, "annotation", [masks / f"{case}{ENDING}"])
    image: Path | None = None
    if images:
        named = [images / f"{case}_0000{ENDING}", images / f"{case}{ENDING}"]
        image = _first(case, "CT image", named)
    return CaseFiles(case, maps, body, mask, image)


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
        CaseError: when a file cannot be read or has another geometry, or the body is empty.
    """
    reference = _header(files.case, next(iter(files.maps.values())))
    body = _read(files.case, files.body, reference) > 0
    if not body.any():
        raise CaseError(files.case, "the body mask is empty; predict this case again")
    mask = _read(files.case, files.mask, reference)
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
            yield method, _read_finite(files.case, path, labels).astype(np.float32)[labels.counted]
    names = [
        name
        for name in baseline_names(hu_histogram is not None)
        if wanted is None or name in wanted
    ]
    if files.image is None or not names:
        return
    given = BaselineInput(
        _read_finite(files.case, files.image, labels),
        labels.body,
        labels.spacing,
        hu_histogram.edges if hu_histogram else None,
        hu_histogram.counts if hu_histogram else None,
    )
    for name in names:
        yield name, BASELINES[name](given)[labels.counted]


def baseline_names(has_histogram: bool) -> list[str]:
    """Baselines that can be computed with or without the training set's HU histogram."""
    return [name for name in BASELINES if has_histogram or name not in NEED_HISTOGRAM]


def _header(case: str, path: Path) -> SimpleITK.ImageFileReader:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise CaseError(case, f"{path} cannot be read; it may be damaged") from error
    if reader.GetDimension() != 3:
        raise CaseError(case, f"{path} has {reader.GetDimension()} dimensions instead of 3")
    return reader


def _check_geometry(
    case: str, path: Path, reference: SimpleITK.ImageFileReader
) -> SimpleITK.ImageFileReader:
    """Opens a volume that must have the reference's geometry."""
    header = _header(case, path)
    if difference := _geometry_difference(header, reference):
        raise CaseError(case, f"{path} and {reference.GetFileName()} {difference}")
    return header


def _read(case: str, path: Path, reference: SimpleITK.ImageFileReader) -> NDArray[Any]:
    """Reads a mask `(z, y, x)`."""
    header = _check_geometry(case, path, reference)
    try:
        return SimpleITK.GetArrayFromImage(header.Execute())
    except RuntimeError as error:
        raise CaseError(case, f"{path} cannot be read; it may be damaged") from error


def _read_finite(case: str, path: Path, labels: CaseLabels) -> NDArray[Any]:
    """Reads scores or HU `(z, y, x)`, which must all be finite.

    SimpleITK turns NaN and infinite values of a NIfTI file into zeros without a word, so that a
    broken map would pass for a good one; nibabel keeps them.
    """
    _check_geometry(case, path, labels.reference)
    try:
        volume: Any = nibabel.load(path)
        array = np.asarray(volume.dataobj).T.reshape(labels.counted.shape)
    except _DAMAGED as error:
        raise CaseError(case, f"{path} cannot be read; it may be damaged") from error
    if not np.isfinite(array).all():
        raise CaseError(case, f"{path} contains NaN or infinite values; make it again")
    return array


def _geometry_difference(
    one: SimpleITK.ImageFileReader, other: SimpleITK.ImageFileReader
) -> str | None:
    """What differs between two geometries, as the end of a sentence, or None."""
    if one.GetSize() != other.GetSize():
        return f"differ in size: {one.GetSize()} and {other.GetSize()} voxels (x, y, z)"
    compared = (
        ("spacing", one.GetSpacing(), other.GetSpacing(), _SPACING_TOLERANCE_MM),
        ("origin", one.GetOrigin(), other.GetOrigin(), _ORIGIN_TOLERANCE_MM),
        ("direction", one.GetDirection(), other.GetDirection(), _DIRECTION_TOLERANCE),
    )
    for kind, here, there, tolerance in compared:
        if not np.allclose(here, there, rtol=0.0, atol=tolerance):
            return f"differ in {kind}: {here} and {there}"
    return None
