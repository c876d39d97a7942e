"""Anomalies in MR and pictures: what they change, and that CT is painted as ever."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from screener_nnu.planners.fingerprint import first_settings
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.case_files import CaseFolder, write_case
from screener_nnu.preprocessing.equalise import equalise
from screener_nnu.preprocessing.prepare import prepare_image
from screener_nnu.preprocessing.reading import RawImage, picture_image, to_raw_image
from screener_nnu.synthetic import add_anomalies, generate_phantom
from screener_nnu.synthetic.alterations import ALTERED_KINDS
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.cases import anomalous_case, plain_case, read_hu_and_body
from screener_nnu.synthetic.painting_scale import PaintingScale, brightness

CASES = ("a", "b", "c")
SPACING = (6.0, 5.0, 5.0)
# Colours and white of each kind of pictures.
PICTURES = {"grey": (1, 255), "colour": (3, 255), "deep": (1, 4095)}
# Soft edges, and blobs too small for a voxel of the mask.
_EDGE_MM = 16.0


def settings_of(kind: str) -> PreprocessingSettings:
    if kind in PICTURES:
        made = replace(first_settings("picture", PICTURES[kind][1]), equalisation="none")
        return replace(made, spacing=(999.0, 1.0, 1.0), storage_spacing=(999.0, 1.0, 1.0))
    made = replace(first_settings(kind, 1.0), spacing=SPACING, storage_spacing=SPACING)
    if kind == "ct":
        return made
    return replace(made, equalisation="none", hu_clip=(-1000.0, 1000.0))


def scan(seed: int, modality: str) -> RawImage:
    """A phantom, in HU or as MR may show it."""
    phantom = generate_phantom(seed, spacing=SPACING)
    values = phantom.image_hu.astype(np.float32)
    if modality == "mr":
        soft = 200 + 500 * np.exp(-(((values - 20) / 120) ** 2))
        values = (1 + seed) * np.where(phantom.body & (values > -500), soft, 4.0)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(SPACING[::-1])
    return to_raw_image(image, str(seed), modality=modality)


def picture(seed: int, colours: int, white: int) -> RawImage:
    """Blurred noise in a circle, black around it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:120, :150]
    smooth = ndimage.gaussian_filter(rng.normal(size=(colours, 120, 150)), (0, 2.5, 2.5))
    values = (0.5 + 0.12 * smooth / smooth.std()).clip(0.1, 0.9) * white
    values[:, (y - 60) ** 2 + (x - 75) ** 2 > 58**2] = 0
    return picture_image(values.astype(np.uint16), str(seed))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CaseFolder]:
    root = tmp_path_factory.mktemp("cases")
    for kind in ("ct", "mr", *PICTURES):
        for i, case in enumerate(CASES):
            raw = picture(i, *PICTURES[kind]) if kind in PICTURES else scan(i, kind)
            write_case(root / kind, case, prepare_image(raw, settings_of(kind)))
    return {kind: CaseFolder(root / kind) for kind in ("ct", "mr", *PICTURES)}


def near(mask: np.ndarray, scale: PaintingScale) -> np.ndarray:
    """Voxels within the soft edge of anomalies."""
    return ndimage.distance_transform_edt(~mask, sampling=scale.spacing) < _EDGE_MM


@pytest.mark.parametrize("anomaly", KINDS)
@pytest.mark.parametrize("kind", ["mr", *PICTURES])
def test_only_anomalies_change_and_values_stay_possible(
    folders: dict[str, CaseFolder], kind: str, anomaly: str
) -> None:
    settings, cases = settings_of(kind), folders[kind]
    before, body = read_hu_and_body(cases, "a")
    made = anomalous_case(cases, "a", list(CASES), anomaly, settings, seed=3)
    scale = PaintingScale.of(before, settings)
    low, high = scale.window
    assert made.hu.shape == before.shape and made.mask.shape == body.shape
    assert made.hu.dtype == made.equalised.dtype == np.float32
    change = abs(made.hu - before)
    changed = change if change.ndim == 3 else change.max(axis=0)
    assert made.mask.any() and not (made.mask & ~body).any()
    assert (changed[~near(made.mask, scale)] == 0).all() and (changed[~body] == 0).all()
    # A radiologist sees 5 to 15 % of the window, and half as much in the mean of some kinds.
    assert 0.02 < changed[made.mask].mean() / (high - low) < 0.7
    np.testing.assert_array_equal(made.body, body)
    if kind in PICTURES:
        assert low <= made.hu.min() and made.hu.max() <= high
    else:
        assert made.hu.min() >= before.min()
        assert made.hu.max() <= before.max() + 0.25 * (high - low)
    stored = cases.read("a", "equalised").astype(np.float32)
    np.testing.assert_array_equal(made.equalised[change == 0], stored[change == 0])
    moved = [((values - low) / (high - low)).clip(0, 1) for values in (before, made.hu)]
    expected = (stored + moved[1] - moved[0]).clip(0, 1)
    np.testing.assert_allclose(made.equalised, expected, atol=1e-5)


