"""What is kept of DICOM headers: slices, series, and why some were left out."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from screener_nnu.dicom.files import FileRef, ZipError

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice: a file, or a frame of a multi-frame file.

    Attributes:
        file: where it lies.
        frame: number of the frame within the file, from 0; None for a file of one slice.
        sop_uid: SOP Instance UID of the file.
        position: centre of the first pixel (mm, LPS); None when it is not stated.
        orientation: direction cosines of a row and of a column, six numbers; None when not stated.
        spacing: distance of rows and of columns (mm); None when it is not stated.
        shape: rows and columns.
        slope: HU = slope * stored + intercept; None when it is not stated.
        intercept: HU; None when it is not stated.
        localizer: whether it is a scout image.
        number: Instance Number, or the frame.
        clocks: acquisition number, temporal position, acquisition time, content time; what tells
            the phases of a series apart.
    """

    file: FileRef
    frame: int | None
    sop_uid: str
    position: Vector | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    shape: tuple[int, int]
    slope: float | None
    intercept: float | None
    localizer: bool
    number: int
    clocks: tuple[str, ...]

    @property
    def identity(self) -> tuple[object, ...]:
        """What copies of an image share; some tools give all slices of a series one UID."""
        return self.sop_uid, self.frame, self.position


@dataclass(frozen=True)
class SeriesInfo:
    """What the first file of a series says of the whole.

    `patient_id`, `study_date`, `description` and folders may tell who was scanned: they are not for
    logs.

    Attributes:
        uid: Series Instance UID.
        study_uid: Study Instance UID.
        modality: for instance `CT`.
        sop_class: SOP Class UID.
        image_type: values of Image Type, upper case.
        colour: photometric interpretation.
        rescale_type: unit of the rescaled values; empty when it is not stated.
        modality_table: whether a table takes the place of slope and intercept.
        transfer_syntax: UID of the pixel encoding.
        thickness: slice thickness (mm); 0 when it is not stated.
        description: Series Description.
        number: Series Number.
        patient_id: Patient ID.
        study_date: Study Date.
    """

    uid: str
    study_uid: str = ""
    modality: str = ""
    sop_class: str = ""
    image_type: tuple[str, ...] = ()
    colour: str = ""
    rescale_type: str = ""
    modality_table: bool = False
    transfer_syntax: str = ""
    thickness: float = 0.0
    description: str = ""
    number: str = ""
    patient_id: str = ""
    study_date: str = ""


@dataclass(frozen=True)
class Series:
    """Slices of one volume, in the order of their positions along the normal once checked.

    Attributes:
        info: of the whole series.
        slices: of this volume.
        part: number of the volume within its series, from 1; 0 when it is the only one.
    """

    info: SeriesInfo
    slices: tuple[Slice, ...] = field(repr=False)
    part: int = 0

    @property
    def pseudonym(self) -> str:
        """A name that stays the same and tells nothing: a hash of the Series Instance UID."""
        name = f"ct_{hashlib.sha256(self.info.uid.encode()).hexdigest()[:16]}"
        return f"{name}_{self.part}" if self.part else name


@dataclass(frozen=True)
class LeftOut:
    """A series, or a part of one, that is no volume of CT, and why."""

    series: Series
    reason: str


@dataclass(frozen=True)
class Found:
    """What a folder tree or zip holds.

    Attributes:
        series: volumes of CT that may be read.
        left_out: the others.
        unreadable: DICOM files whose header is damaged.
        other_files: files that are no DICOM images.
        archives: those among them that may hold some, but are not looked into.
        bad_zips: zips within a folder that are not read, each as an error with the reason.
        bad_folders: folders whose files cannot be listed.
    """

    series: tuple[Series, ...]
    left_out: tuple[LeftOut, ...]
    unreadable: int
    other_files: int
    bad_zips: tuple[ZipError, ...] = ()
    bad_folders: tuple[Path, ...] = ()
    archives: int = 0

    def remarks(self, names: bool = True) -> list[str]:
        """What was not looked into and why, as sentences.

        Args:
            names: whether zips and folders are named, which may tell who was scanned.
        """
        said = [str(e) if names else f"a zip is not read: {e.reason}" for e in self.bad_zips]
        for folder in self.bad_folders:
            shown = os.fsencode(folder).decode("utf-8", "backslashreplace")
            said.append(f"{shown if names else 'a folder'} cannot be read: see to its rights")
        if self.unreadable:
            said.append(
                f"the header of {self.unreadable} DICOM file{'s' * (self.unreadable > 1)} is "
                "damaged: copy or export again"
            )
        if self.archives:
            said.append(
                f"{self.archives} packed file{'s' * (self.archives > 1)} not looked into (only "
                "zips are, and no zip within a zip): unpack what holds scans"
            )
        return said
