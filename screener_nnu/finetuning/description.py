"""`dataset.json` of a labelled dataset: read and checked whole, before anything depends on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.image_kind import ONE_CT_CHANNEL, ImageKind

BACKGROUND, IGNORE = "background", "ignore"
_EXAMPLE = '{"background": 0, "lesion": 1}'


@dataclass(frozen=True)
class Labels:
    """What the voxels of a label may be.

    Attributes:
        classes: values of each foreground class, by its name; a region has several.
        ignore: value of voxels that are neither foreground nor background.
    """

    classes: dict[str, tuple[int, ...]]
    ignore: int | None = None

    @classmethod
    def of(cls, labels: Mapping[str, Any]) -> Labels:
        """Reads `labels` of a `dataset.json` that was checked.

        Example:
            >>> Labels.of({"background": 0, "organ": [1, 2], "lesion": 2, "ignore": 3})
            Labels(classes={'organ': (1, 2), 'lesion': (2,)}, ignore=3)
        """
        values = {name: _values(value) for name, value in labels.items() if name != IGNORE}
        foreground = {name: found for name, found in values.items() if set(found) != {0}}
        return cls(foreground, labels.get(IGNORE))

    @property
    def declared(self) -> frozenset[int]:
        """All values that a voxel may have."""
        values = {value for found in self.classes.values() for value in found}
        return frozenset({0, *values} | ({self.ignore} if self.ignore is not None else set()))


def read_description(path: Path, kind: ImageKind | None = ONE_CT_CHANNEL) -> dict[str, Any]:
    """Reads and checks a `dataset.json`.

    Args:
        path: of the file.
        kind: of images that it has to describe; None where that is not to be judged.

    Raises:
        ScreenerError: missing, no JSON, or not what fine-tuning in nnU-Net asks for; the message
            says of each entry what is allowed.
    """
    path = path.absolute()
    if not path.is_file():
        raise ScreenerError(f"no {path}: a labelled dataset needs nnU-Net's raw folder")
    values = read_json_object(path, "correct it")
    faults = (kind.faults(values) if kind else []) + _faults(values)
    if faults:
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise ScreenerError(f"{path} cannot be used; correct it:{lines}")
    return values


def read_json_object(path: Path, way_out: str) -> dict[str, Any]:
    """Reads an object of JSON that a person or nnU-Net may have written.

    Args:
        path: of the file.
        way_out: what to do where it is none.

    Raises:
        ScreenerError: it is no JSON, no object, or names something twice.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_doubles)
    except ValueError as error:
        raise ScreenerError(f"{path.absolute()} is not valid JSON ({error}): {way_out}") from error
    if not isinstance(values, dict):
        raise ScreenerError(f"{path.absolute()} holds no JSON object, as in {{...}}: {way_out}")
    return values


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of which Python would keep the last of several equal keys."""
    doubles = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if doubles:
        raise ValueError(f'"{doubles[0]}" stands twice in one object')
    return dict(pairs)


def _faults(values: Mapping[str, Any]) -> list[str]:
    ending = values.get("file_ending")
    faults = _label_faults(values.get("labels"), values.get("regions_class_order"))
    if not isinstance(ending, str) or not ending.startswith(".") or len(ending) < 2:
        faults.append(f'file_ending is {ending!r}, but must be that of the files, as in ".nii.gz"')
    return faults + _listing_faults(values.get("dataset", {}))


def _label_faults(labels: Any, order: Any) -> list[str]:
    if not isinstance(labels, dict):
        return [f"labels must give a number to each name, as in {_EXAMPLE}, but is {labels!r}"]
    odd = [name for name, value in labels.items() if not _is_label(value)]
    if odd:
        return [
            f'label "{name}" is {labels[name]!r}, but must be a whole number or, for a region, a '
            f"list of them: the name first, then the number, as in {_EXAMPLE}"
            for name in odd
        ]
    faults = []
    if labels.get(BACKGROUND) != 0:
        faults.append(f'labels must have "background": 0, but have {labels.get(BACKGROUND)!r}')
    if isinstance(labels.get(IGNORE), list):
        faults.append('"ignore" must be a whole number, and no list')
        return faults
    found = Labels.of(labels)
    if not found.classes:
        faults.append(f"labels names no foreground label to learn, as in {_EXAMPLE}")
    return faults + _number_faults(found) + _region_faults(found, order)


def _number_faults(labels: Labels) -> list[str]:
    faults = []
    names: dict[frozenset[int], str] = {}
    for name, values in labels.classes.items():
        other = names.setdefault(frozenset(values), name)
        if other != name:
            faults.append(f'"{other}" and "{name}" are the same label, {list(values)}')
    numbers = sorted(labels.declared - {labels.ignore})
    if numbers != list(range(len(numbers))):
        faults.append(f"labels must count on from 0 without a gap, but are {numbers}")
    elif labels.ignore is not None and labels.ignore != len(numbers):
        faults.append(f'"ignore" must be the highest label, {len(numbers)}, but is {labels.ignore}')
    return faults


def _region_faults(labels: Labels, order: Any) -> list[str]:
    """Of `regions_class_order`, which nnU-Net needs as soon as one class has several values."""
    if all(len(values) == 1 for values in labels.classes.values()):
        return []
    names = list(labels.classes)
    numbers = isinstance(order, list) and all(type(value) is int for value in order)
    if not numbers or len(order) != len(names) or not set(order) <= labels.declared:
        return [
            f"regions_class_order must be a list of one label for each of {', '.join(names)}, "
            f"which is written where that region was found, but is {order!r}"
        ]
    return []


def _listing_faults(listed: Any) -> list[str]:
    """Of `dataset`, by which nnU-Net finds files that lie elsewhere."""
    form = 'must be as in {"a": {"images": ["imagesTr/a.nii.gz"], "label": "labelsTr/a.nii.gz"}}'
    if not isinstance(listed, dict):
        return [f"dataset {form}"]
    odd = [case for case, files in listed.items() if not _is_entry(files)]
    return [f'dataset {form}, with one image, but that of "{odd[0]}" is not'] if odd else []


def _is_entry(files: Any) -> bool:
    if not isinstance(files, dict) or not isinstance(files.get("images"), list):
        return False
    paths = [*files["images"], files.get("label")]
    return len(paths) == 2 and all(isinstance(path, str) for path in paths)


def _is_label(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    # Not isinstance: True is an int.
    return bool(values) and all(type(one) is int for one in values)


def _values(value: int | list[int]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list) else (value,)
