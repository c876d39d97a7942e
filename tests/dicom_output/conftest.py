"""Small CT series written slice by slice, and maps on them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from screener_nnu.findings import Findings, find_findings

pytest.importorskip("highdicom")

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

# Slices, rows, columns; rows times columns is no multiple of 8, so that bits of frames share bytes.
SHAPE = (9, 21, 17)
PIXEL = (0.7, 0.9)  # distance of columns, distance of rows
DISTANCE = 2.5
THRESHOLD = 13.0
OBLIQUE = Rotation.from_euler("xyz", [11, -8, 23], degrees=True).as_matrix()


@dataclass
class Series:
    """A series on disk.

    Attributes:
        files: in an order that has nothing to do with where the slices lie.
        affine: from (column, row, slice, 1) to mm; slices along the normal.
    """

    files: list[Path]
    affine: NDArray[np.float64]
    uids: dict[str, str] = field(default_factory=dict)

    def read(self) -> sitk.Image:
        """The series as GDCM puts it together."""
        reader = sitk.ImageSeriesReader()
        folder = str(self.files[0].parent)
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
        return reader.Execute()

    def datasets(self) -> list[pydicom.Dataset]:
        return [pydicom.dcmread(path) for path in self.files]


def write_series(
    folder: Path,
    axes: NDArray[np.float64] = OBLIQUE,
    heights: NDArray[np.float64] | None = None,
    shear: float = 0.0,
    **attributes: Any,
) -> Series:
    """Writes a series whose columns, rows and slices run along the columns of `axes`.

    Args:
        folder: gets the files.
        axes: directions of columns, rows and slices `(3, 3)`.
        heights: place of each slice along the normal (mm).
        shear: how far each slice is shifted along the rows against the one before (mm).
        **attributes: of every slice, None for one that is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(1)
    heights = DISTANCE * np.arange(SHAPE[0]) if heights is None else heights
    origin = np.array([-20.0, 35.0, -410.0])
    shared = {word: generate_uid() for word in ("Study", "Series", "FrameOfReference")}
    files = [folder / f"{name:03d}.dcm" for name in generator.permutation(len(heights))]
    uids = {}
    for index, (path, height) in enumerate(zip(files, heights, strict=True)):
        position = origin + height * axes[:, 2] + index * shear * axes[:, 1]
        dataset = _slice(shared, position, axes, index, generator)
        for keyword, value in attributes.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        dataset.save_as(path, enforce_file_format=True)
        uids[path.name] = dataset.SOPInstanceUID
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.diag([*PIXEL, DISTANCE])
    affine[:3, 3] = origin
    return Series(sorted(files), affine, uids)


def _slice(
    shared: dict[str, str],
    position: NDArray[np.float64],
    axes: NDArray[np.float64],
    index: int,
    generator: np.random.Generator,
) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for word, uid in shared.items():
        setattr(dataset, f"{word}{'' if word == 'FrameOfReference' else 'Instance'}UID", uid)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.Modality = "CT"
    dataset.Manufacturer = "nobody"
    dataset.PatientID, dataset.PatientName = "P-17", "Doe^Jane"
    dataset.PatientBirthDate, dataset.PatientSex = "19700102", "F"
    dataset.PatientAge = "055Y"
    dataset.StudyID, dataset.AccessionNumber = "S-4", "A-77"
    dataset.StudyDate, dataset.StudyTime = "20240305", "101112"
    dataset.StudyDescription, dataset.ReferringPhysicianName = "Trunk", "Roe^Richard"
    dataset.SeriesNumber, dataset.InstanceNumber = 3, 100 - index
    dataset.ImagePositionPatient = [round(float(p), 6) for p in position]
    dataset.ImageOrientationPatient = [round(float(c), 10) for c in axes[:, :2].T.ravel()]
    dataset.PixelSpacing = [PIXEL[1], PIXEL[0]]
    dataset.SliceThickness = DISTANCE
    dataset.Rows, dataset.Columns = SHAPE[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    pixels = generator.integers(0, 2000, SHAPE[1:], dtype=np.int16)
    dataset.PixelData = pixels.tobytes()
    return dataset


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return write_series(tmp_path / "series")


def make_map(image: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    """An anomaly map and a body mask in the geometry of an image."""
    shape = image.GetSize()[::-1]
    noise = np.random.default_rng(5).normal(size=shape)
    values = ndimage.gaussian_filter(noise, (0.8, 1.3, 1.3))
    score = sitk.GetImageFromArray((10 * values / values.std()).astype(np.float32))
    body = sitk.GetImageFromArray(np.ones(shape, np.uint8))
    for made in (score, body):
        made.CopyInformation(image)
    return score, body


def make_findings(image: sitk.Image, **options: Any) -> Findings:
    score, body = make_map(image)
    options = {"threshold": THRESHOLD, "minimum_ml": 0.01, **options}
    return find_findings("scan", score, body, **options)


def frames_of(dataset: pydicom.Dataset) -> NDArray[np.generic]:
    """Stored values `(frames, rows, columns)`, taken out of the bytes by hand."""
    shape = (int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns)
    if "FloatPixelData" in dataset:
        return np.frombuffer(dataset.FloatPixelData, "<f4").reshape(shape)
    if dataset.BitsAllocated == 16:
        return np.frombuffer(dataset.PixelData, "<u2")[: np.prod(shape)].reshape(shape)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    return bits[: np.prod(shape)].reshape(shape)


def places_of(dataset: pydicom.Dataset) -> Iterator[NDArray[np.float64]]:
    """Centre of each pixel of each frame (mm) `(rows, columns, 3)`, PS3.3 C.7.6.2.1.1."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    between_rows, between_columns = shared.PixelMeasuresSequence[0].PixelSpacing
    across = np.array(orientation[:3], float) * float(between_columns)
    down = np.array(orientation[3:], float) * float(between_rows)
    row, column = np.mgrid[: dataset.Rows, : dataset.Columns]
    for item in dataset.PerFrameFunctionalGroupsSequence:
        first = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        yield first + column[..., None] * across + row[..., None] * down


def segments_of(dataset: pydicom.Dataset) -> list[int]:
    """Number of the segment of each frame; it stands once where there is only one."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    return [
        int(
            (item if "SegmentIdentificationSequence" in item else shared)
            .SegmentIdentificationSequence[0]
            .ReferencedSegmentNumber
        )
        for item in dataset.PerFrameFunctionalGroupsSequence
    ]


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    """Functions and figures of this file; test modules cannot import it."""
    return SimpleNamespace(
        write_series=write_series,
        make_map=make_map,
        make_findings=make_findings,
        frames=frames_of,
        places=places_of,
        segments=segments_of,
        shape=SHAPE,
        distance=DISTANCE,
        threshold=THRESHOLD,
        oblique=OBLIQUE,
    )


@pytest.fixture(autouse=True)
def no_warning() -> Any:
    """What the source holds is no news to the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield
