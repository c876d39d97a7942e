"""What all derived objects say of themselves, and how they are written."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screener_nnu import __version__
from screener_nnu.dicom_output.dependency import load_highdicom
from screener_nnu.dicom_output.source import SourceSeries
from screener_nnu.errors import ScreenerError
from screener_nnu.files import replacing

if TYPE_CHECKING:
    from pydicom import Dataset

NAME = "screener_nnu"
# DICOM allows that many characters in a long string.
LONG_STRING = 64


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries from warning of values of the source, which are repeated as they are."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def derive(
    kind: Callable[..., Dataset], source: SourceSeries, series_number: int, **values: Any
) -> Dataset:
    """Builds an object of one of highdicom's classes: new UIDs, our name and our version.

    Raises:
        ScreenerError: the attributes of the source cannot be repeated.
    """
    uid = load_highdicom().UID
    try:
        dataset = kind(
            source_images=source.headers,
            series_instance_uid=uid(),
            sop_instance_uid=uid(),
            series_number=series_number,
            instance_number=1,
            manufacturer=NAME,
            manufacturer_model_name=NAME,
            software_versions=__version__,
            # Software has none, but DICOM wants the attribute filled.
            device_serial_number="none",
            # UTF-8 has the letters of every other character set that a source may use.
            specific_character_set="ISO_IR 192",
            **values,
        )
    except (ValueError, OverflowError) as error:
        raise ScreenerError(
            f"no DICOM object can be derived from this series ({error}): correct its attributes, "
            "or use the NIfTI files"
        ) from error
    # Must be there, may be empty; highdicom leaves it out.
    dataset.ContentCreatorName = ""
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    """Writes an object whole or not at all.

    Raises:
        ScreenerError: the file cannot be written, or another of that name is not ours.
    """
    with replacing(path) as temporary:
        dataset.save_as(temporary)
