from __future__ import annotations

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from scipy.ndimage import map_coordinates

from screener_nnu.preprocessing import resampling
from screener_nnu.preprocessing.resampling import (
    RESAMPLING_DATA,
    RESAMPLING_PROBABILITIES,
    RESAMPLING_SEG,
    new_shape,
    resample,
    resample_mask_to_shape,
    resample_to_shape,
)


def half_pixel(shape: tuple[int, ...], target: tuple[int, ...]) -> np.ndarray:
    """Coordinates in the source of each target voxel's centre, (3, *target)."""
    axes = [(np.arange(t) + 0.5) * n / t - 0.5 for n, t in zip(shape, target, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


@pytest.mark.parametrize("target", [(7, 11, 5), (20, 9, 31), (9, 13, 17), (1, 4, 40)])
def test_images_equal_scipy_at_half_pixel_centres(target: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).normal(size=(9, 13, 17)).astype(np.float32)
    wanted = map_coordinates(image, half_pixel(image.shape, target), order=1, mode="nearest")
    np.testing.assert_allclose(resample_to_shape(image, target), wanted, atol=1e-5)


@pytest.mark.parametrize("piece", [1, 700, 1 << 20])
@pytest.mark.parametrize("target", [(31, 40, 9), (7, 11, 50), (17, 23, 19), (17, 9, 40)])
def test_pieces_equal_nnunets_own_resampling(
    target: tuple[int, int, int], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "_SLAB_VOXELS", piece)
    image = np.random.default_rng(1).normal(0, 400, (17, 23, 19)).astype(np.float32)
    unit = (1.0, 1.0, 1.0)
    clipped = np.clip(image, -300, 200)[None]
    wanted = resample_torch_fornnunet(clipped, target, unit, unit, **RESAMPLING_DATA["kwargs"])
    result = resample_to_shape(image, target, (-300.0, 200.0))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, wanted[0], atol=1e-3)
    assert result.min() >= -300 and result.max() <= 200
    whole_numbers = resample_to_shape(image.astype(np.int16), target, (-300.0, 200.0))
    np.testing.assert_allclose(whole_numbers, wanted[0], atol=1.0)
    np.testing.assert_array_equal(
        resample_to_shape(np.full_like(image, 0.1), target), np.float32(0.1)
    )


@pytest.mark.parametrize("target", [(7, 11, 5), (20, 9, 31), (9, 13, 17)])
def test_masks_take_the_voxel_under_the_centre(target: tuple[int, int, int]) -> None:
    mask = np.random.default_rng(0).random((9, 13, 17)) > 0.5
    # Oracle: floor of the centre's place, which has no ties for these shapes.
    rows = [
        np.floor((np.arange(t) + 0.5) * n / t + 1e-9).astype(int)
        for n, t in zip(mask.shape, target, strict=True)
    ]
    result = resample_mask_to_shape(mask, target)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, mask[np.ix_(*rows)])


def test_shape_follows_the_spacing() -> None:
    assert new_shape((10, 20, 30), (3.0, 2.0, 1.0), (1.5, 4.0, 3.0)) == (20, 10, 10)
    assert new_shape((2, 2, 2), (1.0, 1.0, 1.0), (9.0, 9.0, 9.0)) == (1, 1, 1)
    image = np.zeros((10, 20, 30), dtype=np.float32)
    assert resample(image, (3.0, 2.0, 1.0), (1.5, 4.0, 3.0)).shape == (20, 10, 10)


@pytest.mark.parametrize("choice", [RESAMPLING_DATA, RESAMPLING_PROBABILITIES, RESAMPLING_SEG])
def test_nnunet_finds_and_calls_the_functions(choice: dict) -> None:
    from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name

    function = recursive_find_resampling_fn_by_name(choice["name"])
    data = np.zeros((1, 4, 6, 8), dtype=np.float32)
    data[:, :, :, 4:] = 2
    spacings = (3.0, 2.0, 1.0), (1.5, 2.0, 2.0)
    result = np.asarray(function(data, (8, 6, 4), *spacings, **choice["kwargs"]))
    np.testing.assert_array_equal(np.unique(result), [0, 2])
    assert result.shape == (1, 8, 6, 4)
    assert choice["kwargs"]["is_seg"] == (choice is RESAMPLING_SEG)
