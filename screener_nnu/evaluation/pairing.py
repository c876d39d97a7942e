"""Finds the files of each case (map, body, annotation, image), paired by its name.

Of a scan they are `.nii.gz`; of a picture the map is a `.tif` and all others are `.png`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.files import refuse_missing
from screener_nnu.map_kind import LABEL_NAMES, PICTURES, SCANS, MapKind

BODY = "_body"


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
        return self.body.name.endswith(PICTURES.labels)


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
    kind = _kind_of(list(methods.values()))
    annotated = _names(masks, kind.labels)
    mapped = (_map_names(folder, annotated, kind) for folder in methods.values())
    names = annotated.union(*mapped)
    complete: list[CaseFiles] = []
    skipped: dict[str, str] = {}
    for case in sorted(names):
        try:
            complete.append(_find_files(case, methods, masks, images, kind))
        except CaseError as error:
            skipped[case] = error.reason
    return complete, skipped


def _kind_of(folders: list[Path]) -> MapKind:
    """Whether folders hold maps of scans or of pictures.

    Raises:
        ScreenerError: when they hold both.
    """
    flat = {folder: _names(folder, PICTURES.map) for folder in folders}
    if not any(_names(folder, SCANS.map) for folder in folders):
        return PICTURES if any(flat.values()) else SCANS
    for folder, names in flat.items():
        if any((folder / f"{name}{BODY}{PICTURES.labels}").is_file() for name in names):
            raise ScreenerError(
                f"{folder} holds maps of pictures, but there are maps of scans as well: keep them "
                "in folders of their own and evaluate one after the other"
            )
    return SCANS


def _names(folder: Path, ending: str) -> set[str]:
    files = (path.name for path in folder.iterdir() if path.name.endswith(ending))
    return {name[: -len(ending)] for name in files}


def _map_names(folder: Path, annotated: set[str], kind: MapKind) -> set[str]:
    """Cases of a folder of maps, told from what else a prediction writes of a case.

    A case may itself be called `whole_body`.
    """
    names = _names(folder, kind.map)
    if kind.map != kind.labels:  # nothing else looks like a map
        return names
    others = names | annotated

    def belongs(name: str) -> bool:
        owners = {name.removesuffix(end) for end in LABEL_NAMES} - {name}
        return bool(owners & others)

    return {name for name in names if not belongs(name)}


def _find_files(
    case: str, methods: Mapping[str, Path], masks: Path, images: Path | None, kind: MapKind
) -> CaseFiles:
    maps = {
        method: _first(case, f"anomaly map of '{method}'", [folder / f"{case}{kind.map}"])
        for method, folder in methods.items()
    }
    bodies = [folder / f"{case}{BODY}{kind.labels}" for folder in methods.values()]
    body = _first(case, "body mask", bodies)
    mask = _first(case, "annotation", [masks / f"{case}{kind.labels}"])
    image: Path | None = None
    if images:
        named = image_places(images, case, kind)
        image = _first(case, "picture" if kind == PICTURES else "CT image", named)
    return CaseFiles(case, maps, body, mask, image)


def image_places(folder: Path, case: str, kind: MapKind) -> list[Path]:
    """Files that may be the image of a case."""
    return [folder / f"{case}_0000{kind.labels}", folder / f"{case}{kind.labels}"]


def _first(case: str, kind: str, places: list[Path]) -> Path:
    for path in places:
        if path.is_file():
            return path
    raise CaseError(case, f"no {kind}: {places[0]} does not exist")
