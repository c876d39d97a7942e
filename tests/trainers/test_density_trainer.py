"""The density stage against explicit NumPy on the same crops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.map_store import MapStore
from screener_nnu.networks.unet import build_unet
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.scoring.teacher import Teacher
from screener_nnu.trainers import density
from screener_nnu.trainers.score_statistics import case_scores
from screener_nnu.trainers.stages import trainer_of

CPU = torch.device("cpu")


def block_means(maps: np.ndarray, edge: int = 2) -> np.ndarray:
    """Means of blocks of the last three axes."""
    *rest, d, h, w = maps.shape
    blocks = maps.reshape(*rest, d // edge, edge, h // edge, edge, w // edge, edge)
    return blocks.mean(axis=(-5, -3, -1))


def explicit(trainer: Any, image: np.ndarray, body: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pooled y, c and body fraction of an image of the plan's spacing, filled up with air."""
    room = [(0, -n % m) for n, m in zip(image.shape, (2, 4, 4), strict=True)]
    padded = torch.from_numpy(np.pad(image.astype(np.float32), room))[None, None]
    with torch.no_grad():
        y = trainer.features.descriptor(padded)[0]
        both = torch.cat([padded, torch.ones_like(padded)], dim=1)
        c = trainer.features.condition.network(both)[0]
    pooled = [block_means(v.numpy().astype(np.float64)) for v in (y, c)]
    return (*pooled, block_means(np.pad(body.astype(np.float64), room)))


def parts(sample: Any) -> tuple[np.ndarray, np.ndarray]:
    return sample.image[0].numpy(), sample.image[1].numpy()


@pytest.fixture
def world(trained: Any) -> Any:
    return trained


