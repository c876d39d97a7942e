"""Values, windows and bodies of MR and pictures, against nnU-Net's and drawn shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ZScoreNormalization

from screener_nnu.errors import CaseError
from screener_nnu.planners.fingerprint import first_settings
from screener_nnu.preprocessing.modality import CT, MODALITIES, MR, PICTURE
from screener_nnu.preprocessing.prepare import prepare_image
from screener_nnu.preprocessing.reading import read_image

Person = Callable[..., np.ndarray]
SPACING = (4.0, 3.0, 3.0)
_MR = MODALITIES[MR]
SETTINGS = first_settings(MR, 1.0)


def magnetic(hu: np.ndarray, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """What MR may show of a person: noise around it, tissue under a bias field, 0 at two sides."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, hu.shape[2])
    signal = np.where(hu > -400, 300.0 + np.clip(hu, 0, 400), 0.0) * np.exp(0.3 * x)
    noisy = np.hypot(signal + rng.normal(0, 8, hu.shape), rng.normal(0, 8, hu.shape))
    noisy[:, :3], noisy[:, :, -2:] = 0, 0
    return (scale * noisy).astype(np.float32)


def stock(array: np.ndarray) -> tuple[np.ndarray, tuple[slice, ...]]:
    """What stock nnU-Net makes of a scan, (z, y, x) of its box, and the box."""
    data, _, box = crop_to_nonzero(array[None].astype(np.float32))
    scheme = ZScoreNormalization(use_mask_for_norm=False, intensityproperties={})
    return scheme.run(data, None)[0], tuple(slice(a, b) for a, b in box)


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.float64])
def test_values_of_mr_are_those_of_stock_nnunet(person: Person, kind: type) -> None:
    array = magnetic(person()).astype(kind)
    expected, box = stock(array)
    assert expected.shape != array.shape
    found = _MR.values(array, "a")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[box], expected, atol=2e-5)
    # Outside of the box, too, zero is what zero is inside.
    np.testing.assert_allclose(found[array == 0], found[array == 0][0])


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0), (37.0, 0), (2.0, 500.0), (0.01, 3.0)])
def test_window_and_body_of_mr_know_no_scale(person: Person, scale: float, offset: float) -> None:
    plain = magnetic(person())
    other = scale * plain + offset
    seen = []
    for array in (plain, other):
        image = _MR.values(array, "a")
        window = _MR.window(image, SETTINGS)
        box = _MR.box(image, SPACING, SETTINGS)
        # The window in the unit of the file without offset and scale.
        level = [np.interp(v, np.sort(image.ravel()), np.sort(plain.ravel())) for v in window]
        body = _MR.body(image[box], SPACING, window, SETTINGS.body_threshold)
        seen.append((level, box, body))
    np.testing.assert_allclose(seen[0][0], seen[1][0], rtol=1e-3, atol=0.5)
    assert seen[0][1] == seen[1][1]
    assert (seen[0][2] != seen[1][2]).mean() < 1e-3


def test_window_of_mr_runs_from_background_to_bright_tissue(person: Person) -> None:
    array = magnetic(person())
    array[10, 20, 20:23] = 20_000  # a vessel, or an artefact
    image = _MR.values(array, "a")
    low, high = _MR.window(image, SETTINGS)
    tissue = image[(person() > -400) & (array < 10_000)]
    assert low == pytest.approx(image[array == 0][0])
    assert np.percentile(tissue, 95) < high < 1.5 * tissue.max()


