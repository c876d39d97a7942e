"""Wrong results without a word."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

pytestmark = pytest.mark.slow
Half = Callable[[Path], None]


def spoil_weights(place: Any, stage: str) -> None:
    """Puts NaN into one weight of a trained stage."""
    import torch

    path = place.world.stage(stage) / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    weights = checkpoint["network_weights"]
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].view(-1)[0] = float("nan")
    torch.save(checkpoint, path)


@pytest.mark.situation("a checkpoint holds NaN", 1, "no finite numbers", "distillation.* --restart")
def test_weights_of_nan(place: Any) -> None:
    place.person()
    spoil_weights(place, "distillation")
    place.predict("--threshold", 5, "--findings")
    assert not list(place.root.glob("out/anna*"))


@pytest.mark.situation("one stage of a teacher holds NaN", 1, "no finite numbers", "--restart")
@pytest.mark.parametrize("stage", ["descriptor", "condition", "density"])
def test_stage_of_nan(place: Any, stage: str) -> None:
    place.person()
    spoil_weights(place, stage)
    place.predict("--teacher", "--threshold", 5, "--findings")
    assert not list(place.root.glob("out/anna*"))


@pytest.mark.situation(
    "the network gives NaN (a faulty device)",
    1,
    "skipped anna: the model gives 1 of .* voxels a score that is no finite number",
)
def test_scores_of_nan(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from screener_nnu.inference import predict

    kept = predict.score_scan

    def spoilt(*given: Any) -> Any:
        found = kept(*given)
        found.scores.flat[0] = np.nan
        return found

    monkeypatch.setattr(predict, "score_scan", spoilt)
    place.person()
    place.predict("--threshold", 5, "--findings", "--page")
    assert not list(place.root.glob("out/anna*"))


@pytest.mark.situation("a scan is cut to a half", 1, "skipped anna: .*the file is cut short")
@pytest.mark.parametrize("ending", ["nii.gz", "nii", "mha", "nrrd"])
def test_half_a_scan(place: Any, half: Half, ending: str) -> None:
    path = place.person(f"in/anna.{ending}")
    half(path)
    place.mine(path)
    if ending == "nrrd":
        place.says = ("skipped anna: .*cannot be read",)
    place.predict()


@pytest.mark.situation(
    "one bit of a compressed scan has flipped", 1, "skipped anna: .*the file is (damaged|cut short)"
)
def test_flipped_bit(place: Any) -> None:
    path = place.person()
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 0x10
    place.mine(path, bytes(content))
    place.predict()


@pytest.mark.situation("a scan holds NaN", 1, "skipped anna: .*it holds NaN or infinite values")
@pytest.mark.parametrize("ending", ["nii.gz", "mha"])
def test_scan_with_nan(place: Any, ending: str) -> None:
    def spoil(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[3, 4, 5] = np.nan
        return array

    place.person(f"in/anna.{ending}", spoil)
    place.predict()


def _evaluated(place: Any, spoil: Callable[[Path], None], name: str = "masks/anna.nii.gz") -> None:
    """Evaluates two maps, after one file of the first was spoilt."""
    code, says = place.code, place.says
    place.person()
    place.person("in/berta.nii.gz")
    place.code, place.says = 0, ()
    place.predict("--threshold", 5)
    place.path("masks/anna.nii.gz")
    for case in ("anna", "berta"):
        image = sitk.ReadImage(str(place.root / f"out/{case}_body.nii.gz"))
        array = sitk.GetArrayFromImage(image)
        array[: len(array) // 2] = 0
        mask = sitk.GetImageFromArray(array)
        mask.CopyInformation(image)
        sitk.WriteImage(mask, str(place.root / f"masks/{case}.nii.gz"))
    spoil(place.root / name)
    place.code, place.says = code, says
    place.run(
        "evaluate", "-i", place.root / "out", "-r", place.root / "masks", "-np", 1,
        "--no_bootstrap", "-o", place.root / "figures",
    )  # fmt: skip


@pytest.mark.situation(
    "a mask, a body mask or a map is cut to a half", 0, "anna.*the file is cut short"
)
@pytest.mark.parametrize("name", ["masks/anna.nii.gz", "out/anna_body.nii.gz", "out/anna.nii.gz"])
def test_half_a_mask(place: Any, half: Half, name: str) -> None:
    _evaluated(place, half, name)


def _change(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        image = sitk.ReadImage(str(path))
        made = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
        made.CopyInformation(image)
        sitk.WriteImage(made, str(path))

    return spoil


@pytest.mark.situation(
    "a mask holds 1e-6 everywhere",
    0,
    "anna.*values such as 1e-06, but a mask holds whole numbers: give 0 and 1, or threshold it",
)
def test_faint_mask(place: Any) -> None:
    _evaluated(place, _change(lambda a: np.full(a.shape, 1e-6, np.float32)))


@pytest.mark.situation("a mask has another origin than its map", 0, "anna.*differ in origin")
def test_moved_mask(place: Any) -> None:
    def move(path: Path) -> None:
        image = sitk.ReadImage(str(path))
        image.SetOrigin([value + 3 for value in image.GetOrigin()])
        sitk.WriteImage(image, str(path))

    _evaluated(place, move)


@pytest.mark.situation("values are HU + 1024", 1, "looks like HU \\+ 1024: subtract 1024")
@pytest.mark.parametrize("padding", [None, -2000, -1])
def test_stored_values(place: Any, padding: int | None) -> None:
    def shift(array: np.ndarray) -> np.ndarray:
        array = array + 1024
        if padding == -1:
            array[0, 0, 0] = -1
        elif padding is not None:
            array[:, :2] = padding
        return array

    place.person(change=shift)
    place.predict()


@pytest.mark.situation("values are HU - 1024", 1, "looks like HU - 1024: add 1024")
def test_offset_twice(place: Any) -> None:
    place.person(change=lambda a: a - 1024)
    place.predict()


@pytest.mark.situation(
    "values lie in [-1, 1]",
    1,
    "all values lie between -1 and 0.*, so this is not CT in Hounsfield units",
)
def test_normalised_values(place: Any) -> None:
    place.person(change=lambda a: np.clip(a / 1000, -1, 1).astype(np.float32))
    place.predict()


@pytest.mark.situation(
    "the padding outside of the field of view is 0", 1, "are exactly 0, which in HU is water"
)
def test_padding_of_water(place: Any) -> None:
    def pad(array: np.ndarray) -> np.ndarray:
        array[:, :3] = array[:, -3:] = array[:, :, :3] = array[:, :, -3:] = 0
        return array

    place.person(change=pad)
    place.predict()


@pytest.mark.situation(
    "DICOM without rescale tags, so that values are HU + 1024", 1, "looks like HU \\+ 1024"
)
def test_dicom_without_rescaling(place: Any, write_dicom: Any) -> None:
    source = sorted((place.world.raw / "imagesTr").iterdir())[0]
    image = sitk.DICOMOrient(sitk.ReadImage(str(source)), "LPS")
    array = np.rint(sitk.GetArrayFromImage(image)).astype(np.int16)

    place.own_raw()

    def strip(one: Any, _: int) -> None:
        del one.RescaleIntercept, one.RescaleSlope

    spacing = image.GetSpacing()[::-1]
    write_dicom(place.root / "export", array, spacing=spacing, change=strip)
    place.run("import_data", "-i", place.root / "export", "-d", 510, "--name", "My", "-np", 0)
    assert not list((place.world.root / "raw/Dataset510_My").glob("imagesTr/*.nii.gz"))


def _header(place: Any, change: Callable[[bytearray], None]) -> None:
    """A scan whose NIfTI header was changed byte by byte."""
    path = place.person("in/anna.nii")
    content = bytearray(path.read_bytes())
    change(content)
    place.mine(path, bytes(content))


def _affines(path: Path) -> np.ndarray:
    return nibabel.load(path).affine


@pytest.mark.situation(
    "qform and sform of a NIfTI file say 9 and 27 mm",
    0,
    "anna: .*its header contradicts itself: read with voxels of .* mm, which differs from its",
)
def test_contradicting_spacing(place: Any) -> None:
    def stretch(content: bytearray) -> None:
        for start in (280, 296, 312):
            row = struct.unpack_from("<4f", content, start)
            struct.pack_into("<4f", content, start, row[0] * 3, *row[1:])

    _header(place, stretch)
    place.predict()


@pytest.mark.situation(
    "a sform turns the axes and the qform does not", 0, "anna: .*its header contradicts itself"
)
def test_contradicting_axes(place: Any) -> None:
    def turn(content: bytearray) -> None:
        x, y = (struct.unpack_from("<4f", content, start) for start in (280, 296))
        struct.pack_into("<4f", content, 280, -x[0], -x[1], x[2], x[3])
        struct.pack_into("<4f", content, 296, -y[0], -y[1], y[2], y[3])

    _header(place, turn)
    place.predict()


@pytest.mark.situation("neither qform nor sform is set", 0, "does not say how it lies: taken as")
def test_no_placement(place: Any) -> None:
    _header(place, lambda content: struct.pack_into("<2h", content, 252, 0, 0))
    place.predict()


@pytest.mark.situation("a voxel size is 0, NaN or negative", 1, "skipped anna: .*voxel sizes are")
@pytest.mark.parametrize("size", [0.0, float("nan"), -3.0])
def test_size_of_nothing(place: Any, size: float) -> None:
    _header(place, lambda content: struct.pack_into("<f", content, 88, size))
    place.predict()


def _sheared(path: Path) -> None:
    """Stores a scan with axes that are no right angles, as a converter leaves a tilted gantry."""
    slope = 0.3
    if path.suffix == ".nii":
        content = bytearray(path.read_bytes())
        row = struct.unpack_from("<4f", content, 296)
        struct.pack_into("<2h", content, 252, 0, 1)
        struct.pack_into("<4f", content, 296, row[0], row[1], slope * 12, row[3])
        path.write_bytes(content)
        return
    key = {".mha": b"TransformMatrix = ", ".nrrd": b"space directions: "}[path.suffix]
    value = {
        ".mha": b"1 0 0 0 1 0 0 0.2873 0.9578",
        ".nrrd": b"(9,0,0) (0,9,0) (0,3.6,12)",
    }[path.suffix]
    head, _, rest = path.read_bytes().partition(key)
    path.write_bytes(head + key + value + rest[rest.index(b"\n") :])


@pytest.mark.situation(
    "the axes of a NIfTI, MHA or NRRD file are sheared, as those of a tilted gantry",
    1,
    "skipped anna: .*axes are sheared by 1[67].* degrees",
)
@pytest.mark.parametrize("ending", ["nii", "mha", "nrrd"])
def test_sheared_axes(place: Any, ending: str) -> None:
    path = place.person(f"in/anna.{ending}")
    _sheared(path)
    place.mine(path)
    place.predict()


@pytest.mark.situation(
    "a raw scan was replaced since it was prepared", 0, "1 scan was replaced since it was prepared"
)
@pytest.mark.parametrize("words", [(), ("--verify_dataset_integrity",)])
def test_replaced_scan(planned: Any, words: tuple[str, ...]) -> None:
    planned.own_raw()
    path = sorted((planned.world.raw / "imagesTr").iterdir())[1]
    before = planned.world.cases / f"{path.name.removesuffix('_0000.nii.gz')}_hu.b2nd"
    was = before.read_bytes()
    _change(lambda a: np.where(a > -500, a + 20, a))(path)
    planned.run("plan_and_preprocess", "-d", 901, "--preset", "cpu", "--num_test", 1, *words)
    assert before.read_bytes() != was


@pytest.mark.situation(
    "a stored map of an earlier run holds NaN, and findings are asked for",
    1,
    "skipped anna: .*anna.nii.gz is not ours, or changed since we wrote it",
)
def test_stored_map_of_nan(place: Any) -> None:
    place.person()
    place.code, says, place.says = 0, place.says, ()
    place.predict()
    path = place.root / "out/anna.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[352:356] = struct.pack("<f", float("nan"))
    path.write_bytes(gzip.compress(bytes(content)))
    place.code, place.says = 1, says
    place.predict("--threshold", 5, "--findings")
    assert not list(place.root.glob("out/anna_findings*"))