def test_standardisation_is_that_of_the_statistics_crops(world: Any) -> None:
    trainer = world.trainer("density")
    trainer.prepare()
    reader = trainer._reader(trainer.settings.split.train, "density statistics")
    vectors: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    shares = []
    for index in range(16):
        y, c, inside = explicit(trainer, *parts(reader[index]))
        shares.append((inside > 0.5).mean())
        for kept, maps in zip(vectors, (y, c), strict=True):
            kept.append(maps[:, inside > 0.5])
    for name, kept in zip("yc", vectors, strict=True):
        joined = np.concatenate(kept, axis=1)
        state = trainer.model.state_dict()
        np.testing.assert_allclose(state[f"{name}_mean"], joined.mean(1), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(state[f"{name}_std"], joined.std(1), rtol=1e-3)
    # Positions outside the body would have told.
    assert min(shares) < 0.9


@pytest.mark.parametrize("kind", ["flow", "gaussian"])
@pytest.mark.parametrize("body_only", [True, False])
def test_loss_is_the_mean_over_body_positions(world: Any, kind: str, body_only: bool) -> None:
    trainer = world.trainer(
        "density",
        f'density.kind="{kind}"',
        f"density.body_only={json.dumps(body_only)}",
        "density.noise=0",
        "density.volumes_per_step=6",
    )
    trainer.prepare()
    trainer.model.eval()
    batch = next(trainer.training_batches(0))
    loss, _ = trainer.compute_loss(batch, 3)
    total, count, positions, flipped = 0.0, 0, 0, set()
    for number, sample in enumerate(batch):
        image, body = parts(sample)
        seed = trainer.settings.seed
        generator = density.torch_generator(CPU, seed, "density device", 3, number)
        draws = torch.rand(3, generator=generator).tolist()
        axes = tuple(axis for axis in range(3) if draws[axis] < 0.5)
        flipped.add(axes)
        # 12 x 16 x 16 voxels need no filling, so that flipping comes before everything else.
        assert image.shape == (12, 16, 16)
        y, c, inside = explicit(trainer, np.flip(image, axes), np.flip(body, axes))
        with torch.no_grad():
            log_prob = trainer.model.log_prob(*(torch.from_numpy(v).float()[None] for v in (y, c)))[
                0
            ].numpy()
        counted = inside > 0.5 if body_only else np.ones_like(inside, bool)
        total -= log_prob[counted].sum()
        count += counted.sum()
        positions += counted.size
    assert flipped != {()}
    assert (count < 0.95 * positions) == body_only
    assert loss.item() == pytest.approx(total / count, rel=1e-4)


def test_likelihood_grows(world: Any) -> None:
    settings = ("steps=100", "warmup_steps=0", "learning_rate=0.01")
    trainer = world.trainer("density", *(f"density.optimiser.{s}" for s in settings))
    trainer.prepare()
    trainer.network.train()
    batch, losses = next(trainer.training_batches(0)), []
    trainer.validation_figure()
    before = trainer.validation_terms["NLL"]
    for _ in range(15):
        losses.append(float(trainer.train_step(batch)["loss"]))
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.2, losses
    trainer.validation_figure()
    assert trainer.validation_terms["NLL"] < before


def test_score_statistics_are_those_of_the_training_scans(world: Any) -> None:
    teacher, plan, statistics = ModelRef("901", "ScreenerPlans", "teacher").load(CPU)
    cases, scores = CaseFolder(world.cases), []
    trainer = world.trainer("density")
    for case in plan.settings.split.train:
        image, body = (cases.read(case, kind) for kind in ("equalised", "body"))
        y, c, inside = explicit(trainer, image, body)
        with torch.no_grad():
            log_prob = teacher.density.log_prob(
                *(torch.from_numpy(v).float()[None] for v in (y, c))
            )[0].numpy()
        used = [slice(0, -(-n // 2)) for n in image.shape]
        scores.append(-log_prob[tuple(used)][inside[tuple(used)] > 0.5])
    joined = np.concatenate(scores).astype(np.float64)
    expected = {
        "mean": joined.mean(),
        "std": joined.std(ddof=1),
        "lowest": joined.min(),
        "highest": joined.max(),
    }
    assert statistics == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_place_is_flipped_with_the_image(world: Any) -> None:
    trainer = world.trainer("density", 'condition.kind="sincos"')
    sample = trainer._reader(trainer.settings.split.train, "density")[0]
    _, plain, body = trainer._maps_of(sample, [])
    _, turned, turned_body = trainer._maps_of(sample, [2, 4])
    torch.testing.assert_close(turned, plain.flip((2, 4)))
    assert torch.equal(turned_body, body.flip((1, 3)))
    assert not torch.allclose(turned, plain)


@pytest.mark.parametrize("kind", ["sincos", "none"])
def test_a_condition_without_training_needs_no_condition_stage(world: Any, kind: str) -> None:
    world.train("density", "-p", "Place", "-o", f"condition.kind={kind}", *source("descriptor"))
    assert not world.stage("condition", "Place").exists()
    _, _, statistics = ModelRef("901", "Place", "teacher").load(CPU)
    assert np.isfinite(list(statistics.values())).all()
    with pytest.raises(SystemExit):
        world.train("condition", "-p", "Place")


def source(*stages: str, name: str = "ScreenerPlans") -> list[str]:
    return [word for s in stages for word in ("-o", f"density.{s}_plans={name}")]


def test_untrained_is_the_network_with_its_initial_weights(world: Any) -> None:
    world.train("density", "-p", "Untrained", *source("descriptor", "condition", name="untrained"))
    teacher, plan, _ = ModelRef("901", "Untrained", "teacher").load(CPU)
    expected = build_unet(plan, 1, 4, plan.settings.seed).state_dict()
    found = teacher.features.descriptor.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    # The same weights that the trained descriptor started from, and no longer has.
    start = world.trainer("descriptor").model.unet.state_dict()
    assert all(torch.equal(found[key], value) for key, value in start.items())
    end, _, _ = ModelRef("901", "ScreenerPlans", "teacher").load(CPU)
    weights = end.features.descriptor.state_dict()
    assert any(not torch.equal(weights[key], value) for key, value in start.items())


@pytest.mark.parametrize(
    ("removed", "wanted"),
    [("descriptor", "descriptor"), ("condition", "condition")],
)
def test_missing_stage_names_its_command(world: Any, removed: str, wanted: str) -> None:
    (world.stage(removed) / "checkpoint_final.pth").unlink()
    with pytest.raises(ScreenerError, match=rf"screener_train 901 3d_fullres {wanted}$"):
        world.trainer("density")
    with pytest.raises(ScreenerError, match=rf"screener_train 901 3d_fullres {wanted} -p Fine$"):
        world.trainer("density", *(f"density.{s}_plans=Fine" for s in (removed,)))


def test_integer_fold_and_foreign_plan_are_refused(world: Any) -> None:
    plan, stage = world.plan().to_dict(), trainer_of("density")
    description = json.loads((world.preprocessed / "dataset.json").read_text())
    with pytest.raises(ScreenerError, match="fold 0: .* use fold 'all'"):
        stage(plan, "3d_fullres", 0, description, CPU)
    del plan["screener"]
    with pytest.raises(ScreenerError, match="has no screener settings"):
        stage(plan, "3d_fullres", "all", description, CPU)


def test_density_of_other_networks_is_refused(world: Any) -> None:
    ModelRef("901", "ScreenerPlans", "teacher").load(CPU)
    path = world.stage("descriptor") / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    next(iter(checkpoint["network_weights"].values())).add_(1e-3)
    torch.save(checkpoint, path)
    with pytest.raises(ScreenerError, match="density --restart"):
        ModelRef("901", "ScreenerPlans", "teacher").load(CPU)


WHOLE = (
    "density.whole_scans=true",
    "density.volumes_per_step=1",
    "density.noise=0",
    "density.positions=0",
)


@pytest.mark.parametrize("kind", ["masking_invariant", "sincos", "none"])
def test_whole_scans_are_fitted_to_what_prediction_sees(
    world: Any, kind: str, tmp_path: Path
) -> None:
    """Loss of a step on stored maps = mean of the teacher's scores in the body of that scan."""
    trainer = world.trainer("density", *WHOLE, f"condition.kind={kind}")
    trainer.source.fill(trainer.settings.split.train)
    trainer.prepare()
    trainer.model.eval()
    (sample,) = batch = next(trainer.training_batches(3))
    loss, _ = trainer.compute_loss(batch, 3)
    teacher = Teacher(trainer.features, trainer.model)
    cases = CaseFolder(world.cases)
    store = MapStore(tmp_path, trainer.features, trainer.plan, CPU)
    means = {}
    for case in trainer.settings.split.train:
        scores, inside = case_scores(teacher, store, cases, case)
        means[case] = float(scores[inside].mean())
    matching = [case for case, mean in means.items() if abs(mean - float(loss)) < 1e-3]
    assert len(matching) == 1, (float(loss), means)
    assert sample.y.shape[0] == 1 and (sample.c is None) == (kind == "none")


@pytest.mark.parametrize("kind", ["flow", "gaussian"])
def test_some_positions_of_a_scan(world: Any, kind: str) -> None:
    """y and c of the same places of one scan: any of its body, or a block of about as many."""
    density = (f"density.kind={kind}", "condition.kind=sincos")
    trainer = world.trainer("density", *WHOLE[:3], *density, "density.positions=20")
    trainer.source.fill(trainer.settings.split.train)
    ((sample,), (again,)) = (next(trainer.training_batches(4)) for _ in range(2))
    assert torch.equal(sample.y, again.y) and torch.equal(sample.c, again.c)
    pairs = torch.cat([sample.y, sample.c], 1)[0]
    reader = trainer._reader(trainer.settings.split.train, "density")
    found = []
    for index in range(8):
        whole = reader[index]
        maps = torch.cat([whole.y, whole.c], 1)[0]
        same = (maps.flatten(1)[:, :, None] == pairs.flatten(1)[:, None, :]).all(0)
        if same.any():
            found.append((same.float().argmax(0), whole.inside[0]))
            assert same.sum(0).eq(1).all()
    places, inside = found[0]
    assert len(places.unique()) == len(places)
    if kind == "flow":
        assert pairs.shape[1:] == (20, 1, 1) and inside.flatten()[places].all()
    else:
        shape = pairs.shape[1:]
        assert all(3 <= n <= 5 for n in shape)  # a cube of 3, and a rim where the scan goes on
        grid = np.unravel_index(places.reshape(shape).numpy(), inside.shape)
        for axis in range(3):
            assert np.all(np.diff(grid[axis], axis=axis) == 1)
        counted = sample.inside[0]
        assert counted.any() and not (counted.flatten() & ~inside.flatten()[places]).any()
        # What counts sees the neighbours that prediction sees.
        for axis, places_of_axis in enumerate(grid):
            used = places_of_axis[counted.numpy()]
            low, high = places_of_axis.min(), places_of_axis.max()
            assert used.min() > low or low == 0
            assert used.max() < high or high == inside.shape[axis] - 1


def test_scans_are_limited_evenly(world: Any) -> None:
    names = world.trainer("density", *WHOLE).training_scans
    assert names == world.trainer("density", *WHOLE, "density.max_scans=99").training_scans
    assert world.trainer("density", *WHOLE, "density.max_scans=2").training_scans == (
        names[0],
        names[-1],
    )
    trainer = world.trainer("density", *WHOLE, "density.max_scans=1")
    assert trainer.training_scans == names[:1]
    assert trainer._reader(trainer.training_scans, "density").names == names[:1]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_epoch_that_is_kept(world: Any, keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of the epochs: the first is the best one."""
    figures = iter([0.5, 0.9, 0.6, 0.6])

    def figure(self: Any, score: Any, reach: int) -> dict[str, float]:
        return {"pasted": 0.0, "mean": next(figures)}

    monkeypatch.setattr(density.AnomalyCheck, "auroc", figure)
    world.train(
        "density", "-p", keep, "-o", f"density.keep={keep}", *source("descriptor", "condition")
    )
    folder = world.stage("density", keep)
    final = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    best = torch.load(folder / "checkpoint_best.pth", weights_only=True)
    assert best["current_epoch"] == 1 and final["current_epoch"] == 2
    same = [torch.equal(v, best["network_weights"][k]) for k, v in final["network_weights"].items()]
    assert all(same) == (keep == "best")
    assert np.isfinite(final["nll"])


def test_a_wrong_rule_is_refused(world: Any) -> None:
    with pytest.raises(ScreenerError, match="density.keep must be best or last, but is first"):
        world.trainer("density", "density.keep=first")


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("kind", ["flow", "gaussian"])
def test_scores_in_the_body_alone_are_those_of_the_whole(
    world: Any, kind: str, stored: bool, tmp_path: Path
) -> None:
    trainer = world.trainer("density", *WHOLE, f"density.kind={kind}")
    trainer.source.fill(trainer.settings.split.train)
    trainer.prepare()
    teacher = Teacher(trainer.features, trainer.model).eval()
    store = (
        trainer.check.store if stored else MapStore(tmp_path, trainer.features, trainer.plan, CPU)
    )
    cases, case = CaseFolder(world.cases), trainer.settings.split.train[0]
    assert (store.stored(case) is not None) is stored
    whole, inside = case_scores(teacher, store, cases, case)
    alone, same = case_scores(teacher, store, cases, case, body_only=True)
    assert torch.equal(inside, same) and 0 < inside.float().mean() < 1
    torch.testing.assert_close(alone[inside], whole[inside], rtol=1e-5, atol=1e-5)
