"""Maps of pictures (.tif) against masks (.png), by the command, beside scikit-learn and SciPy."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import skimage.io
import tifffile
from scipy import ndimage
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from screener_nnu.commands.evaluate import main
from screener_nnu.evaluation.baselines import PICTURE_BASELINES, BaselineInput

SIZES = {"a": (40, 52), "b": (61, 33), "well": (40, 52), "rgb": (45, 45)}
THRESHOLD = 0.8


class Picture:
    def __init__(self, case: str, size: tuple[int, int]) -> None:
        rng = np.random.default_rng(sorted(SIZES).index(case))
        self.body = np.zeros(size, dtype=bool)
        self.body[2:-3, 4:-1] = True
        seeds = (rng.random(size) < 0.004) & (case != "well")
        self.mask = ndimage.binary_dilation(seeds, iterations=3)
        self.score = (rng.normal(size=size) + 1.5 * self.mask).astype(np.float32)
        channels = (3,) if case == "rgb" else ()
        self.image = rng.integers(0, 256, (*size, *channels)).astype(np.uint8)
        self.counted = self.body | self.mask

    def write(self, root: Path, case: str) -> None:
        for folder in ("maps", "masks", "images"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(root / "maps" / f"{case}.tif", self.score, compression="zlib")
        save(root / "maps" / f"{case}_body.png", self.body.astype(np.uint8))
        save(root / "maps" / f"{case}_overlay.png", self.image)
        save(root / "masks" / f"{case}.png", self.mask.astype(np.uint8))
        save(root / "images" / f"{case}_0000.png", self.image)

    def baseline(self, name: str) -> np.ndarray:
        grey = self.image.reshape(*self.body.shape, -1).astype(np.float32).mean(-1)
        given = BaselineInput(grey[None], self.body[None], (1.0, 1.0, 1.0))
        return PICTURE_BASELINES[name](given)[0]


def save(path: Path, array: np.ndarray) -> None:
    skimage.io.imsave(path, array, check_contrast=False)


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Picture]:
    made = {case: Picture(case, size) for case, size in SIZES.items()}
    for case, picture in made.items():
        picture.write(tmp_path, case)
    return made


def evaluate(root: Path, *more: str) -> dict:
    words = ["-i", str(root / "maps"), "-r", str(root / "masks"), "-o", str(root / "out")]
    main([*words, "-np", "1", *more])
    return json.loads((root / "out" / "summary.json").read_text())


def test_figures_equal_those_of_the_pixels(tmp_path: Path, pictures: dict[str, Picture]) -> None:
    words = ["--images", str(tmp_path / "images"), "--threshold", str(THRESHOLD)]
    summary = evaluate(tmp_path, *words)
    assert summary["cases"] == sorted(SIZES) and not summary["skipped"]
    assert list(summary["methods"]) == ["screener", *PICTURE_BASELINES]
    annotated = np.concatenate([p.mask[p.counted] for p in pictures.values()])
    for method, figures in summary["methods"].items():
        scores = np.concatenate(
            [
                (p.score if method == "screener" else p.baseline(method))[p.counted]
                for p in pictures.values()
            ]
        )
        assert figures["voxels"] == scores.size and figures["annotated"] == annotated.sum()
        auroc = roc_auc_score(annotated, scores)
        assert figures["auroc"] == pytest.approx(auroc, abs=1e-6)
        precision = average_precision_score(annotated, scores)
        assert figures["average_precision"] == pytest.approx(precision, abs=1e-6)
        interval = figures["intervals_95"]["aupro_fpr30"]
        assert interval["low"] <= interval["high"]
        if method == "screener":
            found = scores > np.float32(THRESHOLD)
            assert figures["dice"] == pytest.approx(f1_score(annotated, found), abs=1e-9)
            assert figures["iou"] == pytest.approx(jaccard_score(annotated, found), abs=1e-9)
            lesions = [ndimage.label(p.mask, np.ones((3, 3)))[1] for p in pictures.values()]
            assert figures["lesions"] == sum(lesions)


def test_least_volumes_are_pixels(tmp_path: Path, pictures: dict[str, Picture]) -> None:
    sizes = []
    for picture in pictures.values():
        labelled, number = ndimage.label(picture.mask, np.ones((3, 3)))
        sizes += ndimage.sum_labels(picture.mask, labelled, range(1, number + 1)).tolist()
    largest = max(sizes)
    summary = evaluate(tmp_path, "--min_volume", str(largest), "--no_bootstrap")
    assert "froc" not in summary["undefined"]
    summary = evaluate(tmp_path, "--min_volume", str(largest + 1), "--no_bootstrap")
    assert "no lesion" in summary["undefined"]["froc"]


def test_pictures_that_do_not_fit_are_named(tmp_path: Path, pictures: dict[str, Picture]) -> None:
    for case in ("smaller", "turned", "cut", "no_body", "no_image"):
        Picture("a", SIZES["a"]).write(tmp_path, case)
    save(tmp_path / "masks" / "smaller.png", np.zeros((39, 52), np.uint8))
    save(tmp_path / "images" / "turned_0000.png", np.zeros((52, 40), np.uint8))
    cut = tmp_path / "maps" / "cut.tif"
    cut.write_bytes(cut.read_bytes()[:-3000])
    (tmp_path / "maps" / "no_body_body.png").unlink()
    (tmp_path / "images" / "no_image_0000.png").unlink()
    save(tmp_path / "masks" / "no_map.png", np.zeros((9, 9), np.uint8))
    words = ["--images", str(tmp_path / "images"), "--no_bootstrap"]
    skipped = evaluate(tmp_path, *words)["skipped"]
    expected = {
        "smaller": "differ in size: (52, 39, 1) and (52, 40, 1)",
        "turned": "differ in size: (40, 52) and (52, 40)",
        "cut": "cannot be read",
        "no_body": "no body mask",
        "no_image": "no picture",
        "no_map": "no anomaly map",
    }
    assert set(skipped) == set(expected)
    for case, reason in expected.items():
        assert reason in skipped[case]


def test_scans_and_pictures_stay_apart(
    tmp_path: Path, pictures: dict[str, Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "maps" / "scan.nii.gz").write_bytes(b"")
    with pytest.raises(SystemExit):
        evaluate(tmp_path)
    assert "maps of scans as well" in capsys.readouterr().err


def test_rows_of_cases(tmp_path: Path, pictures: dict[str, Picture]) -> None:
    evaluate(tmp_path, "--no_bootstrap", "--threshold", str(THRESHOLD))
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert rows["well"]["iou"] == "" and rows["well"]["best_iou"] == ""
    picture = pictures["rgb"]
    mask, score = picture.mask[picture.counted], picture.score[picture.counted]
    overlap = jaccard_score(mask, score > np.float32(THRESHOLD))
    assert float(rows["rgb"]["iou"]) == pytest.approx(overlap)
    best = max(jaccard_score(mask, score >= t) for t in np.unique(score))
    assert float(rows["rgb"]["best_iou"]) == pytest.approx(best)


def test_remarks_on_many_cases_are_one_line(
    tmp_path: Path, pictures: dict[str, Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        Picture("well", SIZES["well"]).write(tmp_path, f"well_{number:02d}")
    summary = evaluate(tmp_path, "--no_bootstrap")
    assert len(summary["notes"]) == 13
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert line.startswith("note on 13: well, well_00, ") and "and 3 more: no voxel" in line
