"""Samples: the same whatever process reads them, whenever a run starts, however many ranks."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.case_files import CaseFolder, write_case
from screener_nnu.preprocessing.pictures import write_picture
from screener_nnu.preprocessing.prepare import prepare_image
from screener_nnu.preprocessing.reading import read_image
from screener_nnu.sampling.crops import Box, intersect
from screener_nnu.trainers import reading
from screener_nnu.trainers.density_maps import CropReader
from screener_nnu.trainers.loading import step_batches
from screener_nnu.trainers.reading import CaseReader, PairReader, read_padded

NAMES = tuple(f"phantom_{i:04d}" for i in range(6))


def pair_reader(world: Any, draws: int = 1) -> PairReader:
    size, scale = (12.0, 16.0, 16.0), (2 / 3, 4 / 3)
    return PairReader(world.cases, NAMES, 5, "descriptor", size, scale, 0.0, draws=draws)


@pytest.fixture
def pairs(world: Any) -> PairReader:
    return pair_reader(world)


def assert_same(first: Any, second: Any) -> None:
    assert first.boxes == second.boxes
    for one, other in zip((*first.images, first.body), (*second.images, second.body), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_of_several_pairs_the_one_that_shares_most_body_is_read(
    world: Any, pairs: PairReader
) -> None:
    """With the draws of a pair that is read alone among them."""
    chosen = pair_reader(world, draws=6)

    def shared_body(sample: Any) -> int:
        first, shared = sample.boxes[0], intersect(*sample.boxes)
        local = np.subtract(shared.start, first.start)
        window = tuple(slice(o, o + n) for o, n in zip(local, shared.size, strict=True))
        return int(sample.body[window].sum())

    alone, best = ([shared_body(r[i]) for i in range(12)] for r in (pairs, chosen))
    assert all(b >= a for a, b in zip(alone, best, strict=True))
    assert np.mean(best) > 1.3 * np.mean(alone)
    assert_same(chosen[3], chosen[3])


def batches(reader: Any, count: int, **changes: int) -> list[list[Any]]:
    arguments = {
        "volumes": 4,
        "first_step": 0,
        "rank_offset": 0,
        "volumes_of_rank": 4,
        "workers": 0,
        **changes,
    }
    return list(islice(step_batches(reader, **arguments), count))


def test_workers_and_first_step_change_nothing(pairs: PairReader) -> None:
    alone = batches(pairs, 4)
    helped = batches(pairs, 3, workers=2, first_step=1)
    for one, other in zip(alone[1:], helped, strict=True):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    for index, sample in enumerate(s for batch in alone for s in batch):
        assert_same(sample, pairs[index])
    assert alone[0][0].boxes != alone[1][0].boxes


def test_shares_of_the_ranks_are_the_whole_batch(pairs: PairReader) -> None:
    whole = batches(pairs, 2)
    shares = [batches(pairs, 2, rank_offset=2 * r, volumes_of_rank=2) for r in range(2)]
    for step in range(2):
        joined = shares[0][step] + shares[1][step]
        for one, other in zip(whole[step], joined, strict=True):
            assert_same(one, other)


class Names(CaseReader[tuple[str, int]]):
    """The case that an index stands for, and the first draw of its generator."""

    def read(self, case: str, generator: np.random.Generator) -> tuple[str, int]:
        return case, int(generator.integers(2**40))


def test_each_pass_is_a_permutation(tmp_path: Path) -> None:
    reader = Names(tmp_path, NAMES, 1, "descriptor")
    passes = [[reader[6 * turn + i][0] for i in range(6)] for turn in range(8)]
    assert all(sorted(names) == list(NAMES) for names in passes)
    assert len({tuple(names) for names in passes}) > 5
    draws = {reader[i][1] for i in range(48)}
    assert len(draws) == 48
    for other in (Names(tmp_path, NAMES, 2, "descriptor"), Names(tmp_path, NAMES, 1, "density")):
        assert [reader[i] for i in range(12)] != [other[i] for i in range(12)]


def test_unreadable_case_is_reported_and_replaced(
    world: Any, pairs: PairReader, caplog: pytest.LogCaptureFixture
) -> None:
    before = [pairs[index] for index in range(6)]
    order = [Names(world.cases, NAMES, 5, "descriptor")[index][0] for index in range(6)]
    broken = NAMES[2]
    (world.cases / f"{broken}_equalised.b2nd").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING):
        after = [pairs[index] for index in range(6)]
    assert len(caplog.messages) == 1
    assert f"left out: {broken}: " in caplog.messages[0]
    for name, one, other in zip(order, before, after, strict=True):
        if name == broken:
            stored = CaseFolder(world.cases).read(NAMES[3], "body")
            np.testing.assert_array_equal(other.body, cut(stored, other.boxes[0], 0))
        else:
            assert_same(one, other)
    for name in NAMES:
        (world.cases / f"{name}_equalised.b2nd").unlink()
    with pytest.raises(ScreenerError, match=f"no case in {world.cases} can be used"):
        pairs[0]


def test_case_whose_crops_share_no_body_is_reported_and_replaced(
    pairs: PairReader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A step without a shared voxel would have no loss."""
    order = [Names(pairs.folder, NAMES, 5, "descriptor")[index][0] for index in range(6)]
    thin = order[0]

    def without_body(cases: CaseFolder, case: str, kind: Any, box: Box, fill: float) -> np.ndarray:
        found = read_padded(cases, case, kind, box, fill)
        return np.zeros_like(found) if (case, kind) == (thin, "body") else found

    monkeypatch.setattr(reading, "read_padded", without_body)
    with caplog.at_level(logging.WARNING):
        sample = pairs[0]
    assert sample.body.any()
    assert [m for m in caplog.messages if f"{thin}: 20 pairs of crops share less than 32" in m]


