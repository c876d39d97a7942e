"""Maps of a scorer that returns what it sees: they must be the scan itself, in its geometry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from scipy import ndimage
from torch import nn

from screener_nnu.conditions import build_condition
from screener_nnu.densities import ConditionalDensity, StandardisedDensity, build_density
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.predict import AnomalyMap, Predictor, predict_files
from screener_nnu.inference.volume import normalised, on_plan_grid, score_map
from screener_nnu.planners.planner import ScreenerPlanner
from screener_nnu.plans import Plan
from screener_nnu.preprocessing.reading import RawImage
from screener_nnu.preprocessing.resampling import resample_mask_to_shape, resample_to_shape
from screener_nnu.scoring.student import Student
from screener_nnu.scoring.teacher import FeatureExtractor, Teacher

torch.set_num_threads(1)
MEAN, STD, LOW, HIGH = -60.0, 310.0, -990.0, 420.0
LOWEST = -5000.0
SPACING = (3.0, 2.0, 2.5)  # z, y, x
SHAPE = (20, 76, 84)


def plan(spacing: tuple[float, float, float] = SPACING, *overrides: str) -> Plan:
    values = {
        "mean": MEAN, "median": -20.0, "std": STD, "min": -1024.0, "max": 1500.0,
        "percentile_00_5": LOW, "percentile_99_5": HIGH,
    }  # fmt: skip
    made = ScreenerPlanner(
        {
            "spacings": [[3.0, 2.0, 2.0]] * 4,
            "body_extents_mm": [[200.0, 200.0, 200.0]] * 4,
            "foreground_intensity_properties_per_channel": {"0": values},
            "hu_histogram": {"edges": [-1024.0, -100.0, 100.0, 3072.0], "counts": [1, 2, 1]},
            "cases": {f"case_{i}": {} for i in range(4)},
        },
        "Dataset901_Trunk",
        preset="cpu",
    ).plan()
    grid = [f"preprocessing.{k}={list(spacing)}" for k in ("spacing", "storage_spacing")]
    tile = "inference.student_tile=[16, 16, 16]"
    return made.with_settings(made.settings.override([*grid, tile, *overrides]))


def sees_hu() -> Student:
    """Gives back the normalised image in HU, so a map is the clipped scan."""
    return Student(nn.Identity(), MEAN, STD)


def predictor(spacing: tuple[float, float, float] = SPACING) -> Predictor:
    return Predictor(sees_hu(), plan(spacing), LOWEST, torch.device("cpu"))


def person(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """HU (z, y, x): air, an oval trunk, two lungs, a bright spot on one side."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    image = np.full(shape, -1000.0)
    image[(x / 0.8) ** 2 + (y / 0.7) ** 2 < 1] = 40
    for side in (-0.35, 0.35):
        image[((x - side) / 0.22) ** 2 + (y / 0.4) ** 2 < 1] = -850
    image[(x - 0.6) ** 2 + (y - 0.2) ** 2 + (z - 0.3) ** 2 < 0.03] = 700
    return np.rint(image + np.random.default_rng(0).normal(0, 12, shape)).astype(np.float32)


def turned(canonical: np.ndarray, direction: np.ndarray) -> sitk.Image:
    """The scan in file axes of their own: columns of `direction` are the axes x, y, z in LPS."""
    order = [int(np.abs(direction[:, axis]).argmax()) for axis in range(3)]
    array = canonical.transpose(2, 1, 0).transpose(order)
    for axis in range(3):
        if direction[order[axis], axis] < 0:
            array = np.flip(array, axis)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing([float(s) for s in np.array(SPACING)[::-1][order]])
    image.SetOrigin((-17.25, 31.5, -402.0))
    image.SetDirection(direction.ravel().tolist())
    return image


def oblique(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array(
        [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    )


DIRECTIONS = {
    "canonical": np.eye(3),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "head_first": np.diag([1.0, -1.0, -1.0]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "oblique": oblique(12.0),
    "oblique_coronal": oblique(-9.0) @ np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]]),
}


def write(image: sitk.Image, folder: Path, name: str = "scan_0000.nrrd") -> Path:
    folder.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(folder / name))
    return folder / name