def test_body_of_mr_is_the_person(person: Person) -> None:
    hu = person()
    image = _MR.values(magnetic(hu), "a")
    window = _MR.window(image, SETTINGS)
    body = _MR.body(image, SPACING, window, SETTINGS.body_threshold)
    expected = MODALITIES[CT].body(hu, SPACING, (-1000.0, 300.0), -500.0)
    assert (body & expected).sum() / (body | expected).sum() > 0.97
    box = MODALITIES[CT].box(hu, SPACING, first_settings(CT, 1.0))
    assert _MR.box(image, SPACING, SETTINGS) == box


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: np.where(a == a.max(), np.nan, a), "NaN or infinite"),
        (lambda a: np.where(a == a.max(), np.inf, a), "NaN or infinite"),
        (lambda a: a.astype(np.float64) * 1e39, "NaN or infinite"),
        (lambda a: a.astype(np.float64) * 1e-60, "every voxel has the value 0"),
        (lambda a: np.full_like(a, 7), "every voxel has the value 7"),
        (lambda a: np.zeros_like(a), "every voxel has the value 0"),
    ],
)
def test_what_is_no_mr_is_refused(
    person: Person, change: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    with pytest.raises(CaseError, match=reason):
        _MR.values(change(magnetic(person())), "a")


def test_ct_is_no_mr_and_mr_no_ct(person: Person) -> None:
    with pytest.raises(CaseError, match="Hounsfield units, so this is CT and not MR"):
        _MR.values(person(), "a")
    with pytest.raises(CaseError, match="MR needs a plan and a model of its own"):
        MODALITIES[CT].values(magnetic(person()), "a")
    # As programs leave it behind that interpolate, or standardise.
    ringing = magnetic(person())
    ringing[12, 20, 20:23] = -9
    for array in (ringing, _MR.values(magnetic(person()), "a")):
        assert np.isfinite(_MR.values(array, "a")).all()
        with pytest.raises(CaseError, match="not CT in Hounsfield|exactly 0"):
            MODALITIES[CT].values(array, "a")


def test_an_image_of_another_modality_than_the_plans_is_refused(
    person: Person, write_image: Callable[..., Path]
) -> None:
    raw = read_image(write_image(magnetic(person())), "a", MR)
    ct = replace(SETTINGS, modality=CT, hu_window=(-1000.0, 300.0), body_threshold=-500.0)
    with pytest.raises(CaseError, match="read as MR, and the plan is one of CT"):
        prepare_image(raw, ct)
    assert prepare_image(raw, SETTINGS).body.any()


def test_shape_of_the_histograms() -> None:
    assert MODALITIES[CT].edges(1.0)[[0, -1]].tolist() == [-1024, 3072]
    np.testing.assert_array_equal(MODALITIES[PICTURE].edges(255), np.arange(257))
    assert MODALITIES[PICTURE].edges(65535)[[0, -1]].tolist() == [0, 65536]
    assert len(_MR.edges(1.0)) == 2001


@pytest.mark.parametrize("highest", [255.0, 4095.0])
def test_body_of_a_picture(highest: float) -> None:
    kind, settings = MODALITIES[PICTURE], first_settings(PICTURE, highest)
    y, x = np.mgrid[:60, :80]
    disc = (y - 30) ** 2 + (x - 40) ** 2 < 25**2
    picture = np.where(disc, 0.5 * highest, 0.01 * highest).astype(np.float32)[None]
    window = kind.window(picture, settings)
    assert window == (0, highest)
    body = kind.body(picture, (999.0, 1.0, 1.0), window, settings.body_threshold)
    np.testing.assert_array_equal(body[0], disc)
    rows, columns = np.flatnonzero(disc.any(1)), np.flatnonzero(disc.any(0))
    assert kind.box(picture, (999.0, 1.0, 1.0), settings) == (
        slice(0, 1),
        slice(rows[0], rows[-1] + 1),
        slice(columns[0], columns[-1] + 1),
    )
    # A colour counts as its brightest part does.
    colours = np.stack([0 * picture, picture, 0 * picture])
    np.testing.assert_array_equal(
        kind.body(colours, (999.0, 1.0, 1.0), window, settings.body_threshold)[0], disc
    )
    everything = replace(settings, body_threshold=-1.0)
    assert kind.body(picture, (999.0, 1.0, 1.0), window, -1.0).all()
    assert kind.box(picture, (999.0, 1.0, 1.0), everything) == (
        slice(0, 1),
        slice(0, 60),
        slice(0, 80),
    )


def test_pictures_of_another_depth_are_refused() -> None:
    kind = MODALITIES[PICTURE]
    eight, sixteen = (first_settings(PICTURE, highest) for highest in (255.0, 4095.0))
    dark, bright = np.full((1, 4, 4), 200.0), np.full((1, 4, 4), 3000.0)
    assert kind.why_not(dark, eight) == kind.why_not(bright, sixteen) == ""
    assert "reach 3000, and the plan is one of pictures whose white is 255" in kind.why_not(
        bright, eight
    )
    assert "reach 200, and the plan is one of pictures whose white is 4095" in kind.why_not(
        dark, sixteen
    )


@pytest.mark.parametrize("shape", [(1, 40, 50), (3, 1, 40, 50)])
def test_below_zero_all_of_a_picture_is_body(shape: tuple[int, ...]) -> None:
    picture = np.zeros(shape, np.float32)
    picture[..., 10:30, 15:35] = 200
    settings, kind = first_settings(PICTURE, 255.0), MODALITIES[PICTURE]
    for threshold, share in ((-1.0, 1.0), (0.06, 0.2)):
        given = replace(settings, body_threshold=threshold, hu_window=(0.0, 255.0))
        box = kind.box(picture, SPACING, given)
        assert (box == (slice(0, 1), slice(0, 40), slice(0, 50))) == (threshold < 0)
        body = kind.body(picture, SPACING, (0.0, 255.0), threshold)
        assert body.shape == (1, 40, 50) and body.mean() == pytest.approx(share)