def cut(volume: np.ndarray, box: Box, fill: float) -> np.ndarray:
    """A box of a volume that goes on for ever with one value."""
    margin = 60
    wide = np.pad(volume, margin, constant_values=fill)
    return wide[
        tuple(slice(a + margin, b + margin) for a, b in zip(box.start, box.stop, strict=True))
    ]


@pytest.mark.parametrize(
    "box",
    [
        Box((2, 3, 4), (5, 6, 7)),
        Box((-2, 3, 4), (5, 6, 50)),
        Box((2, -6, -1), (60, 8, 9)),
        Box((-3, -4, -5), (50, 55, 58)),
    ],
)
def test_outside_of_the_volume_is_filled(world: Any, box: Box) -> None:
    cases = CaseFolder(world.cases)
    for kind, fill in (("hu", -1024), ("equalised", 0), ("body", 0)):
        found = read_padded(cases, NAMES[0], kind, box, fill)  # type: ignore[arg-type]
        stored = cases.read(NAMES[0], kind)  # type: ignore[arg-type]
        assert found.dtype == stored.dtype
        np.testing.assert_array_equal(found, cut(stored, box, fill))


def test_pair_holds_what_its_boxes_say_and_shares_some_body(world: Any, pairs: PairReader) -> None:
    cases = CaseFolder(world.cases)
    order = Names(world.cases, NAMES, 5, "descriptor")
    for index in range(12):
        sample, case = pairs[index], order[index][0]
        for box, image in zip(sample.boxes, sample.images, strict=True):
            np.testing.assert_array_equal(image, cut(cases.read(case, "equalised"), box, 0))
        shared = intersect(*sample.boxes)
        body = cases.read(case, "body")
        np.testing.assert_array_equal(sample.body, cut(body, sample.boxes[0], 0))
        assert cut(body, shared, 0).sum() >= 32


def test_crops_of_a_finer_store_state_their_place_on_the_plans_grid(world: Any) -> None:
    folder = world.preprocessed / "Fine_screener"
    settings = world.plan(plans="Fine").settings.preprocessing
    factor = tuple(np.divide(settings.storage_spacing, settings.spacing))
    reader = CropReader(folder, NAMES, 5, "density", (12, 16, 16), factor)
    cases, order = CaseFolder(folder), Names(folder, NAMES, 5, "density")
    for index in range(6):
        sample = reader[index]
        assert sample.case == order[index][0]
        stored_size = tuple(sample.image.shape[1:])
        exact = np.divide((12, 16, 16), factor)
        assert np.abs(np.array(stored_size) - exact).max() <= 0.5
        assert sample.size == (12, 16, 16)
        hu = cases.shape(sample.case, "hu")
        assert np.abs(np.subtract(sample.extent, hu)).max() <= 1
        # Its place, in stored voxels, is where the image was cut.
        guess = np.rint(np.divide(sample.start, factor)).astype(int)
        stored = cases.read(sample.case, "equalised")
        offsets = [
            guess + np.array(shift)
            for shift in np.ndindex(3, 3, 3)
            if (guess + np.array(shift) - 1 >= 0).all()
        ]
        found = [
            stored[tuple(slice(a - 1, a - 1 + n) for a, n in zip(o, stored_size, strict=True))]
            for o in offsets
        ]
        assert any(
            f.shape == stored_size and np.array_equal(f, sample.image[0].numpy()) for f in found
        )


def test_padding_of_colours_is_beside_the_planes(tmp_path: Path) -> None:
    pixels = np.arange(3 * 20 * 24).reshape(3, 20, 24) % 251
    write_picture(pixels.astype(np.uint8), tmp_path / "a.png")
    raw = read_image(tmp_path / "a.png", "a", "picture")
    spacing, window = (999.0, 1.0, 1.0), (0.0, 255.0)
    settings = PreprocessingSettings(
        spacing, spacing, window, window, -1.0, equalisation="none", modality="picture"
    )
    write_case(tmp_path / "cases", "a", prepare_image(raw, settings))
    box = Box((0, -3, 10), (1, 12, 30))
    found = read_padded(CaseFolder(tmp_path / "cases"), "a", "hu", box, 7.0)
    expected = np.full((3, 1, 12, 30), 7.0)
    expected[:, 0, 3:, :14] = pixels[:, :9, 10:]
    np.testing.assert_array_equal(found, expected)
