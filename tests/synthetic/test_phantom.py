"""Phantoms: reproducible, anatomically in order, readable by nnU-Net."""

import json
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from scipy import ndimage

from screener_nnu.errors import ScreenerError
from screener_nnu.synthetic import (
    Phantom,
    generate_phantom,
    write_phantom_dataset,
    write_phantom_test_set,
)
from screener_nnu.synthetic.canvas import Tissue
from screener_nnu.synthetic.fields import capsule, ellipsoid, smooth_noise
from screener_nnu.synthetic.texture import Scanner, ct_noise

COARSE = (6.0, 5.0, 5.0)


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [generate_phantom(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def ill_phantoms() -> list[Phantom]:
    """The same patients, with five lesions each."""
    return [generate_phantom(seed, lesions=5) for seed in range(3)]


def test_same_seed_same_scan() -> None:
    first, second, other = (generate_phantom(seed, COARSE, 2) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.image_hu, second.image_hu)
    np.testing.assert_array_equal(first.lesion_mask, second.lesion_mask)
    assert first.lesions == second.lesions
    assert first.image_hu.shape != other.image_hu.shape or (first.image_hu != other.image_hu).any()


def test_size_and_type(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        assert phantom.image_hu.dtype == np.int16
        assert phantom.labels.dtype == phantom.lesion_mask.dtype == np.uint8
        extent = np.multiply(phantom.image_hu.shape, phantom.spacing)
        assert np.all(extent > (235, 220, 280)) and np.all(extent < (325, 310, 360))
        assert phantom.image_hu.min() >= -1024 and not phantom.lesion_mask.any()


@pytest.mark.parametrize(
    ("tissue", "low", "high"),
    [
        (Tissue.AIR, -1010, -960),
        (Tissue.LUNG, -910, -780),
        (Tissue.FAT, -120, -70),
        (Tissue.MUSCLE, 20, 70),
        (Tissue.LIVER, 50, 125),
        (Tissue.HEART, 35, 190),
        (Tissue.BLOOD_VESSEL, 30, 190),
        (Tissue.SPLEEN, 30, 140),
        (Tissue.BONE, 150, 900),
        (Tissue.SPINAL_CORD, 0, 90),
    ],
)
def test_median_hu_of_tissue(
    phantoms: list[Phantom], tissue: Tissue, low: float, high: float
) -> None:
    for phantom in phantoms:
        values = phantom.image_hu[phantom.labels == tissue]
        assert values.size > 100
        assert low < np.median(values) < high


def test_anatomy_is_in_its_place(phantoms: list[Phantom]) -> None:
    """LPS: x grows to the patient's left, y to the back, z to the head."""
    for phantom in phantoms:

        def centre(tissue: Tissue, labels: np.ndarray = phantom.labels) -> np.ndarray:
            return np.mean(np.nonzero(labels == tissue), axis=1)

        middle = np.array(phantom.labels.shape) / 2
        assert centre(Tissue.LIVER)[2] < middle[2] < centre(Tissue.SPLEEN)[2]
        assert centre(Tissue.SPINAL_CORD)[1] > centre(Tissue.BLOOD_VESSEL)[1]
        assert centre(Tissue.LUNG)[0] > centre(Tissue.LIVER)[0] > centre(Tissue.KIDNEY)[0]


def test_body_is_one_piece_without_the_table(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        assert ndimage.label(phantom.body)[1] == 1
        assert not phantom.body[:, [0, -1]].any() and not phantom.body[:, :, [0, -1]].any()
        # Behind the body lies a table: denser than air, and not labelled.
        behind = ndimage.uniform_filter(phantom.image_hu.astype(float), 3)[:, -12:]
        assert (behind[~phantom.body[:, -12:]] > -900).any()


def test_lesions_lie_inside_the_body_and_are_all_that_changes(
    phantoms: list[Phantom], ill_phantoms: list[Phantom]
) -> None:
    """Anatomy and noise are those of the healthy scan; only lesions and their soft edge differ."""
    for healthy, ill in zip(phantoms, ill_phantoms, strict=True):
        mask = ill.lesion_mask > 0
        assert len(ill.lesions) == 5 and ndimage.label(mask)[1] >= 4
        assert ill.body[mask].all()
        np.testing.assert_array_equal(healthy.labels, ill.labels)
        difference = np.abs(ill.image_hu.astype(int) - healthy.image_hu)
        far = ndimage.distance_transform_edt(~mask, sampling=ill.spacing) > 20
        assert difference[far].max() == 0


def test_lesion_contrast_by_kind(phantoms: list[Phantom], ill_phantoms: list[Phantom]) -> None:
    """Change of HU around the centre of each lesion."""
    expected = {"lung": (300, 1000), "liver": (-70, -15), "kidney": (10, 250)}
    seen = set()
    for healthy, ill in zip(phantoms, ill_phantoms, strict=True):
        change = ill.image_hu.astype(float) - healthy.image_hu
        grid = np.indices(change.shape).reshape(3, -1).T * ill.spacing
        for lesion in ill.lesions:
            near = np.linalg.norm(grid - lesion.centre, axis=1) < 0.6 * lesion.radius
            core = near.reshape(change.shape) & (ill.lesion_mask > 0)
            amount = float(np.median(change[core]))
            low, high = expected.get(lesion.kind, (-1000, 1000))
            assert low < amount < high, lesion
            # Bone may lose or gain, a mass in fat gains: both leave their host's range.
            assert abs(amount) > 10, lesion
            seen.add(lesion.kind)
    assert seen == {"lung", "liver", "kidney", "bone", "soft_tissue"}


def test_noise_has_unit_variance_and_little_power_at_low_frequencies() -> None:
    noise = ct_noise(
        np.random.default_rng(0), (4, 128, 128), (3.0, 1.0, 1.0), Scanner(10, 1, 0.2, 1)
    )
    assert noise.std() == pytest.approx(1, abs=1e-3)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(0)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    peak = power[(radius > 0.1) & (radius < 0.2)].mean()
    assert power[(radius > 0) & (radius < 0.03)].mean() < 0.5 * peak
    assert power[radius > 0.45].mean() < 0.2 * peak


def test_distances_of_shapes() -> None:
    points = [np.array([0.0, 0.0, 5.0]), np.array([0.0, 0.0, 0.0]), np.array([0.0, 30.0, 0.0])]
    sphere = ellipsoid([p.astype(np.float32) for p in points], (0, 0, 0), (10, 10, 10))
    np.testing.assert_allclose(sphere, [-10, 20, -5], atol=0.02)
    line = capsule([p.astype(np.float32) for p in points], (0, 0, 0), (0, 0, 20))
    np.testing.assert_allclose(line, [0, 10, 5], atol=1e-4)


def test_smooth_noise_has_unit_variance_and_does_not_depend_on_spacing() -> None:
    axes = [np.arange(0, 120, step, dtype=np.float32) for step in (2, 3, 4)]
    fields = [smooth_noise(np.random.default_rng(i), axes, 15.0) for i in range(20)]
    assert np.std(fields) == pytest.approx(1, abs=0.1)
    fine = [np.arange(0, 119, 1, dtype=np.float32) for _ in range(3)]
    same = smooth_noise(np.random.default_rng(0), fine, 15.0)
    coarse = fields[0][:59, :39, :29]
    np.testing.assert_allclose(same[::2, ::3, ::4][:59, :39, :29], coarse, atol=1e-4)


@pytest.mark.parametrize("labelled", [False, True])
def test_dataset_is_valid_for_nnunet(tmp_path: Path, labelled: bool) -> None:
    name = "Dataset900_Phantom"
    folder = write_phantom_dataset(tmp_path, name, 3, 1, lesion_labels=labelled, spacing=COARSE)
    description = json.loads((folder / "dataset.json").read_text())
    assert description["numTraining"] == 3 and description["channel_names"] == {"0": "CT"}
    spacings = set()
    for path in sorted((folder / "imagesTr").iterdir()):
        image, properties = SimpleITKIO().read_images([str(path)])
        spacings.add(tuple(properties["spacing"]))
        assert image.min() >= -1024 and image.max() > 300
    assert len(spacings) == 3
    assert (folder / "labelsTr").is_dir() == labelled
    if labelled:
        for path in (folder / "labelsTr").iterdir():
            assert set(np.unique(SimpleITKIO().read_seg(str(path))[0])) == {0, 1}
        verify_dataset_integrity(str(folder), num_processes=1)
    with pytest.raises(ScreenerError, match="already holds files"):
        write_phantom_dataset(tmp_path, name, 1, 1, spacing=COARSE)


def test_datasets_are_a_function_of_the_seed(tmp_path: Path) -> None:
    folders = [
        write_phantom_dataset(tmp_path / n, "D", 2, s, 0.5, spacing=COARSE) / "imagesTr"
        for n, s in (("a", 3), ("b", 3), ("c", 4))
    ]
    arrays = [SimpleITKIO().read_images([str(min(f.iterdir()))])[0] for f in folders]
    np.testing.assert_array_equal(arrays[0], arrays[1])
    assert arrays[0].shape != arrays[2].shape or (arrays[0] != arrays[2]).any()


def test_test_set_has_lesions_everywhere(tmp_path: Path) -> None:
    write_phantom_test_set(tmp_path, 2, 7)
    for mask in (tmp_path / "masks").iterdir():
        image = tmp_path / "images" / mask.name.replace(".nii.gz", "_0000.nii.gz")
        annotated, of_mask = SimpleITKIO().read_seg(str(mask))
        _, of_image = SimpleITKIO().read_images([str(image)])
        assert annotated.sum() > 0
        assert of_mask["sitk_stuff"] == of_image["sitk_stuff"]
