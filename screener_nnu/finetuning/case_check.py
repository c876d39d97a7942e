"""Whether a labelled case can be trained on: what its image shows, and whose its label is.

Light enough for every process: no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from screener_nnu.errors import MEMORY_RAN_OUT, CaseError
from screener_nnu.preprocessing.modality import CT
from screener_nnu.preprocessing.reading import read_image
from screener_nnu.preprocessing.volumes import Geometry, read_geometry, read_labels

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class CaseOutcome:
    """What was found in the two files of a case.

    Attributes:
        faults: why it cannot be trained on, a sentence each.
        values: what its label holds, ascending.
    """

    faults: tuple[str, ...] = ()
    values: tuple[int, ...] = ()


def check_case(
    case: str, files: tuple[Path, Path], declared: frozenset[int], modality: str = CT
) -> CaseOutcome:
    """Reads image and label of a case, each once.

    Args:
        case: its name.
        files: image and label.
        declared: values that a label may hold.
        modality: of the image.
    """
    image, label = files
    faults: list[str] = []
    read = partial(read_image, image, case, modality)
    geometry = _tried(lambda: read().geometry, image, "remove its label", faults)
    values = _tried(lambda: _values(label, case, geometry), label, "remove its image", faults)
    odd = [value for value in values or () if value not in declared]
    if odd:
        faults.append(
            f"its label {label} holds {', '.join(map(str, odd[:5]))}"
            f"{', ...' if len(odd) > 5 else ''}, but dataset.json declares {sorted(declared)}: "
            "correct the label, or declare what is missing"
        )
    return CaseOutcome(tuple(faults), values or ())


def _values(label: Path, case: str, like: Geometry | None) -> tuple[int, ...]:
    difference = read_geometry(label, case).difference(like) if like is not None else ""
    if difference:
        raise CaseError(
            case,
            f"{label} and its image {difference}: copy the image's geometry to the label if it was "
            "drawn on that image, or resample the label to it",
        )
    return tuple(int(value) for value in np.unique(read_labels(label, case)))


def _tried(
    read: Callable[[], _Found], path: Path, otherwise: str, faults: list[str]
) -> _Found | None:
    """What is read; None and one more fault where it cannot be."""
    if not path.is_file():
        faults.append(f"{path} is missing: add it, or {otherwise}")
        return None
    try:
        return read()
    except CaseError as error:
        faults.append(error.reason)
    except OSError as error:
        faults.append(f"{path} cannot be read ({error.strerror or error}): see to its rights")
    except MemoryError:
        faults.append(MEMORY_RAN_OUT)
    return None