def assert_same_geometry(image: sitk.Image, wanted: sitk.Image) -> None:
    """As near as NIfTI, which keeps float32, can hold it."""
    assert image.GetSize() == wanted.GetSize()
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(image, get)(), getattr(wanted, get)(), atol=1e-5)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_map_is_the_clipped_scan_in_its_own_geometry(name: str, tmp_path: Path) -> None:
    canonical = person()
    file = turned(canonical, DIRECTIONS[name])
    path = write(file, tmp_path / "in")
    out = tmp_path / "out"
    assert predict_files(predictor(), {"scan": path}, out) == {}
    score, body = (sitk.ReadImage(str(out / f"scan{end}.nii.gz")) for end in ("", "_body"))
    for image in (score, body):
        assert_same_geometry(image, file)
    assert score.GetPixelID() == sitk.sitkFloat32 and body.GetPixelID() == sitk.sitkUInt8
    # The plan's spacing is the scan's own, so not a voxel may differ.
    inside = sitk.GetArrayFromImage(body) > 0
    expected = np.where(inside, np.clip(sitk.GetArrayFromImage(file), LOW, HIGH), LOWEST)
    np.testing.assert_allclose(sitk.GetArrayFromImage(score), expected, atol=1e-3)
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE[1:]], indexing="ij")
    oval = np.broadcast_to((x / 0.8) ** 2 + (y / 0.7) ** 2 < 1, SHAPE)
    wanted = sitk.GetArrayFromImage(turned(oval.astype(np.float32), DIRECTIONS[name])) > 0
    assert 2 * (inside & wanted).sum() / (inside.sum() + wanted.sum()) > 0.97


def test_map_of_a_coarser_plan_is_the_smooth_scan(tmp_path: Path) -> None:
    """Resampled to 4 x 3 x 3.5 mm and back: a smooth scan returns within a few HU."""
    canonical = person()
    y = np.broadcast_to(np.linspace(0, 200, SHAPE[1])[None, :, None], SHAPE)
    x = np.broadcast_to(np.linspace(-80, 60, SHAPE[2])[None, None, :], SHAPE)
    z = np.broadcast_to(np.linspace(0, 90, SHAPE[0])[:, None, None], SHAPE)
    canonical = np.where(canonical > -950, x + y + z, canonical).astype(np.float32)
    file = turned(canonical, DIRECTIONS["oblique_coronal"])
    out = tmp_path / "out"
    coarse = predictor((4.0, 3.0, 3.5))
    predict_files(coarse, {"scan": write(file, tmp_path / "in")}, out)
    score = sitk.ReadImage(str(out / "scan.nii.gz"))
    assert_same_geometry(score, file)
    raw = sitk.GetArrayFromImage(file)
    deep = ndimage.binary_erosion(raw > -200, iterations=4, border_value=0)
    assert deep.sum() > 1000
    error = np.abs(sitk.GetArrayFromImage(score) - raw)[deep]
    assert error.max() < 1.0


def test_a_bad_scan_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    good = turned(person(), np.eye(3))
    folder = tmp_path / "in"
    images = {"a_good": write(good, folder, "a.nrrd"), "z_good": write(good, folder, "z.nrrd")}
    (folder / "broken.nii.gz").write_bytes(b"not an image")
    images["broken"] = folder / "broken.nii.gz"
    images["mr"] = write(sitk.Abs(good), folder, "mr.nrrd")
    out = tmp_path / "out"
    skipped = predict_files(predictor(), dict(sorted(images.items())), out)
    assert set(skipped) == {"broken", "mr"}
    assert "cannot be read" in skipped["broken"] and "not CT" in skipped["mr"]
    maps = {p.name for p in out.iterdir()}
    assert maps == {f"{c}_good{end}.nii.gz" for c in "az" for end in ("", "_body")}


def test_existing_maps_are_left_alone_unless_asked(tmp_path: Path) -> None:
    images = {"scan": write(turned(person(), np.eye(3)), tmp_path / "in")}
    out = tmp_path / "out"
    out.mkdir()
    (out / "scan.nii.gz").write_text("mine")
    assert predict_files(predictor(), images, out) == {}
    assert [p.name for p in out.iterdir()] == ["scan.nii.gz"]
    assert (out / "scan.nii.gz").read_text() == "mine"
    predict_files(predictor(), images, out, overwrite=True)
    assert sitk.ReadImage(str(out / "scan.nii.gz")).GetSize() == SHAPE[::-1]