@pytest.mark.parametrize("anomaly", ALTERED_KINDS)
@pytest.mark.parametrize("kind", ["ct", "mr", *PICTURES])
def test_altered_tissue_is_what_differs(
    folders: dict[str, CaseFolder], kind: str, anomaly: str
) -> None:
    """Beyond the mask, no voxel differs by more than 2 % of the window; twice it is the same."""
    settings, cases = settings_of(kind), folders[kind]
    before, body = read_hu_and_body(cases, "a")
    made = anomalous_case(cases, "a", list(CASES), anomaly, settings, seed=3)
    again = anomalous_case(cases, "a", list(CASES), anomaly, settings, seed=3)
    low, high = PaintingScale.of(before, settings).window
    seen = [np.clip(brightness(v).astype(float), low, high) for v in (before, made.hu)]
    change = np.abs(seen[1] - seen[0]) / (high - low)
    # Rounding of values, and the cut of single colours at black and white, move what is at 2 %.
    assert made.mask.any() and not (made.mask & ~body).any()
    assert not ((change > 0.021) & ~made.mask).any()
    assert made.hu.dtype == before.dtype and made.hu.shape == before.shape
    np.testing.assert_array_equal(made.hu, again.hu)
    np.testing.assert_array_equal(made.mask, again.mask)


