"""The fingerprint of small NIfTI files against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.planners.fingerprint import (
    analyse_case,
    body_shares,
    intensity_properties,
    summarise,
)
from screener_nnu.planners.records import collect_records
from screener_nnu.preprocessing.body import body_box, body_mask
from screener_nnu.preprocessing.modality import MODALITIES
from screener_nnu.preprocessing.units import warn_of_full_views

HU_EDGES = MODALITIES["ct"].edges(0.0)
SPACING = (4.0, 3.0, 2.5)
SHAPE = (16, 50, 64)
Writer = Callable[[Path, str, np.ndarray], Path]
Person = Callable[..., np.ndarray]


def body_voxels(path: Path) -> np.ndarray:
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float32)
    crop = array[body_box(array, SPACING, -500.0, 5.0)]
    return crop[body_mask(crop, SPACING, -500.0)]


def test_record_of_a_case(cases: dict[str, Path]) -> None:
    record = analyse_case("p1", cases["p1"])
    assert record["shape"] == list(SHAPE)
    np.testing.assert_allclose(record["spacing"], SPACING)
    voxels = body_voxels(cases["p1"])
    oval = np.pi * 0.7 * 0.6 / 4 * np.prod(SHAPE)
    assert len(voxels) == pytest.approx(oval, rel=0.1)
    assert record["body_volume_ml"] == pytest.approx(len(voxels) * np.prod(SPACING) / 1000)
    # The oval takes 0.6 and 0.7 of the axes y and x; a block of 5 mm is added on each side.
    for length, fraction, size in zip(record["body_shape"][1:], (0.6, 0.7), SHAPE[1:], strict=True):
        assert fraction * size <= length <= fraction * size + 10
    assert record["body_share"] == pytest.approx(len(voxels) / np.prod(SHAPE))
    counts, _ = np.histogram(voxels, bins=HU_EDGES)
    expected = {str(i): int(n) for i, n in enumerate(counts) if n}
    assert record["hu_counts"] == expected and sum(expected.values()) == len(voxels)


def test_values_beyond_the_histogram_are_counted_at_its_ends(
    tmp_path: Path, write: Writer, person: Person
) -> None:
    array = person(0)
    array[6:8, 24:27, 30:33] = 9000
    path = write(tmp_path / "raw", "metal", array)
    counts = analyse_case("metal", path)["hu_counts"]
    assert counts[str(len(HU_EDGES) - 2)] == 18
    assert sum(counts.values()) == len(body_voxels(path))


def test_pooled_intensities_equal_numpy_within_a_bin(
    cases: dict[str, Path], tmp_path: Path
) -> None:
    summary = summarise(collect_records(cases, tmp_path / "out", 1))
    voxels = np.concatenate([body_voxels(path) for path in cases.values()])
    found = summary["foreground_intensity_properties_per_channel"]["0"]
    expected = {
        "mean": voxels.mean(),
        "median": np.median(voxels),
        "std": voxels.std(),
        "min": voxels.min(),
        "max": voxels.max(),
        "percentile_00_5": np.percentile(voxels, 0.5),
        "percentile_99_5": np.percentile(voxels, 99.5),
    }
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=2.5), key
    assert found["std"] > 20 and found["percentile_00_5"] < found["median"]
    assert sum(summary["hu_histogram"]["counts"]) == len(voxels)


def test_percentiles_of_a_known_histogram() -> None:
    """One voxel in 250 at the bottom and three at the top: only the top reaches its percentile."""
    counts = np.zeros(len(HU_EDGES) - 1)
    low, middle, high = (int((hu + 1024) // 4) for hu in (-700, 40, 900))
    counts[low], counts[middle], counts[high] = 1, 246, 3
    found = intensity_properties(counts, HU_EDGES)
    centre = [(HU_EDGES[i] + HU_EDGES[i + 1]) / 2 for i in (low, middle, high)]
    assert (found["min"], found["median"], found["max"]) == tuple(centre)
    assert found["percentile_00_5"] == centre[1] and found["percentile_99_5"] == centre[2]
    mean = (centre[0] + 246 * centre[1] + 3 * centre[2]) / 250
    assert found["mean"] == pytest.approx(mean)
    square = ([1, 246, 3] * (np.array(centre) - mean) ** 2).sum() / 250
    assert found["std"] == pytest.approx(np.sqrt(square))


def test_sizes_of_the_summary_are_in_mm_and_in_order(
    cases: dict[str, Path], tmp_path: Path, write: Writer, person: Person
) -> None:
    small = write(tmp_path / "raw", "a_small", person(3, (16, 40, 48)))
    summary = summarise(collect_records({**cases, "a_small": small}, tmp_path / "out", 1))
    assert list(summary["cases"]) == ["a_small", "p0", "p1", "p2"]
    for shape, extent in zip(summary["shapes_after_crop"], summary["body_extents_mm"], strict=True):
        np.testing.assert_allclose(extent, np.multiply(shape, SPACING), rtol=1e-6)
    assert summary["shapes_after_crop"][0][1] < summary["shapes_after_crop"][1][1]
    assert summary["cases"]["a_small"]["shape"] == [16, 40, 48]
    assert summary["cases"]["p0"]["image"] == str(cases["p0"])
    fractions = [
        np.prod(s) / np.prod(c["shape"])
        for s, c in zip(summary["shapes_after_crop"], summary["cases"].values(), strict=True)
    ]
    assert summary["median_relative_size_after_cropping"] == pytest.approx(np.median(fractions))


def test_analyse_raises_for_one_case(tmp_path: Path, write: Writer) -> None:
    with pytest.raises(CaseError, match="^air: "):
        analyse_case("air", write(tmp_path, "air", np.full(SHAPE, -1000, np.int16)))


def test_no_usable_image_lists_the_reasons() -> None:
    records = [{"case": "a", "image": "a.nii", "skipped": "it is a picture of a cat"}]
    with pytest.raises(ScreenerError, match="no usable image among 1:\n  a: it is a picture"):
        summarise(records)


def test_views_that_the_body_fills_are_named_once(
    cases: dict[str, Path],
    tmp_path: Path,
    write: Writer,
    person: Person,
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_of_full_views(body_shares(collect_records(cases, tmp_path / "out", 1)))
    assert not caplog.messages
    inner = person(1)[:, 20:30, 20:40]  # all tissue
    rim = inner.copy()
    rim[:, :, 0] = -1000  # a column of 20 is air
    noise = np.random.default_rng(0).integers(-1200, -900, (16, 4, 20))
    whole = {f"w{i}": write(tmp_path / "raw", f"w{i}", inner - i) for i in range(6)}
    whole["rim"] = write(tmp_path / "raw", "rim", np.concatenate([rim, noise], axis=1))
    warn_of_full_views(body_shares(collect_records({**cases, **whole}, tmp_path / "out", 1)))
    (message,) = [m for m in caplog.messages if "field of view" in m]
    assert message == (
        "in 6 of 10 scans the body fills the field of view (w0, w1, w2, w3, w4 and 1 more): right "
        "for a small field of view, else their padding or units are wrong"
    )
