"""Maps on disk: what SimpleITK would have written, for every reader."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.preprocessing import compressed_nifti
from screener_nnu.preprocessing.compressed_nifti import write_compressed
from screener_nnu.preprocessing.volumes import read_volume


def some_map(shape: tuple[int, int, int]) -> np.ndarray:
    """Noise with runs of equal voxels of every length around the shortest that is packed."""
    generator = np.random.default_rng(0)
    values = generator.normal(0, 20, shape).astype(np.float32)
    flat = values.reshape(-1)
    place = 0
    while place < flat.size:
        length = int(generator.integers(1, 200))
        flat[place : place + length] = generator.choice([-7.25, 0.0, 3.0])
        place += length + int(generator.integers(0, 90))
    return values


def oblique_image(values: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.71, 0.83, 2.3))
    image.SetOrigin((-101.25, 33.7, 812.5))
    c, s = np.cos(0.3), np.sin(0.3)
    image.SetDirection((c, -s, 0, -s, -c, 0, 0, 0, -1))
    return image


@pytest.mark.parametrize("shape", [(9, 31, 47), (2, 3, 4), (40, 64, 70)])
@pytest.mark.parametrize("piece", [1 << 23, 4096])
def test_unpacked_file_is_simpleitks_byte_for_byte(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int, int],
    piece: int,
) -> None:
    monkeypatch.setattr(compressed_nifti, "_PIECE", piece)
    image = oblique_image(some_map(shape))
    sitk.WriteImage(image, str(tmp_path / "theirs.nii.gz"))
    write_compressed(image, tmp_path / "ours.nii.gz")
    ours = gzip.decompress((tmp_path / "ours.nii.gz").read_bytes())
    assert ours == gzip.decompress((tmp_path / "theirs.nii.gz").read_bytes())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ours.nii.gz", "theirs.nii.gz"]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32])
def test_whole_numbers_are_simpleitks_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    monkeypatch.setattr(compressed_nifti, "_PIECE", 4096)
    image = oblique_image(np.abs(some_map((9, 31, 47))).astype(kind))
    sitk.WriteImage(image, str(tmp_path / "theirs.nii.gz"), useCompression=True)
    write_compressed(image, tmp_path / "ours.nii.gz")
    ours, theirs = (gzip.open(tmp_path / f"{w}.nii.gz").read() for w in ("ours", "theirs"))
    assert ours == theirs and read_volume(tmp_path / "ours.nii.gz", "ours").GetSize()
    sizes = [(tmp_path / f"{who}.nii.gz").stat().st_size for who in ("ours", "theirs")]
    assert sizes[0] < 1.2 * sizes[1]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("room", [100, 20_000])
def test_a_full_disk_is_an_error(tmp_path: Path, kind: type, room: int) -> None:
    """SimpleITK leaves a file that is cut short, and says nothing."""
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 250, (20, 50, 60))
    image = oblique_image(noise.astype(kind))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="File too large|disk full"):
            write_compressed(image, tmp_path / "a.nii.gz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob(".*"))


def test_other_readers_read_it(tmp_path: Path) -> None:
    values, path = some_map((12, 20, 30)), tmp_path / "map.nii.gz"
    values[0, 0, :3] = np.nan, np.inf, -0.0
    image = oblique_image(values)
    write_compressed(image, path)
    read = sitk.ReadImage(str(path))
    assert read.GetSize() == image.GetSize()
    np.testing.assert_allclose(read.GetDirection(), image.GetDirection(), atol=1e-6)
    other = np.asarray(nibabel.load(path).dataobj)
    np.testing.assert_array_equal(other.transpose(2, 1, 0)[0, 0, :3], values[0, 0, :3])
    np.testing.assert_array_equal(other.transpose(2, 1, 0)[1:], values[1:])
    values[0, 0, :2] = 0.0
    write_compressed(oblique_image(values), path)
    assert read_volume(path, "case").GetSize()


def test_air_takes_no_space_and_noise_hardly_more_than_itself(tmp_path: Path) -> None:
    air = np.full((40, 100, 100), -12.5, np.float32)
    noise = np.random.default_rng(0).normal(size=air.shape).astype(np.float32)
    sizes = []
    for values in (air, noise):
        write_compressed(sitk.GetImageFromArray(values), tmp_path / "a.nii.gz")
        sizes.append((tmp_path / "a.nii.gz").stat().st_size)
    assert sizes[0] < 0.01 * air.nbytes and sizes[1] < 1.001 * noise.nbytes + 1000
