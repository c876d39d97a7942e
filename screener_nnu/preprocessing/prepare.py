"""From a raw scan to a prepared one: the one way that training and prediction share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import PreprocessingSettings, Shape, Spacing
from screener_nnu.preprocessing.body import Slices, body_box, body_mask
from screener_nnu.preprocessing.equalise import equalise
from screener_nnu.preprocessing.reading import Geometry, RawImage
from screener_nnu.preprocessing.resampling import new_shape, resample_to_shape

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

    Attributes:
        hu: HU within the bounds of `hu_clip`, float32, at the plan's spacing.
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
        ScreenerError: the settings' body threshold lies outside their window.
    """
    low, high = settings.hu_window
    if not low < settings.body_threshold < high:
        raise ScreenerError(
            f"body_threshold {settings.body_threshold} lies outside hu_window ({low}, {high}): "
            "choose one inside"
        )
    frame = frame_of(raw, settings)
    crop = raw.array[frame.slices]
    hu = resample_to_shape(crop, frame.grid_shape, settings.hu_clip)
    windowed = resample_to_shape(crop, frame.storage_shape, settings.hu_window)
    body = body_mask(windowed, settings.storage_spacing, settings.body_threshold)
    equalised = equalise(windowed, settings)
    return PreparedImage(hu, equalised, body.astype(np.uint8), frame, settings)


def frame_of(raw: RawImage, settings: PreprocessingSettings) -> Frame:
    """The body box of a scan and the shapes of its grids."""
    slices = body_box(raw.array, raw.spacing, settings.body_threshold, settings.body_block_mm)
    z, y, x = ((s.start, s.stop) for s in slices)
    shape = (z[1] - z[0], y[1] - y[0], x[1] - x[0])
    return Frame(
        raw_shape=raw.shape,
        box=(z, y, x),
        grid_shape=new_shape(shape, raw.spacing, settings.spacing),
        storage_shape=new_shape(shape, raw.spacing, settings.storage_spacing),
        spacing=raw.spacing,
        geometry=raw.geometry,
    )
