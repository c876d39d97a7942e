from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.mapping import mask_to_input_geometry, to_input_geometry
from screener_nnu.preprocessing.prepare import frame_of, prepare_image
from screener_nnu.preprocessing.reading import RawImage, read_image
from screener_nnu.preprocessing.resampling import resample_mask_to_shape, resample_to_shape

Writer = Callable[..., Path]
Person = Callable[..., np.ndarray]

# All right-handed ways to lay three axes, and an oblique turn of some of them.
AXES = [
    np.eye(3)[:, order] * signs
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
AXES = [axes for axes in AXES if np.linalg.det(axes) > 0]


def oblique(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn_x = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    turn_z = np.array(
        [[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    return turn_x @ turn_z


def read_turned(
    write_image: Writer, person: Person, direction: np.ndarray
) -> tuple[RawImage, sitk.Image]:
    """A scan in file axes of its own; the body is the same whatever its axes are."""
    canonical = person((26, 41, 52))
    order = [int(np.abs(direction[:, axis]).argmax()) for axis in range(3)]
    array = canonical.transpose(2, 1, 0).transpose(order)
    for axis in range(3):
        if direction[order[axis], axis] < 0:
            array = np.flip(array, axis)
    spacing = np.array([2.5, 2.0, 3.5])[order]
    path = write_image(
        np.ascontiguousarray(array.transpose(2, 1, 0)),
        tuple(spacing[::-1]),
        direction,
        name="a.nrrd",
    )
    raw = read_image(path, "a")
    np.testing.assert_array_equal(raw.array, canonical)
    return raw, sitk.ReadImage(str(path))


def assert_same_geometry(image: sitk.Image, wanted: sitk.Image) -> None:
    assert image.GetSize() == wanted.GetSize()
    assert image.GetSpacing() == wanted.GetSpacing()
    assert image.GetOrigin() == wanted.GetOrigin()
    assert image.GetDirection() == wanted.GetDirection()


@pytest.mark.parametrize("degrees", [0.0, 14.0])
@pytest.mark.parametrize("axes", AXES)
def test_places_of_the_body_return_to_the_file(
    write_image: Writer,
    person: Person,
    settings: PreprocessingSettings,
    axes: np.ndarray,
    degrees: float,
) -> None:
    """Coordinates in mm, computed from the *file*, come back where they were."""
    raw, file = read_turned(write_image, person, oblique(degrees) @ axes)
    frame = frame_of(raw, settings)
    for world in range(3):
        # The file's own physical coordinate of each voxel, as an image in file axes.
        index = np.stack(np.meshgrid(*map(np.arange, file.GetSize()), indexing="ij"), -1)
        matrix = np.array(file.GetDirection()).reshape(3, 3) * np.array(file.GetSpacing())
        place = (index @ matrix.T + np.array(file.GetOrigin()))[..., world].transpose(2, 1, 0)
        ramp = sitk.GetImageFromArray(place.astype(np.float32))
        ramp.CopyInformation(file)
        canonical = sitk.GetArrayFromImage(sitk.DICOMOrient(ramp, "LPS"))
        on_grid = resample_to_shape(canonical[frame.slices], frame.grid_shape)
        back = to_input_geometry(on_grid, frame, np.nan)
        assert_same_geometry(back, file)
        result = sitk.GetArrayFromImage(back)
        inside = np.isfinite(result)
        assert inside.sum() == np.prod(frame.box_shape)
        # A voxel of the grid is at most 4 mm: only its outer half is flat by extrapolation.
        error = np.abs(result - place)[inside]
        assert np.quantile(error, 0.5) < 1e-3
        assert error.max() < 4.0


def test_interior_of_a_ramp_returns_exactly(
    write_image: Writer, person: Person, settings: PreprocessingSettings
) -> None:
    raw, _ = read_turned(write_image, person, np.diag([-1.0, -1.0, 1.0]))
    frame = frame_of(raw, settings)
    for axis in range(3):
        ramp = np.indices(raw.shape)[axis].astype(np.float32)
        on_grid = resample_to_shape(ramp[frame.slices], frame.grid_shape)
        image = sitk.DICOMOrient(to_input_geometry(on_grid, frame, -1.0), "LPS")
        back = sitk.GetArrayFromImage(image)[frame.slices]
        interior = tuple(slice(4, -4) for _ in range(3))
        np.testing.assert_allclose(back[interior], ramp[frame.slices][interior], atol=1e-3)


def test_fill_lies_outside_the_box_only(
    write_image: Writer, person: Person, settings: PreprocessingSettings
) -> None:
    raw, _ = read_turned(write_image, person, AXES[5])
    frame = frame_of(raw, settings)
    image = to_input_geometry(np.full(frame.grid_shape, 7.0, np.float32), frame, -3.5)
    array = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))
    outside = np.ones(raw.shape, dtype=bool)
    outside[frame.slices] = False
    assert outside.any()
    assert (array[outside] == -3.5).all() and (array[~outside] == 7).all()


@pytest.mark.parametrize("axes", AXES[::5])
def test_masks_return_to_their_place(
    write_image: Writer, person: Person, settings: PreprocessingSettings, axes: np.ndarray
) -> None:
    raw, file = read_turned(write_image, person, oblique(9.0) @ axes)
    prepared = prepare_image(raw, settings)
    for shape in (prepared.frame.storage_shape, prepared.frame.grid_shape):
        bright = raw.array > 400
        on_grid = resample_mask_to_shape(bright[prepared.frame.slices], shape)
        image = mask_to_input_geometry(on_grid, prepared.frame)
        assert_same_geometry(image, file)
        assert image.GetPixelID() == sitk.sitkUInt8
        back, wanted = sitk.GetArrayFromImage(image) > 0, sitk.GetArrayFromImage(file) > 400
        overlap = 2 * (back & wanted).sum() / (back.sum() + wanted.sum())
        assert overlap > 0.8
        shift = np.argwhere(back).mean(0) - np.argwhere(wanted).mean(0)
        assert np.abs(shift).max() < 0.5


def test_body_mask_returns(
    write_image: Writer, person: Person, settings: PreprocessingSettings
) -> None:
    raw, _ = read_turned(write_image, person, np.eye(3))
    prepared = prepare_image(raw, settings)
    back = sitk.GetArrayFromImage(mask_to_input_geometry(prepared.body, prepared.frame)) > 0
    y, x = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 52), indexing="ij")
    body = np.broadcast_to((x / 0.8) ** 2 + (y / 0.7) ** 2 < 1, raw.shape)
    assert 2 * (back & body).sum() / (back.sum() + body.sum()) > 0.97


def test_wrong_shape_is_refused(
    write_image: Writer, person: Person, settings: PreprocessingSettings
) -> None:
    raw, _ = read_turned(write_image, person, np.eye(3))
    with pytest.raises(ValueError, match="shape"):
        to_input_geometry(np.zeros((2, 3, 4), np.float32), frame_of(raw, settings), 0.0)
