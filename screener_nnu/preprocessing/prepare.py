"""From a raw scan to a prepared one: the one way that training and prediction share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from screener_nnu.errors import CaseError
from screener_nnu.plans import PreprocessingSettings, Range, Shape, Spacing
from screener_nnu.preprocessing.body import Slices
from screener_nnu.preprocessing.equalise import equalise
from screener_nnu.preprocessing.modality import MODALITIES, modality_of
from screener_nnu.preprocessing.reading import Geometry, RawImage
from screener_nnu.preprocessing.resampling import new_shape, resample_colours

Span = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """How the grid of a prepared scan lies in its input; axes (z, y, x) of the LPS image.

    Attributes:
        raw_shape: voxels of the whole scan.
        box: first voxel and the one after the last of the body box, per axis, in raw voxels.
        grid_shape: voxels of the box at the plan's spacing.
        storage_shape: voxels of the box at the storage spacing.
        spacing: voxel size (mm) of the raw scan.
        geometry: that of the input file, in its own axes.
    """

    raw_shape: Shape
    box: tuple[Span, Span, Span]
    grid_shape: Shape
    storage_shape: Shape
    spacing: Spacing
    geometry: Geometry

    @property
    def slices(self) -> Slices:
        """The body box as slices of the raw array."""
        z, y, x = (slice(start, stop) for start, stop in self.box)
        return z, y, x

    @property
    def box_shape(self) -> Shape:
        """Raw voxels of the body box."""
        z, y, x = (stop - start for start, stop in self.box)
        return z, y, x

    @property
    def box_mm(self) -> Spacing:
        """Edges of the body box (mm)."""
        z, y, x = (n * size for n, size in zip(self.box_shape, self.spacing, strict=True))
        return z, y, x

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Frame:
        """Reads what `to_dict` wrote."""
        z, y, x = (tuple(span) for span in values["box"])
        return cls(
            raw_shape=tuple(values["raw_shape"]),
            box=(z, y, x),
            grid_shape=tuple(values["grid_shape"]),
            storage_shape=tuple(values["storage_shape"]),
            spacing=tuple(values["spacing"]),
            geometry=Geometry.from_dict(values["geometry"]),
        )


@dataclass(frozen=True)
class PreparedImage:
    """A scan on the grids of the plan, cropped to the body; axes (z, y, x).

    Images of colour pictures are (3, 1, y, x).

    Attributes:
        hu: HU, or values of another modality, within the bounds of `hu_clip`, float32, at the
            plan's spacing.
        equalised: equalised image in [0, 1], float32, at the storage spacing.
        body: 1 in the body and 0 outside, uint8, at the storage spacing.
        frame: how the grids lie in the input.
        settings: what it was made with.
    """

    hu: np.ndarray
    equalised: np.ndarray
    body: np.ndarray
    frame: Frame
    settings: PreprocessingSettings


def prepare_image(raw: RawImage, settings: PreprocessingSettings) -> PreparedImage:
    """Crops a scan to the body, resamples it, equalises it and finds the body.

    HU are clipped before they are resampled, as nnU-Net does, so that `hu` after
    `CTNormalization` equals what `DefaultPreprocessor` makes of the same box.

    Raises:
        CaseError: the scan is of another modality than the plan, or of another kind of pictures.
        ScreenerError: the settings' body threshold lies outside their window.
    """
    modality = modality_of(settings)
    if raw.modality != modality.name:
        raise CaseError(
            raw.case,
            f"it is read as {MODALITIES[raw.modality].title}, and the plan is one of "
            f"{modality.title}: use a model that was trained on such images",
        )
    reason = modality.why_not(raw.array, settings)
    if reason:
        raise CaseError(raw.case, reason)
    window = modality.window(raw.array, settings)
    frame = frame_of(raw, settings, window)
    crop = raw.array[(..., *frame.slices)]
    hu = resample_colours(crop, frame.grid_shape, settings.hu_clip)
    windowed = resample_colours(crop, frame.storage_shape, window)
    body = modality.body(windowed, settings.storage_spacing, window, settings.body_threshold)
    equalised = equalise(windowed, settings, window)
    return PreparedImage(hu, equalised, body.astype(np.uint8), frame, settings)


def frame_of(raw: RawImage, settings: PreprocessingSettings, window: Range | None = None) -> Frame:
    """The body box of a scan and the shapes of its grids; see `Modality.box` for `window`."""
    slices = modality_of(settings).box(raw.array, raw.spacing, settings, window)
    z, y, x = ((s.start, s.stop) for s in slices)
    shape = (z[1] - z[0], y[1] - y[0], x[1] - x[0])
    if settings.picture_size:
        grid_shape = storage_shape = _picture_grid(shape, settings)
    else:
        grid_shape = new_shape(shape, raw.spacing, settings.spacing)
        storage_shape = new_shape(shape, raw.spacing, settings.storage_spacing)
    return Frame(
        raw_shape=raw.shape,
        box=(z, y, x),
        grid_shape=grid_shape,
        storage_shape=storage_shape,
        spacing=raw.spacing,
        geometry=raw.geometry,
    )


def _picture_grid(shape: Shape, settings: PreprocessingSettings) -> Shape:
    """Pixels of a picture on the plan's grid, whatever it measures itself."""
    wanted, (_, rows, columns) = settings.picture_size, shape
    if not settings.keep_aspect:
        return 1, wanted[0], wanted[1]
    factor = min(wanted[0] / rows, wanted[1] / columns)
    return 1, max(1, round(factor * rows)), max(1, round(factor * columns))