@pytest.mark.parametrize("anomaly", KINDS)
def test_colours_change_alike(folders: dict[str, CaseFolder], anomaly: str) -> None:
    settings, cases = settings_of("colour"), folders["colour"]
    before, _ = read_hu_and_body(cases, "a")
    made = anomalous_case(cases, "a", list(CASES), anomaly, settings, seed=3)
    change = made.hu - before
    free = ((made.hu > 0) & (made.hu < 255)).all(axis=0)
    np.testing.assert_allclose(change[0][free], change[1][free], atol=1e-3)
    np.testing.assert_allclose(change[0][free], change[2][free], atol=1e-3)
    np.testing.assert_allclose(made.grey, made.hu.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("anomaly", KINDS)
def test_ct_is_painted_as_without_a_scale(folders: dict[str, CaseFolder], anomaly: str) -> None:
    """Bit by bit what the painter makes of HU and mm themselves."""
    settings, cases = settings_of("ct"), folders["ct"]
    made = anomalous_case(cases, "a", ["a", "b"], anomaly, settings, seed=3)
    rng = np.random.default_rng([3, *(zlib.crc32(word.encode()) for word in ("a", anomaly))])
    rng.integers(1)
    own, donor = (read_hu_and_body(cases, name) for name in ("a", "b"))
    expected, mask = add_anomalies(*own, SPACING, *donor, SPACING, anomaly, rng)
    np.testing.assert_array_equal(made.hu, expected)
    assert made.hu.dtype == expected.dtype == np.int16
    np.testing.assert_array_equal(made.mask, mask > 0)
    stored = cases.read("a", "equalised").astype(np.float32)
    moved = equalise(expected, settings) - equalise(own[0], settings)
    np.testing.assert_array_equal(made.equalised, (stored + moved).clip(0, 1))


@pytest.mark.parametrize("kind", ["ct", "mr", *PICTURES])
def test_a_case_without_anomalies_is_the_stored_one(
    folders: dict[str, CaseFolder], kind: str
) -> None:
    cases = folders[kind]
    plain = plain_case(cases, "b")
    np.testing.assert_array_equal(plain.hu, cases.read("b", "hu"))
    assert not plain.mask.any()
    np.testing.assert_array_equal(plain.equalised, cases.read("b", "equalised"))


@pytest.mark.parametrize("equalisation", ["none", "global", "adaptive"])
def test_painted_scans_look_as_if_windowed_before_they_were_resampled(
    tmp_path: Path, equalisation: str
) -> None:
    """Against the same anomaly in a copy that was: equal without CLAHE, and closer with it."""
    levels = tuple(np.interp(np.linspace(0, 1, 33), [0, 0.5, 1], [-1000.0, -100.0, 300.0]))
    spacing: Any = tuple(1.6 * size for size in SPACING)
    settings = replace(
        settings_of("ct"),
        spacing=spacing,
        storage_spacing=SPACING if equalisation == "none" else spacing,
        equalisation=equalisation,
        hu_levels=levels,
        hu_clip=(-1000.0, 1500.0),
    )
    plain = replace(settings, equalisation="none", storage_spacing=settings.spacing)
    prepared = prepare_image(scan(0, "ct"), plain)
    write_case(tmp_path, "a", prepare_image(scan(0, "ct"), settings))
    cases, (low, high) = CaseFolder(tmp_path), settings.hu_window
    before, _ = read_hu_and_body(cases, "a")
    made = anomalous_case(cases, "a", ["a"], "hyperdense", settings, seed=3)
    windowed = prepared.equalised * (high - low) + low
    moved = np.clip(made.hu, low, high) - np.clip(before, low, high).astype(np.float32)
    truth = equalise(windowed + moved, settings)
    off = np.abs(made.equalised - truth)
    anew = np.abs(equalise(made.hu, settings) - truth)  # HU that were clipped further out
    assert anew.max() > 0.02
    # Float16 rounds what is stored; a finer grid is interpolated once more.
    assert off.mean() < {"none": 0.02, "global": 1e-3, "adaptive": 0.5 * anew.mean()}[equalisation]


@pytest.mark.parametrize("kind", ["mr", *PICTURES])
def test_painted_values_stand_for_hu_and_come_back(
    folders: dict[str, CaseFolder], kind: str
) -> None:
    values, _ = read_hu_and_body(folders[kind], "c")
    scale = PaintingScale.of(values, settings_of(kind))
    low, high = scale.window
    painted = scale.painted(values)
    expected = np.interp(brightness(values), [low, high], [-500, 300])
    inside = (brightness(values) >= low) & (brightness(values) <= high)
    np.testing.assert_allclose(painted[inside], expected[inside], atol=0.05)
    back: Any = scale.values(values, painted)
    np.testing.assert_array_equal(back, values)
    # 80 HU are a tenth of the window.
    more = scale.values(values, painted + 80)
    rise = (more - values)[..., painted < 100]
    np.testing.assert_allclose(rise, (high - low) / 10, rtol=1e-3)


def test_movement_shows_in_smooth_pictures(tmp_path: Path) -> None:
    """A radiograph of few pixels, which the change that shows in CT would leave without places."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:112j, -1:1:112j]
    for case in CASES:
        ribs = 20 * np.sin(45 * (y + 0.3 * x**2) + rng.uniform(0, 6))
        lungs = 40 * np.exp(-((abs(x) - 0.45) ** 2) / 0.05 - y**2 / 0.4)
        values = 150 + ribs - lungs + 20 * rng.normal()
        raw = picture_image(values[None].astype(np.uint8), case)
        write_case(tmp_path, case, prepare_image(raw, settings_of("grey")))
    before, body = read_hu_and_body(CaseFolder(tmp_path), "a")
    made = anomalous_case(
        CaseFolder(tmp_path), "a", list(CASES), "deformation", settings_of("grey"), seed=3
    )
    assert abs(made.hu - before)[made.mask].mean() > 0.02 * 255
    scale = PaintingScale.of(before, settings_of("grey"))
    painted = scale.painted(before)
    with pytest.raises(ValueError, match="no place"):
        add_anomalies(
            painted, body, scale.spacing, painted, body, scale.spacing, "deformation", rng
        )


def test_lengths_of_pictures_are_parts_of_their_sides() -> None:
    settings = settings_of("grey")
    small, large = (np.zeros((1, n, 2 * n), np.float32) for n in (50, 400))
    for image in (small, large):
        _, rows, columns = PaintingScale.of(image, settings).spacing
        assert rows == columns == pytest.approx(400 / image.shape[2])
