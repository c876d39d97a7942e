"""What a run will cost, from a few scans: arithmetic, and a command that leaves nothing behind."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screener_nnu.commands.plan_and_preprocess import main
from screener_nnu.estimate.estimate import Line, _Run, _shorten, training_seconds
from screener_nnu.estimate.phases import EPOCH, FIGURE, Measured, Stopwatch
from screener_nnu.estimate.report import describe, size_of, time_of
from screener_nnu.estimate.sample import sampled
from screener_nnu.locks import only_one
from screener_nnu.preprocessing.pictures import write_picture
from screener_nnu.trainers.density import DensityTrainer
from screener_nnu.trainers.distillation import DistillationTrainer


def test_a_training_is_its_phases_multiplied() -> None:
    """Two epochs were tried on 5 scans; 10 epochs of 100 steps on 50 scans are to be told."""
    found = Measured(
        Counter({"make_ready": 1, FIGURE: 3, EPOCH: 2, "calibrate": 1}),
        {"make_ready": 10.0, FIGURE: 6.0, EPOCH: 1.0, "calibrate": 3.0},
        step=0.5,
        rest=7.0,
    )
    tried = {"make_ready": 5, "calibrate": 3}
    whole = {"make_ready": 50, "calibrate": 12}
    seconds, work = training_seconds(found, tried, whole, 1000, 100)
    # Rest, steps, maps, figures of 10 epochs and of the untrained network, epochs, calibration.
    assert seconds == pytest.approx(7 + 500 + 100 + 2 * 11 + 0.5 * 10 + 12)
    assert work == "1000 steps of 0.50 s, networks on 50 scans"


def test_what_is_fitted_has_no_epochs() -> None:
    found = Measured(Counter({"prepare": 1}), {"prepare": 4.0}, rest=1.0)
    seconds, work = training_seconds(found, {"prepare": 2}, {"prepare": 20}, 1000, 100)
    assert seconds == pytest.approx(41) and work.startswith("fitted in one pass")


def test_a_phase_does_not_count_what_another_one_within_it_takes() -> None:
    class Owner:
        def outer(self) -> str:
            time.sleep(0.05)
            self.inner()
            return "done"

        def inner(self) -> None:
            time.sleep(0.2)

    owner, watch = Owner(), Stopwatch(("outer", "inner"))
    for name in ("outer", "inner"):
        watch.watch(owner, name)
    assert owner.outer() == "done"
    assert watch.calls == {"outer": 1, "inner": 1}
    assert 0.05 <= watch.seconds["outer"] < 0.2 <= watch.seconds["inner"]


def test_phases_grow_with_the_scans_that_they_go_through(world: Any) -> None:
    settings = world.plan("density.whole_scans=true").settings
    split = settings.split
    stored = len(split.train) + len(split.validation)
    found = DensityTrainer.scans_of_phases(settings)
    assert found["make_ready"] == stored + 5 * len(split.validation)
    crops = DensityTrainer.scans_of_phases(world.plan().settings)
    assert crops["make_ready"] == 5 * len(split.validation) and "prepare" not in crops
    fitted = world.plan("density.kind=knn", "density.max_scans=2").settings
    assert DensityTrainer.scans_of_phases(fitted)["prepare"] == 2
    assert DistillationTrainer.scans_of_phases(settings)["make_ready"] == stored


@pytest.mark.parametrize("most", [10, 20, 0, 99])
def test_a_density_looks_at_the_same_part_of_the_sample(world: Any, most: int) -> None:
    """Its training scans stand for 30; the student's stage likewise."""
    path = world.preprocessed / "ScreenerPlans.json"
    plan = world.plan(f"density.max_scans={most}", f"distillation.max_scans={most}")
    path.write_text(json.dumps(plan.to_dict()))
    split = replace(plan.settings.split, train=tuple(map(str, range(30))))
    run = _Run([], replace(plan.settings, split=split), 1)
    names = {*plan.settings.split.train, *plan.settings.split.validation}
    _shorten(plan.dataset, "ScreenerPlans", run)
    short = world.plan(plans="ScreenerEstimate").settings
    assert len(short.split.train) + len(short.split.validation) == len(names)
    part = max(1, round(most * len(short.split.train) / 30))
    expected = part if 0 < most < 30 else most
    assert short.density.max_scans == short.distillation.max_scans == expected


