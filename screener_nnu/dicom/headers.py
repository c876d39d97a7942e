"""Headers of DICOM files, one record a slice; pixels are not touched."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, BinaryIO

from screener_nnu.dicom.files import FileRef
from screener_nnu.dicom.quiet import quiet_pydicom
from screener_nnu.dicom.records import SeriesInfo, Slice, Vector

_TAGS = [
    "SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID Modality ImageType",
    "PhotometricInterpretation SamplesPerPixel Rows Columns PixelSpacing NumberOfFrames",
    "ImagePositionPatient ImageOrientationPatient RescaleSlope RescaleIntercept RescaleType",
    "ModalityLUTSequence SliceThickness SeriesDescription SeriesNumber PatientID StudyDate",
    "InstanceNumber AcquisitionNumber TemporalPositionIndex TemporalPositionIdentifier",
    "AcquisitionTime AcquisitionDateTime ContentTime",
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence",
]
# No bed moves that far (mm); a number beyond is damage.
_FARTHEST = 1e6
_LARGEST_NUMBER = 2**31
_LOCALIZER = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"})


def read_header(stream: BinaryIO, file: FileRef) -> tuple[SeriesInfo, list[Slice]] | None:
    """The slices of a file; None when it holds no image of a series.

    Raises:
        ValueError: the header is damaged.
    """
    import pydicom

    try:
        with quiet_pydicom():
            tags: list[Any] = " ".join(_TAGS).split()
            header = pydicom.dcmread(
                stream, stop_before_pixels=True, force=True, specific_tags=tags
            )
            if not header.get("SeriesInstanceUID") or not header.get("Rows"):
                return None
            info = _info(header)
            if header.get("PerFrameFunctionalGroupsSequence"):
                return _enhanced_info(header, info), _frames(header, file)
            return info, [_slice(header, file)]
    # A damaged header raises nearly anything, from EOFError to struct.error.
    except Exception as error:
        raise ValueError(f"damaged header ({error})") from error


def _info(header: Any) -> SeriesInfo:
    samples = int(header.get("SamplesPerPixel", 1) or 1)
    return SeriesInfo(
        uid=str(header.SeriesInstanceUID),
        study_uid=_text(header, "StudyInstanceUID"),
        modality=_text(header, "Modality"),
        sop_class=_text(header, "SOPClassUID"),
        image_type=tuple(str(value).upper() for value in _values(header, "ImageType")),
        colour=_text(header, "PhotometricInterpretation") if samples == 1 else "colour",
        rescale_type=_text(header, "RescaleType"),
        modality_table=bool(header.get("ModalityLUTSequence")),
        transfer_syntax=str(getattr(header, "file_meta", {}).get("TransferSyntaxUID", "")),
        thickness=_number(header, "SliceThickness") or 0.0,
        description=_text(header, "SeriesDescription"),
        number=_text(header, "SeriesNumber"),
        patient_id=_text(header, "PatientID"),
        study_date=_text(header, "StudyDate"),
    )


def _slice(header: Any, file: FileRef) -> Slice:
    several = int(header.get("NumberOfFrames", 1) or 1) > 1
    temporal = _text(header, "TemporalPositionIndex") or _text(header, "TemporalPositionIdentifier")
    acquired = _text(header, "AcquisitionDateTime") or _text(header, "AcquisitionTime")
    types = {str(value).upper() for value in _values(header, "ImageType")}
    number = int(_number(header, "InstanceNumber") or 0)
    return Slice(
        file=file,
        frame=None,
        sop_uid=_text(header, "SOPInstanceUID"),
        # Several frames without groups of their own share one position at best.
        position=None if several else _vector(header, "ImagePositionPatient"),
        orientation=_numbers(header, "ImageOrientationPatient", 6),
        spacing=_pair(header, "PixelSpacing"),
        shape=(int(header.Rows), int(header.get("Columns", 0) or 0)),
        slope=_number(header, "RescaleSlope"),
        intercept=_number(header, "RescaleIntercept"),
        localizer=bool(types & _LOCALIZER),
        number=number if abs(number) < _LARGEST_NUMBER else 0,
        clocks=(
            _text(header, "AcquisitionNumber"),
            temporal,
            acquired,
            _text(header, "ContentTime"),
        ),
    )


def _frames(header: Any, file: FileRef) -> list[Slice]:
    """Slices of a multi-frame file (Enhanced CT) from its functional groups."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    frames = header.PerFrameFunctionalGroupsSequence
    return [_frame(header, (frame, shared), index, file) for index, frame in enumerate(frames)]


def _frame(header: Any, places: tuple[Any, Any], index: int, file: FileRef) -> Slice:
    rescale = _group(places, "PixelValueTransformationSequence")
    content = _group(places, "FrameContentSequence")
    own_types = _values(_group(places, "CTImageFrameTypeSequence"), "FrameType")
    types = {str(value).upper() for value in (*_values(header, "ImageType"), *own_types)}
    direction = _group(places, "PlaneOrientationSequence")
    return Slice(
        file=file,
        frame=index,
        sop_uid=_text(header, "SOPInstanceUID"),
        position=_vector(_group(places, "PlanePositionSequence"), "ImagePositionPatient"),
        orientation=_numbers(direction, "ImageOrientationPatient", 6),
        spacing=_pair(_group(places, "PixelMeasuresSequence"), "PixelSpacing"),
        shape=(int(header.Rows), int(header.get("Columns", 0) or 0)),
        slope=_number(rescale, "RescaleSlope"),
        intercept=_number(rescale, "RescaleIntercept"),
        localizer=bool(types & _LOCALIZER),
        number=index,
        clocks=(
            _text(content, "FrameAcquisitionNumber"),
            _text(content, "TemporalPositionIndex"),
            _text(content, "FrameAcquisitionDateTime"),
            _text(content, "FrameReferenceDateTime"),
        ),
    )


def _enhanced_info(header: Any, info: SeriesInfo) -> SeriesInfo:
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    places = (header.PerFrameFunctionalGroupsSequence[0], shared)
    return replace(
        info,
        rescale_type=_text(_group(places, "PixelValueTransformationSequence"), "RescaleType"),
        thickness=_number(_group(places, "PixelMeasuresSequence"), "SliceThickness") or 0.0,
    )


def _group(places: tuple[Any, Any], name: str) -> Any:
    """A functional group of a frame, or the one that all frames share; None when there is none."""
    for place in places:
        items = place.get(name) if place is not None else None
        if items:
            return items[0]
    return None


def _values(item: Any, name: str) -> list[Any]:
    value = item.get(name) if item is not None else None
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]


def _text(item: Any, name: str) -> str:
    return " ".join(str(value).strip() for value in _values(item, name))


def _numbers(item: Any, name: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, or None."""
    values = _values(item, name)
    if len(values) != count:
        return None
    numbers = tuple(float(value) for value in values)
    return numbers if all(math.isfinite(number) for number in numbers) else None


def _number(item: Any, name: str) -> float | None:
    numbers = _numbers(item, name, 1)
    return numbers[0] if numbers else None


def _pair(item: Any, name: str) -> tuple[float, float] | None:
    numbers = _numbers(item, name, 2)
    return (numbers[0], numbers[1]) if numbers else None


def _vector(item: Any, name: str) -> Vector | None:
    """A place (mm); None when it is not stated, or lies nowhere near a scanner."""
    numbers = _numbers(item, name, 3)
    if numbers is None or max(abs(number) for number in numbers) > _FARTHEST:
        return None
    return numbers[0], numbers[1], numbers[2]