def test_threshold_writes_a_mask_inside_the_body(tmp_path: Path) -> None:
    file = turned(person(), DIRECTIONS["coronal"])
    out = tmp_path / "out"
    predict_files(predictor(), {"scan": write(file, tmp_path / "in")}, out, threshold=400.0)
    mask, score = (sitk.ReadImage(str(out / f"scan{end}.nii.gz")) for end in ("_mask", ""))
    assert_same_geometry(mask, file)
    assert mask.GetPixelID() == sitk.sitkUInt8
    expected = sitk.GetArrayFromImage(score) > 400
    assert 50 < expected.sum() < 5000
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), expected)
    # A threshold below the fill value marks the body and nothing else.
    predict_files(
        predictor(), {"all": tmp_path / "in" / "scan_0000.nrrd"}, out, threshold=LOWEST - 1
    )
    everything, body = (sitk.ReadImage(str(out / f"all{end}.nii.gz")) for end in ("_mask", "_body"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(everything), sitk.GetArrayFromImage(body))


def test_no_mask_without_a_threshold(tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(predictor(), {"s": write(turned(person(), np.eye(3)), tmp_path / "in")}, out)
    assert sorted(p.name for p in out.iterdir()) == ["s.nii.gz", "s_body.nii.gz"]


def test_normalisation_is_that_of_stock_nnunet() -> None:
    hu = np.random.default_rng(1).normal(0, 700, (6, 7, 8)).astype(np.float32)
    made = plan()
    values = made.values["foreground_intensity_properties_per_channel"]["0"]
    expected = CTNormalization(intensityproperties=values).run(hu.copy())
    assert expected.std() > 0.5
    np.testing.assert_allclose(
        normalised(torch.from_numpy(hu)[None, None], made)[0, 0].numpy(), expected, atol=1e-5
    )


def test_student_is_padded_with_normalised_air() -> None:
    seen = []

    class Notes(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image)
            return image

    hu = np.full((5, 5, 5), 40.0, np.float32)
    student = Student(Notes(), MEAN, STD)
    result = score_map(student, hu, hu, plan(), torch.device("cpu"))
    np.testing.assert_allclose(result, hu, rtol=1e-5)
    (image,) = seen
    assert min(image.shape[2:]) > 5
    assert float(image[0, 0, -1, -1, -1]) == pytest.approx((LOW - MEAN) / STD)


class SumDensity(ConditionalDensity):
    """-log q is the sum of the channels."""

    def _log_prob(self, y: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        return -y.sum(1)


def pooling_teacher() -> Teacher:
    """Scores the equalised image itself, averaged over cells of 1 x 2 x 2 voxels."""
    features = FeatureExtractor(nn.Identity(), build_condition("none"), (1, 2, 2))
    density = SumDensity(1)
    density.scale = nn.Parameter(torch.zeros(1))  # a density takes its precision from one
    standardised = StandardisedDensity(density)
    standardised.has_statistics.fill_(True)
    return Teacher(features, standardised).eval()


class Looks(nn.Module):
    """A network whose output at a voxel depends on its tile and its neighbours."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.norm = nn.InstanceNorm3d(1)
        self.convolution = nn.Conv3d(1, channels, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.convolution(self.norm(image))


def looking_teacher(kind: str) -> Teacher:
    features = FeatureExtractor(Looks(4), build_condition("sincos"), (1, 2, 2))
    torch.manual_seed(5)
    options = {"steps": 2} if kind == "flow" else {"kernel_size": 3}
    density = StandardisedDensity(build_density(kind, 4, 24, hidden=8, **options))
    y, c = torch.rand(1, 4, 4, 4, 4), torch.rand(1, 24, 4, 4, 4)
    density.accumulate(y, c)
    density.finish_statistics()
    density.initialise(y, c)
    return Teacher(features, density).eval()


@pytest.mark.parametrize("kind", ["student", "flow", "gaussian"])
def test_what_the_body_does_not_need_is_left_out_without_a_trace(kind: str) -> None:
    """Tiles and positions of the air are skipped; voxels of the body are those of all tiles."""
    scorer = Student(Looks(), MEAN, STD) if kind == "student" else looking_teacher(kind)
    grid, storage = (24, 40, 48), (20, 30, 36)
    generator = np.random.default_rng(0)
    hu = generator.normal(0, 200, grid).astype(np.float32)
    equalised = generator.random(storage).astype(np.float32)
    body = np.zeros(storage, np.uint8)
    body[:9, 3:12, 20:33] = 1
    body[8:15, 6:8, 30:] = 1
    device, made = torch.device("cpu"), plan(SPACING, "inference.teacher_tile=[16, 16, 16]")
    whole = score_map(scorer, hu, equalised, made, device)
    result = score_map(scorer, hu, equalised, made, device, body)
    # As the map is put back: to a finer grid, of which the body is looked at.
    box = (41, 67, 80)
    inside = resample_mask_to_shape(body, box) > 0
    wanted, found = resample_to_shape(whole, box), resample_to_shape(result, box)
    np.testing.assert_allclose(found[inside], wanted[inside], rtol=1e-5, atol=1e-5)
    assert np.abs(result - whole).max() > 1e-2  # something was left out


def test_the_density_sees_each_needed_position_once() -> None:
    teacher, seen = pooling_teacher(), []
    density = teacher.density.density

    def counted(y: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        seen.append(y[0, 0].numel())
        return -y.sum(1)

    density._log_prob = counted  # type: ignore[assignment, method-assign]
    hu = np.zeros((20, 36, 40), np.float32)
    made, device = plan(SPACING, "inference.teacher_tile=[8, 8, 8]"), torch.device("cpu")
    score_map(teacher, hu, hu, made, device)
    assert sum(seen) == 20 * 18 * 20
    seen.clear()
    body = np.zeros(hu.shape, np.uint8)
    body[4:8, 10:18, 20:28] = 1
    score_map(teacher, hu, hu, made, device, body)
    assert 4 * 4 * 4 <= sum(seen) <= (4 + 4) * (4 + 4) * (4 + 4)


def test_a_scan_alone_and_among_others_has_the_same_map(tmp_path: Path) -> None:
    images = {}
    for name in ("canonical", "coronal", "oblique", "sagittal"):
        file = turned(person(), DIRECTIONS[name])
        images[name] = write(file, tmp_path / "in", f"{name}.nrrd")
    model = Predictor(Student(Looks(), 3.0, 5.0), plan(), LOWEST, torch.device("cpu"))
    assert predict_files(model, images, tmp_path / "all") == {}
    for name, path in images.items():
        assert predict_files(model, {name: path}, tmp_path / "alone") == {}
        for file_name in (f"{name}.nii.gz", f"{name}_body.nii.gz"):
            one, other = ((tmp_path / f / file_name).read_bytes() for f in ("all", "alone"))
            assert one == other


class Noted:
    """Extras that note what they were given."""

    def __init__(self, out: Path, interrupt: str = "") -> None:
        self.out, self.interrupt = out, interrupt
        self.seen: dict[str, np.ndarray] = {}
        self.finished: set[str] = set()

    bytes_per_voxel = 0

    def files(self, case: str) -> list[Path]:
        return []

    def forget(self, case: str) -> None:
        self.seen.pop(case, None)

    def foreign(self, case: str, identity: str) -> str:
        return ""

    def begin(self, case: str, identity: str, vector_scores: object) -> None:
        assert not (self.out / f"{case}.nii.gz").exists()

    def current(self, case: str) -> bool:
        return case in self.finished

    def write(self, case: str, raw: RawImage, result: AnomalyMap) -> None:
        if case == self.interrupt:
            raise KeyboardInterrupt
        assert raw.case == case and (self.out / f"{case}.nii.gz").exists()
        self.seen[case] = sitk.GetArrayFromImage(result.score)


def test_extras_are_made_of_every_map(tmp_path: Path) -> None:
    file, out = turned(person(), DIRECTIONS["oblique"]), tmp_path / "out"
    images = {c: write(file, tmp_path / "in", f"{c}.nrrd") for c in ("a", "b", "c")}
    extras = Noted(out)
    assert predict_files(predictor(), images, out, extras=extras) == {}
    assert list(extras.seen) == ["a", "b", "c"]
    for case, values in extras.seen.items():
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(out / f"{case}.nii.gz")))
        np.testing.assert_array_equal(written, values)
    # A later run makes what is missing, of the stored maps and without the network.
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    later = Noted(out)
    later.finished = {"a", "c"}
    broken = replace(predictor(), scorer=None)
    assert predict_files(broken, images, out, extras=later) == {}
    assert list(later.seen) == ["b"]
    np.testing.assert_array_equal(later.seen["b"], extras.seen["b"])
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_a_damaged_map_of_an_earlier_run_costs_one_case(tmp_path: Path) -> None:
    file, out = turned(person(), np.eye(3)), tmp_path / "out"
    images = {c: write(file, tmp_path / "in", f"{c}.nrrd") for c in "ab"}
    predict_files(predictor(), images, out)
    (out / "a.nii.gz").write_bytes(b"torn")
    extras = Noted(out)
    skipped = predict_files(predictor(), images, out, extras=extras)
    assert list(skipped) == ["a"] and "--overwrite" in skipped["a"]
    assert list(extras.seen) == ["b"]
    assert list(predict_files(predictor(), images, out, threshold=400.0)) == ["a"]
    assert (out / "b_mask.nii.gz").is_file()


def test_a_map_of_another_scan_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    out = tmp_path / "out"
    images = {"a": write(turned(person(), np.eye(3)), tmp_path / "in", "a.nrrd")}
    predict_files(predictor(), images, out)
    moved = turned(person(), np.eye(3))
    moved.SetOrigin((-17.25, 31.5, -399.0))
    write(moved, tmp_path / "in", "a.nrrd")
    extras = Noted(out)
    skipped = predict_files(predictor(), images, out, extras=extras)
    assert "is that of another scan: add --overwrite" in skipped["a"] and not extras.seen
    assert predict_files(predictor(), images, out, overwrite=True, extras=extras) == {}
    found = sitk.ReadImage(str(out / "a.nii.gz"))
    assert_same_geometry(found, moved)


def test_one_case_is_not_taken_for_the_body_of_another(tmp_path: Path) -> None:
    file, out = turned(person(), np.eye(3)), tmp_path / "out"
    images = {c: write(file, tmp_path / "in", f"{c}.nrrd") for c in ("a", "a_body", "b")}
    for _ in range(2):
        skipped = predict_files(predictor(), images, out, threshold=400.0)
        assert list(skipped) == ["a_body"] and "rename it" in skipped["a_body"]
    body = sitk.ReadImage(str(out / "a_body.nii.gz"))
    assert body.GetPixelID() == sitk.sitkUInt8 and (out / "b_mask.nii.gz").is_file()


def test_maps_are_not_written_over_scans(tmp_path: Path) -> None:
    images = {"a": write(turned(person(), np.eye(3)), tmp_path / "in", "a.nii.gz")}
    before = images["a"].read_bytes()
    for overwrite in (False, True):
        with pytest.raises(ScreenerError, match="holds scans"):
            predict_files(predictor(), images, tmp_path / "in", overwrite=overwrite)
    assert images["a"].read_bytes() == before


def test_an_interrupt_leaves_whole_files(tmp_path: Path) -> None:
    file, out = turned(person(), np.eye(3)), tmp_path / "out"
    images = {c: write(file, tmp_path / "in", f"{c}.nrrd") for c in "abcd"}
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor(), images, out, extras=Noted(out, interrupt="b"))
    names = {"a.nii.gz", "a_body.nii.gz", "b.nii.gz", "b_body.nii.gz"}
    assert {p.name for p in out.iterdir()} == names


@pytest.mark.parametrize("stored", [(12, 18, 24), (18, 27, 36)])
def test_teacher_sees_the_equalised_image_and_its_cells_become_voxels(
    stored: tuple[int, int, int],
) -> None:
    """A ramp is its own average and its own interpolation, at any spacing, away from borders."""
    grid, device = (12, 18, 24), torch.device("cpu")
    made = plan(SPACING, "inference.teacher_tile=[8, 8, 8]")
    for axis in range(3):
        ramp = (np.indices(stored)[axis] + 0.5) / stored[axis]
        hu = np.full(grid, 9e9, np.float32)  # must not be looked at
        result = score_map(pooling_teacher(), hu, ramp.astype(np.float16), made, device)
        assert result.shape == grid and result.dtype == np.float32
        expected = (np.indices(grid)[axis] + 0.5) / grid[axis]
        inner = tuple(slice(2, -2) for _ in range(3))
        np.testing.assert_allclose(result[inner], expected[inner], atol=2e-3)


def test_teacher_input_is_the_image_on_the_plans_grid() -> None:
    image = np.random.default_rng(2).random((9, 12, 15)).astype(np.float16)
    same = on_plan_grid(torch.from_numpy(image), (9, 12, 15))
    assert same.dtype == torch.float32
    np.testing.assert_array_equal(same.numpy(), image.astype(np.float32))
    where = [
        (np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip((6, 8, 10), image.shape, strict=True)
    ]
    expected = ndimage.map_coordinates(
        image.astype(float), np.meshgrid(*where, indexing="ij"), order=1, mode="nearest"
    )
    result = on_plan_grid(torch.from_numpy(image), (6, 8, 10))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)
