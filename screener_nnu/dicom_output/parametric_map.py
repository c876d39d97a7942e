"""An anomaly map as a DICOM Parametric Map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from screener_nnu.dicom_output.alignment import align_to_source
from screener_nnu.dicom_output.common import derive, quiet, save
from screener_nnu.dicom_output.dependency import load_highdicom
from screener_nnu.dicom_output.source import SourceFile, read_source
from screener_nnu.errors import ScreenerError
from screener_nnu.score_units import NATS, in_brackets, shown_unit

if TYPE_CHECKING:
    from highdicom import VOILUTTransformation
    from highdicom.pm import RealWorldValueMapping
    from pydicom import Dataset

SERIES_NUMBER = 9002
_HIGHEST = 65535


@dataclass(frozen=True)
class Stored:
    """Values as they lie in the file: score = slope * value + intercept.

    Attributes:
        values: float32 or uint16 `(slices, rows, columns)`.
        slope: of the score, per step.
        intercept: score of the value 0.
    """

    values: NDArray[np.generic]
    slope: float
    intercept: float


def write_parametric_map(
    score: sitk.Image,
    source_files: Sequence[SourceFile],
    path: Path,
    bits: int = 32,
    series_number: int = SERIES_NUMBER,
    unit: str = NATS,
) -> float:
    """Writes the map, every value of it, as frames on the slices of its source series.

    Args:
        score: anomaly map (in `unit`).
        source_files: all slices of the source series, paths or datasets, in any order.
        path: file to write.
        bits: 32 for the very float32 values, 16 for half the size: whole numbers that the object
            itself maps back to scores, in even steps from the lowest to the highest score.
        series_number: of the new series in its study.
        unit: of the scores, `none` where they have none.

    Returns:
        How far a value that is read back may lie from the map: 0, or half a step.

    Raises:
        ScreenerError: highdicom is missing, the series is not the one that the map was made of,
            the map holds values that are no numbers, or the file cannot be written.
    """
    hd = load_highdicom()
    if bits not in (16, 32):
        raise ScreenerError(f"a map of {bits} bits cannot be written: ask for 32 or 16")
    with quiet():
        source = read_source(source_files)
        stored = _store(align_to_source(score, source).astype(np.float32, copy=False), bits)
        dataset = derive(
            hd.pm.ParametricMap,
            source,
            series_number,
            series_description=f"Anomaly map{in_brackets(unit)}",
            pixel_array=stored.values,
            real_world_value_mappings=[_mapping(stored, unit)],
            voi_lut_transformations=[_window(stored)],
            contains_recognizable_visual_features=False,
            content_label="ANOMALY_MAP",
            content_description=f"{_quantity(unit)}; research only",
        )
        _add_anatomy(dataset)
        _sort_frames(dataset)
        save(dataset, path)
    return stored.slope / 2 if bits == 16 else 0.0


def _store(scores: NDArray[np.float32], bits: int) -> Stored:
    low, high = float(scores.min()), float(scores.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ScreenerError("the map holds NaN or infinite values: predict the scan again")
    if bits == 32:
        return Stored(scores, 1.0, 0.0)
    # A constant map needs a step too.
    slope = (high - low) / _HIGHEST or 1.0
    values = np.empty(scores.shape, dtype=np.uint16)
    for plane, stored in zip(scores, values, strict=True):
        stored[:] = np.rint((plane.astype(np.float64) - low) / slope)
    return Stored(values, slope, low)


def _sort_frames(dataset: Dataset) -> None:
    """Puts the frames in the order of the slices, the first one first.

    highdicom begins with the last slice. The positions tell so, but readers that take frames as
    they come, dcmqi and with it 3D Slicer among them, would show the map upside down.
    """
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    items = list(dataset.PerFrameFunctionalGroupsSequence)
    places = [item.PlanePositionSequence[0].ImagePositionPatient for item in items]
    order = np.argsort(np.array(places, float) @ normal)
    pixels = "FloatPixelData" if "FloatPixelData" in dataset else "PixelData"
    frames = np.frombuffer(dataset[pixels].value, np.uint8).reshape(len(items), -1)
    dataset[pixels].value = frames[order].tobytes()
    dataset.PerFrameFunctionalGroupsSequence = [items[index] for index in order]
    for number, item in enumerate(dataset.PerFrameFunctionalGroupsSequence, start=1):
        item.FrameContentSequence[0].DimensionIndexValues = number


def _add_anatomy(dataset: Dataset) -> None:
    """States that any tissue may be shown: dcmqi, and with it 3D Slicer, asks for a region."""
    hd = load_highdicom()
    from pydicom import Dataset as Item
    from pydicom.sr.codedict import codes

    item = Item()
    item.FrameLaterality = "U"  # unpaired
    item.AnatomicRegionSequence = [hd.sr.CodedConcept.from_code(codes.SCT.Tissue)]
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [item]


def _window(stored: Stored) -> VOILUTTransformation:
    """From the lowest to the highest stored value, so that a viewer shows something at once."""
    low, high = float(stored.values.min()), float(stored.values.max())
    return load_highdicom().VOILUTTransformation(
        window_center=_decimal((low + high) / 2), window_width=_decimal(max(high - low, 1.0))
    )


def _quantity(unit: str) -> str:
    return f"Anomaly score in {unit}" if shown_unit(unit) else "Anomaly score"


def _mapping(stored: Stored, unit: str) -> RealWorldValueMapping:
    hd = load_highdicom()
    from pydicom.sr.codedict import codes

    whole = np.issubdtype(stored.values.dtype, np.integer)
    low, high = stored.values.min(), stored.values.max()
    return hd.pm.RealWorldValueMapping(
        lut_label=shown_unit(unit).upper() or "SCORE",
        lut_explanation=_quantity(unit),
        # A nat is a pure number; UCUM has a code for bits, but none for nats.
        unit=codes.UCUM.HounsfieldUnit if unit == "HU" else codes.UCUM.NoUnits,
        value_range=(int(low), int(high)) if whole else (float(low), float(high)),
        slope=stored.slope,
        intercept=stored.intercept,
        quantity_definition=hd.sr.CodedConcept("anomaly_score", "99SCREENER", "Anomaly score"),
    )


def _decimal(number: float) -> float:
    """Short enough for DICOM's decimal strings of 16 characters."""
    return float(f"{number:.6g}")
