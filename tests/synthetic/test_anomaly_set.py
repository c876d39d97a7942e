"""A test set on disk: geometry, seeds, going on, broken scans."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from sklearn.metrics import roc_auc_score

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import write_json
from screener_nnu.preprocessing.body import body_mask
from screener_nnu.synthetic import (
    BlobSettings,
    anomaly_set,
    generate_phantom,
    synthesize_test_set,
    write_phantom_dataset,
)
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.anomaly_positions import positions


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("raw")
    folder = write_phantom_dataset(folder, "Dataset900_Phantom", 3, 2, spacing=(5.0, 4.0, 4.0))
    paths = sorted((folder / "imagesTr").iterdir())
    return {path.name.removesuffix("_0000.nii.gz"): path for path in paths}


def outputs(folder: Path, kind: str, case: str) -> tuple[Path, Path, Path]:
    return (
        folder / kind / "images" / f"{case}_0000.nii.gz",
        folder / kind / "masks" / f"{case}.nii.gz",
        folder / kind / "placements" / f"{case}.json",
    )


def check_case(source: sitk.Image, image: sitk.Image, mask: sitk.Image, kind: str) -> None:
    """Geometry, type, body and mask, on what was written."""
    for written in (image, mask):
        assert written.GetSize() == source.GetSize()
        np.testing.assert_allclose(written.GetSpacing(), source.GetSpacing(), rtol=1e-5)
        np.testing.assert_allclose(written.GetOrigin(), source.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(written.GetDirection(), source.GetDirection(), atol=1e-5)
    assert image.GetPixelID() == sitk.sitkInt16 and mask.GetPixelID() == sitk.sitkUInt8
    before, after, truth = (
        sitk.GetArrayFromImage(sitk.DICOMOrient(i, "LPS")) for i in (source, image, mask)
    )
    body = body_mask(before.astype(np.float32), sitk.DICOMOrient(source, "LPS").GetSpacing()[::-1])
    assert (before == after)[~body].all() and not truth[~body].any()
    changed = before != after
    assert changed[truth > 0].mean() > (0.7 if kind == "deformation" else 0.9)
    # Outside the mask lies only the outer half of the soft edge.
    assert changed[truth == 0].sum() < 4 * truth.sum() and truth.sum() > 0


def check_test_set(images: dict[str, Path], output: Path, limit: float = 0.6) -> None:
    report = json.loads((output / "placement.json").read_text())
    for kind in KINDS:
        depths, truths = [], []
        for case, path in images.items():
            files = outputs(output, kind, case)
            source, image, mask = (sitk.ReadImage(str(p)) for p in (path, *files[:2]))
            check_case(source, image, mask, kind)
            source, mask = (sitk.DICOMOrient(i, "LPS") for i in (source, mask))
            spacing = source.GetSpacing()[::-1]
            body = body_mask(sitk.GetArrayFromImage(source).astype(np.float32), spacing)
            depths.append(positions(body, spacing)["skin_depth"])
            truths.append(sitk.GetArrayFromImage(mask)[body] > 0)
        assert (output / kind / "preview.png").stat().st_size > 1000
        figures = report["kinds"][kind]["pooled_auroc"]
        assert max(figures.values()) < limit
        expected = roc_auc_score(np.concatenate(truths), np.concatenate(depths))
        assert figures["skin_depth_far"] == pytest.approx(expected, abs=3e-3)


@pytest.fixture(scope="module")
def test_set(images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out")
    synthesize_test_set(images, output, seed=5)
    return output


def test_what_is_written(images: dict[str, Path], test_set: Path) -> None:
    check_test_set(images, test_set)
    report = json.loads((test_set / "placement.json").read_text())
    assert report["seed"] == 5 and report["settings"]["radius"] == [6.0, 20.0]
    for kind in KINDS:
        values = report["kinds"][kind]
        assert set(values["scans"]) == set(images) and not report["skipped"]
        assert values["anomalies"] == sum(len(s["blobs"]) for s in values["scans"].values())
    for case, record in report["kinds"]["pasted"]["scans"].items():
        assert record["donor"] != case and record["donor"] in images
    lesions = [b for s in report["kinds"]["hypodense"]["scans"].values() for b in s["blobs"]]
    assert all(-120.5 <= b["contrast_hu"] < 0 for b in lesions)


def test_places_that_give_anomalies_away_are_warned_of(
    images: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = sorted(images)[0]
    one = {name: images[name]}
    synthesize_test_set(one, tmp_path / "fair", seed=5, kinds=["constant"])
    assert "give the anomalies away" not in caplog.text
    # Counted in voxels, no set of blobs lies exactly as the body does.
    monkeypatch.setattr(anomaly_set, "POSITIONAL_LIMIT", 0.5)
    synthesize_test_set(one, tmp_path / "other", seed=5, kinds=["constant"])
    assert "constant: places give the anomalies away, " in caplog.text


def test_every_draw_depends_on_seed_name_and_kind_alone(
    images: dict[str, Path], test_set: Path, tmp_path: Path
) -> None:
    """One scan by itself, and two with another seed or another name."""
    name = sorted(images)[1]
    alone = {name: images[name]}
    kinds = [kind for kind in KINDS if kind != "pasted"]
    synthesize_test_set(alone, tmp_path / "alone", seed=5, kinds=kinds[::-1])
    for kind in kinds:
        for before, after in zip(
            outputs(test_set, kind, name), outputs(tmp_path / "alone", kind, name), strict=True
        ):
            assert before.read_bytes() == after.read_bytes()
    others = {"seed": (alone, 6), "name": ({"renamed": images[name]}, 5)}
    for change, (scans, seed) in others.items():
        synthesize_test_set(scans, tmp_path / change, seed=seed, kinds=["constant"])
        mask = outputs(tmp_path / change, "constant", next(iter(scans)))[1]
        assert mask.read_bytes() != outputs(test_set, "constant", name)[1].read_bytes()
    masks = [outputs(test_set, kind, name)[1].read_bytes() for kind in KINDS]
    assert len(set(masks)) == len(KINDS)


def test_donors_stay_when_scans_are_added(images: dict[str, Path]) -> None:
    from screener_nnu.synthetic.anomaly_case import donor_order

    cases = [f"case_{i:02d}" for i in range(20)]
    donors = {case: donor_order(case, cases[:19], 1)[0] for case in cases[:19]}
    later = {case: donor_order(case, cases, 1)[0] for case in cases[:19]}
    assert len(set(donors.values())) > 5
    assert all(later[case] in (donors[case], "case_19") for case in donors)
    assert sum(later[case] == donors[case] for case in donors) >= 15


def test_a_killed_run_goes_on(images: dict[str, Path], tmp_path: Path, test_set: Path) -> None:
    kinds = ["hyperdense", "deformation"]
    synthesize_test_set(images, tmp_path, seed=5, kinds=kinds)
    first, second = sorted(images)[:2]
    image, mask, record = outputs(tmp_path, "hyperdense", first)
    untouched = outputs(tmp_path, "hyperdense", second)[0]
    stamp = untouched.stat().st_mtime_ns
    wanted = image.read_bytes(), mask.read_bytes()
    record.unlink()
    image.unlink()
    settings = json.loads((test_set / "placement.json").read_text())["settings"]
    write_json(tmp_path / "placement.json", {"seed": 5, "settings": settings})
    report = synthesize_test_set(images, tmp_path, seed=5, kinds=["hyperdense"])
    assert (image.read_bytes(), mask.read_bytes()) == wanted and record.is_file()
    assert untouched.stat().st_mtime_ns == stamp
    assert set(report["kinds"]) == set(kinds) and len(report["kinds"]["hyperdense"]["scans"]) == 3
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]
    image.write_bytes(b"painted by hand")
    record.unlink()
    with pytest.raises(ScreenerError, match="is not ours, or changed since we wrote it"):
        synthesize_test_set(images, tmp_path, seed=5, kinds=["hyperdense"])
    assert image.read_bytes() == b"painted by hand"


def test_other_settings_are_refused(images: dict[str, Path], test_set: Path) -> None:
    before = (test_set / "placement.json").read_bytes()
    with pytest.raises(ScreenerError, match=r"seed 5 \(now 6\).*another folder"):
        synthesize_test_set(images, test_set, seed=6)
    with pytest.raises(ScreenerError, match="contrast"):
        synthesize_test_set(images, test_set, 5, settings=BlobSettings(contrast=(10.0, 20.0)))
    assert (test_set / "placement.json").read_bytes() == before


def test_a_broken_scan_is_named_and_skipped(
    images: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "torn_0000.nii.gz"
    broken.write_bytes(next(iter(images.values())).read_bytes()[:5000])
    scans = {"torn": broken} | images
    report = synthesize_test_set(scans, tmp_path / "out", seed=5, kinds=["pasted"])
    assert list(report["skipped"]) == ["torn"]
    assert any("torn is skipped" in message for message in caplog.messages)
    assert set(report["kinds"]["pasted"]["scans"]) == set(images)
    assert not outputs(tmp_path / "out", "pasted", "torn")[0].exists()
    with pytest.raises(ScreenerError, match="no scan could be used"):
        synthesize_test_set({"torn": broken}, tmp_path / "none", seed=5)


def test_oblique_geometry_is_kept(tmp_path: Path) -> None:
    """Axes permuted, flipped and tilted; centres of blobs are places in the patient."""
    phantom = generate_phantom(3, (6.0, 5.0, 5.0))
    image = sitk.GetImageFromArray(phantom.image_hu.transpose(2, 0, 1)[:, ::-1].copy())
    image.SetSpacing((5.0, 6.0, 5.0))
    angle = np.deg2rad(8)
    tilt = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    axes = np.vstack([tilt, [0, 0, 1]]) @ np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]])
    image.SetDirection(axes.ravel().tolist())
    image.SetOrigin((12.0, -30.0, 7.5))
    path = tmp_path / "tilted_0000.nii.gz"
    sitk.WriteImage(image, str(path))
    images = {"tilted": path}
    synthesize_test_set(images, tmp_path / "out", seed=1)
    check_test_set(images, tmp_path / "out", limit=0.65)
    written = sitk.ReadImage(str(outputs(tmp_path / "out", "constant", "tilted")[1]))
    record = json.loads(outputs(tmp_path / "out", "constant", "tilted")[2].read_text())
    for blob in record["blobs"]:
        index = np.array(written.TransformPhysicalPointToContinuousIndex(blob["centre_mm"]))
        voxels = np.argwhere(sitk.GetArrayViewFromImage(written).transpose(2, 1, 0))
        distance = np.linalg.norm((voxels - index) * written.GetSpacing(), axis=1)
        assert distance.min() < blob["radius_mm"]


def test_processes_change_nothing(images: dict[str, Path], test_set: Path, tmp_path: Path) -> None:
    synthesize_test_set(images, tmp_path, seed=5, kinds=["pasted"], processes=2)
    for case in images:
        both = outputs(test_set, "pasted", case)[0], outputs(tmp_path, "pasted", case)[0]
        assert both[0].read_bytes() == both[1].read_bytes()


def test_parts_are_the_whole_set(images: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "zz_0000.nii.gz"
    broken.write_bytes(b"no image")
    every = {**images, "zz": broken}  # the last of four: in part 1
    whole = synthesize_test_set(every, tmp_path / "whole", 3, ["pasted"])
    for part in (1, 0):
        joined = synthesize_test_set(every, tmp_path / "parts", 3, ["pasted"], part=part, parts=2)
        assert list(joined["skipped"]) == ["zz"]
    assert joined == whole
    for case in images:
        for one, other in zip(
            outputs(tmp_path / "whole", "pasted", case),
            outputs(tmp_path / "parts", "pasted", case),
            strict=True,
        ):
            assert one.read_bytes() == other.read_bytes()


@pytest.mark.skipif("SCREENER_TEST_DATA" not in os.environ, reason="SCREENER_TEST_DATA is not set")
def test_real_scans(tmp_path: Path) -> None:
    """Ten scans of the first raw dataset; artificial borders at -1024 HU included."""
    folder = min(Path(os.environ["SCREENER_TEST_DATA"]).glob("Dataset*"))
    paths = sorted((folder / "imagesTr").iterdir())[:10]
    images = {path.name.removesuffix("_0000.nii.gz"): path for path in paths}
    synthesize_test_set(images, tmp_path, seed=3)
    check_test_set(images, tmp_path)


def test_a_finished_image_that_was_changed_is_named(
    images: dict[str, Path], tmp_path: Path
) -> None:
    name, other = sorted(images)[:2]
    two = {name: images[name], other: images[other]}
    synthesize_test_set(two, tmp_path / "set", seed=5, kinds=["constant"])
    image = outputs(tmp_path / "set", "constant", name)[0]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    report = synthesize_test_set(two, tmp_path / "set", seed=5, kinds=["constant"])
    assert "is not ours, or changed since we wrote it" in report["skipped"][name]
    image.unlink()
    assert not synthesize_test_set(two, tmp_path / "set", seed=5, kinds=["constant"])["skipped"]
    assert image.read_bytes() == whole