def test_a_sample_lists_images_where_they_lie_and_goes_again(made_world: Any, world: Any) -> None:
    before = dict(os.environ)
    with sampled(["901"], 4) as sample:
        assert [len(of) for of in sample.chosen.values()] == [4]
        assert all(path.is_file() for path in sample.images.values())
        assert not list((sample.root / "raw").rglob("*.nii.gz"))
        assert os.environ["nnUNet_raw"] == str(sample.root / "raw")
        root = sample.root
    assert not root.exists()
    assert {k: os.environ[k] for k in before if k.startswith("nnUNet")} == {
        k: v for k, v in before.items() if k.startswith("nnUNet")
    }


def test_what_a_killed_estimate_left_is_removed_by_the_next(world: Any) -> None:
    left = world.root / "preprocessed" / ".screener_estimate" / "raw" / "half"
    left.mkdir(parents=True)
    with sampled(["901"], 2) as sample:
        assert not left.exists() and sample.root.is_dir()


def test_the_command_tells_and_writes_nothing(
    world: Any,
    tiny_settings: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def state() -> dict[Path, int]:
        files = (path for path in world.root.rglob("*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in files if path.suffix != ".lock"}

    before = state()
    words = ["-d", "901", "--preset", "cpu", "--width", "4", "-np", "1", "--num_test", "1"]
    main([*words, *tiny_settings("pretext.images_per_step=2"), "--estimate", "-device", "cpu"])
    said = capsys.readouterr().out
    for name in ("reading", "preparing", "descriptor", "condition", "density", "distillation"):
        assert f"\n{name} " in said, said
    assert "6 scans" in said and "4 steps of" in said and "\nprediction " in said
    assert state() == before


def test_the_table() -> None:
    lines = [
        Line("reading", "9 scans", 30.0),
        Line("descriptor", "80 steps", 90.0, 3e9, 2e9, 5e9),
        Line("prediction", "of each scan", 0.25, 7e5),
    ]
    rows = describe(lines).splitlines()
    assert rows[-2].split("  ")[0] == "all of it" and "2 min" in rows[-2] and "3.0 GB" in rows[-2]
    assert "5.0 GB" in rows[-2] and "0.7 MB" in rows[-1]
    assert [time_of(s) for s in (9, 600, 9000)] == ["9.0 s", "10 min", "2.5 h"]
    assert [size_of(n) for n in (0, 2e6, 3e12)] == ["-", "2.0 MB", "3.0 TB"]


def test_another_estimate_is_not_waited_for(world: Any) -> None:
    lock = world.root / "preprocessed" / ".screener_estimate.lock"
    with only_one(lock, "nnUNet_preprocessed", "estimating"):
        with pytest.raises(SystemExit):
            main(["-d", "901", "--estimate", "-device", "cpu"])


@pytest.mark.long
def test_pictures_are_read_as_what_their_data_set_says(
    empty_world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = empty_world.root / "raw" / "Dataset905_Photos"
    (folder / "imagesTr").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(14):
        pixels = rng.integers(20, 250, (1, 60, 90), dtype=np.uint8)
        write_picture(pixels, folder / "imagesTr" / f"photo_{number:02d}_0000.png")
    values = {"channel_names": {"0": "grey"}, "labels": {"background": 0}, "numTraining": 14}
    values |= {"file_ending": ".png", "modality": "picture"}
    (folder / "dataset.json").write_text(json.dumps(values))
    contrast = ("channels=4", "head_width=32", "volumes_per_step=2", "positives=64")
    settings = [f"{s}.{c}" for s in ("descriptor", "condition.contrast") for c in contrast]
    settings += ["low_precision_cpu=false", "density.hidden=8", "density.flow_steps=2"]
    words = ["-d", "905", "--preset", "cpu", "--width", "4", "--picture_size", "48", "64"]
    words += [word for setting in settings for word in ("-o", setting)]
    main([*words, "-np", "1", "--estimate", "-device", "cpu"])
    said = capsys.readouterr().out
    assert "14 scans" in said and "\ndistillation " in said and "\nprediction " in said
