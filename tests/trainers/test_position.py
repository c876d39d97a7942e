"""The position stage: gradients, learning, the figure, and what its plan shares with others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.distance import cdist

from screener_nnu.conditions.ape import ApeCondition
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.models import load_features
from screener_nnu.plans import Plan, write_json
from screener_nnu.stages import STAGES
from screener_nnu.trainers import position
from screener_nnu.trainers.detector import stages_of
from screener_nnu.trainers.stages import trainer_of

APE = "condition.kind=ape"
TINY = (
    APE,
    *(f"condition.position.optimiser.{s}" for s in ("steps=4", "steps_per_epoch=2")),
    "condition.position.optimiser.warmup_steps=1",
    "condition.position.volumes_per_step=2",
    "condition.position.positives=40",
)


def words(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("-o", setting)]


def test_every_parameter_learns_from_image_and_mask(world: Any) -> None:
    trainer = world.trainer("position", *TINY)
    trainer.network.train()
    loss, terms = trainer.compute_loss(next(trainer.training_batches(0)), 0)
    assert set(terms) == {"distance", "invariance"}
    loss.backward()
    for name, parameter in trainer.network.named_parameters():
        if not parameter.requires_grad:
            assert "seg_layers" in name
        # A bias before an instance norm moves nothing: its gradient is rounding.
        elif not (name.endswith("conv.bias") or name.endswith("all_modules.0.bias")):
            assert parameter.grad is not None and parameter.grad.abs().max() > 1e-9, name
    first = next(p for p in trainer.network.parameters() if p.ndim == 5)
    assert first.shape[:2] == (2, 2)  # half of the plan's four channels; image and mask
    assert (first.grad.abs().amax(dim=(0, 2, 3, 4)) > 1e-9).all()  # type: ignore[union-attr]
    assert trainer.network.decoder.seg_layers[-1].out_channels == 3


def test_loss_falls(world: Any) -> None:
    schedule = ("warmup_steps=0", "steps=100", "learning_rate=0.005")
    settings = [f"condition.position.optimiser.{s}" for s in schedule]
    trainer = world.trainer("position", *TINY, *settings)
    trainer.network.train()
    batch, losses = next(trainer.training_batches(0)), []
    for _ in range(15):
        trainer.global_step = 0  # the same jitter, masks and voxels
        losses.append(float(trainer.train_step(batch)["loss"]))
    assert max(losses[-3:]) < 0.5 * losses[0], losses


def test_voxels_are_of_the_body_and_shared_ones_come_first(world: Any) -> None:
    trainer = world.trainer("position", *TINY)
    generator = torch.Generator().manual_seed(0)
    for sample in next(trainer.training_batches(3)):
        drawn = trainer._draw(sample, generator)
        first, second = drawn.stored
        assert 0 < drawn.shared <= 40
        assert torch.equal(first[: drawn.shared], second[: drawn.shared])
        assert len(first) == drawn.shared + 40 and len(second) == drawn.shared + 40
        for points, body, box in zip(
            drawn.stored, (sample.body, sample.second_body), sample.boxes, strict=True
        ):
            local = (points - torch.tensor(box.start)).long()
            assert (body[tuple(local.T)] > 0).all()


def test_masks_hide_half_of_the_crops_in_training_only(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = world.trainer("position", *TINY)
    seen: list[torch.Tensor] = []
    positions = trainer._positions

    def remember(inputs: torch.Tensor, network: Any) -> torch.Tensor:
        seen.append(inputs[:, 1].amin(dim=(1, 2, 3)))
        assert torch.equal(inputs[:, 0] * inputs[:, 1], inputs[:, 0])
        return positions(inputs, network)

    monkeypatch.setattr(trainer, "_positions", remember)
    batch = next(trainer.training_batches(0))
    with torch.no_grad():
        for step in range(30):
            trainer.compute_loss(batch, step)
    hidden = float((torch.cat(seen) == 0).float().mean())
    assert abs(hidden - 0.5) < 4.5 * 0.5 / np.sqrt(30 * 4)
    seen.clear()
    monkeypatch.setattr(position, "_VALIDATION_PAIRS", 6)
    trainer.validation_figure()
    assert (torch.cat(seen) == 1).all()


def test_figure_is_an_explicit_mean_of_distances(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(position, "_VALIDATION_PAIRS", 3)
    trainer = world.trainer("position", *TINY)
    figure = trainer.validation_figure()
    assert trainer.validation_figure() == figure
    assert not trainer.higher_is_better and not trainer.model.training
    reader = trainer._reader(trainer.settings.split.validation, "position validation")
    errors = []
    for index in range(3):
        generator = position.torch_generator(
            trainer.device, trainer.settings.seed, "position validation", index
        )
        sample = reader[index]
        drawn = trainer._draw(sample, generator)
        embedded, places = [], []
        for points, box, image in zip(drawn.stored, sample.boxes, sample.images, strict=True):
            crop = torch.nn.functional.interpolate(
                image[None, None].float(), (12, 16, 16), mode="trilinear"
            )
            with torch.no_grad():
                outputs = trainer.model(torch.cat([crop, torch.ones_like(crop)], dim=1))[0]
            maps = 2000 / (1 + np.exp(-outputs.numpy().astype(np.float64) / 4))
            start, size = np.array(box.start), np.array(box.size)
            at = (points.numpy() - start + 0.5) * np.array((12, 16, 16)) / size - 0.5
            embedded.append(
                np.stack([map_coordinates(m, at.T, order=1, mode="nearest") for m in maps], axis=1)
            )
            places.append(points.numpy() * trainer.settings.preprocessing.storage_spacing)
        joined, true = np.concatenate(embedded), np.concatenate(places)
        off = ~np.eye(len(true), dtype=bool)
        errors.append(np.abs(cdist(joined, joined) - cdist(true, true))[off].mean())
    assert figure == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize(
    ("stage", "kind", "message"),
    [
        ("position", "masking_invariant", "trained by the condition stage"),
        ("position", "sincos", "needs no training"),
        ("condition", "ape", "go on with the position stage"),
        ("condition", "none", "needs no training: go on with the density stage"),
    ],
)
def test_a_stage_refuses_conditions_of_another(
    world: Any, stage: str, kind: str, message: str
) -> None:
    with pytest.raises(ScreenerError, match=message):
        world.trainer(stage, f"condition.kind={kind}")


def test_settings_of_one_stage_are_not_those_of_another(world: Any) -> None:
    def changed_by(*settings: str) -> set[str]:
        before, after = world.plan(APE), world.plan(APE, *settings)
        return {
            name
            for name, stage in ((name, trainer_of(name)) for name in STAGES)
            if stage.relevant_settings(before) != stage.relevant_settings(after)
        }

    assert changed_by("condition.position.extent_mm=900") == {"position"}
    assert changed_by("condition.contrast.positives=9") == {"condition"}
    assert changed_by("condition.masks.probability=0.3") == {"condition"}
    assert changed_by("condition.kind=sincos") == {"density"}
    assert changed_by("descriptor.positives=9") == {"descriptor"}
    assert changed_by("jitter.noise=0.3") == set(STAGES)
    assert changed_by("workers=1") == set()


def test_an_older_plan_without_positions_gets_defaults(world: Any) -> None:
    plan = world.plan()
    values = plan.to_dict()
    del values["screener"]["condition"]["position"]
    older = Plan.from_dict(values)
    assert older.settings.condition.position.optimiser.steps == 400
    assert older.settings.condition.contrast == plan.settings.condition.contrast
    for name in ("descriptor", "condition", "density", "distillation"):
        stage = trainer_of(name)
        assert stage.relevant_settings(older) == stage.relevant_settings(plan)


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ((), ("descriptor", "condition", "density", "distillation")),
        ((APE,), ("descriptor", "position", "density", "distillation")),
        (("condition.kind=sincos",), ("descriptor", "density", "distillation")),
        ((APE, "density.condition_plans=Other"), ("descriptor", "density", "distillation")),
        ((APE, "density.descriptor_plans=Other"), ("position", "density", "distillation")),
        (("distillation.density_plans=Other",), ("distillation",)),
    ],
)
def test_chain_trains_what_the_plan_needs(
    world: Any, settings: tuple[str, ...], stages: tuple[str, ...]
) -> None:
    write_json(world.preprocessed / "Variant.json", world.plan(*settings).to_dict())
    found = stages_of(ModelRef("901", "Variant"))
    assert found == [(stage, "Variant") for stage in stages]
    teacher = stages_of(ModelRef("901", "Variant", "teacher"))
    assert len(stages) == 1 or teacher == found[:-1]


def test_trained_positions_become_the_condition_of_another_plan(world: Any) -> None:
    world.train("position", "-p", "Ape", *words(*TINY))
    trained = torch.load(
        world.stage("position", "Ape") / "checkpoint_final.pth", weights_only=True
    )["network_weights"]
    links = ("density.descriptor_plans=untrained", "density.condition_plans=Ape")
    plan = world.plan(APE, *links)
    features = load_features("901", plan)
    assert isinstance(features.condition, ApeCondition)
    found = features.condition.network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in trained.items())
    image, place = torch.rand(1, 1, 12, 16, 16), torch.zeros(1, 3)
    y, c = features(image, place, torch.full((1, 3), 40))
    assert y.shape[1] == 4 and c is not None and c.shape == (1, 24, 6, 8, 8)
    assert c.abs().max() <= 1 and c.std() > 0
    # With settings of this plan, not of the one it comes from, the networks would differ in width.
    other = world.plan(APE, *links, "condition.position.width=1")
    load_features("901", other)


def test_untrained_positions_are_a_condition_too(world: Any) -> None:
    links = (f"density.{s}_plans=untrained" for s in ("descriptor", "condition"))
    trainer = world.trainer("density", APE, *links)
    assert trainer.channels == (4, 24)


def test_missing_positions_name_their_command(world: Any) -> None:
    plan = world.plan(APE, "density.descriptor_plans=untrained")
    with pytest.raises(ScreenerError, match="screener_train 901 3d_fullres position$"):
        load_features("901", plan)
