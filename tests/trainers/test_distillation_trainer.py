"""The student's targets, and its way into stock fine-tuning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from scipy.ndimage import map_coordinates, zoom

from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.baselines import training_histogram
from screener_nnu.inference.volume import normalised, score_map, stitched_maps
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.trainers import score_statistics

CPU = torch.device("cpu")


def prepared(world: Any, *overrides: str, plans: str = "ScreenerPlans") -> Any:
    trainer = world.trainer("distillation", *overrides, plans=plans)
    trainer.lesson.make_ready()
    return trainer


def whole_target(trainer: Any, case: str, plans: str) -> np.ndarray:
    """Standardised and clipped map of the teacher, its lowest score outside the body."""
    teacher, plan, statistics = ModelRef("901", plans, "teacher").load(CPU)
    cases = CaseFolder(trainer.cases_folder)
    hu, equalised, body = (cases.read(case, kind) for kind in ("hu", "equalised", "body"))
    scores = score_map(teacher, hu.astype(np.float32), equalised.astype(np.float32), plan, CPU)
    if body.shape != hu.shape:
        body = zoom(body, np.divide(hu.shape, body.shape), order=0, grid_mode=True, mode="nearest")
    scores = np.where(body > 0, scores, statistics["lowest"])
    standardised = (scores - statistics["mean"]) / statistics["std"]
    lowest = (statistics["lowest"] - statistics["mean"]) / statistics["std"]
    limit = trainer.distillation.clip_sigma
    return np.clip(standardised, max(lowest, -limit), limit)


# Thin: cells of one voxel along z, as a plan of thick slices has.
@pytest.mark.parametrize("plans", ["ScreenerPlans", "Thin"])
@pytest.mark.parametrize("crop", ["[12, 16, 16]", "[32, 32, 48]"])
def test_target_is_the_map_of_the_teacher(trained: Any, plans: str, crop: str) -> None:
    if plans == "Thin":
        stages = [f"density.{s}_plans=ScreenerPlans" for s in ("descriptor", "condition")]
        settings = [w for s in (*stages, "density.pooling=[1, 2, 4]") for w in ("-o", s)]
        trained.train("density", "-p", "Thin", *settings)
    limits = "distillation.clip_sigma=1.5", f"distillation.crop_size={crop}"
    trainer = prepared(trained, *limits, plans=plans)
    lowest = float(
        (trainer.lesson.score_statistics["lowest"] - trainer.lesson.score_statistics["mean"])
        / trainer.lesson.score_statistics["std"]
    )
    reader = trainer.lesson.reader(trainer.settings.split.train, "distillation")
    clipped, outside = 0, 0
    for index in range(4):
        case = trainer.settings.split.train[index]
        sample = reader.read(case, np.random.default_rng(index))
        whole = whole_target(trainer, case, plans)
        target = trainer.lesson.target(sample).numpy()
        assert target.shape == trainer.distillation.crop_size
        beyond = np.pad(whole, [(0, 50)] * 3, constant_values=max(lowest, -1.5))
        window = tuple(slice(a, a + n) for a, n in zip(sample.start, target.shape, strict=True))
        np.testing.assert_allclose(target, beyond[window], atol=1e-4)
        clipped += (target == 1.5).sum()
        outside += (sample.body.numpy() == 0).sum()
        assert (target[sample.body.numpy() == 0] == target.min()).all()
        assert target.std() > 0.1
    assert clipped > 0 and outside > 0


def test_target_of_a_finer_store(trained: Any) -> None:
    """Equalised image and body mask lie on a finer grid than the scores."""
    stages = [f"density.{s}_plans=ScreenerPlans" for s in ("descriptor", "condition")]
    trained.train("density", "-p", "Fine", *[w for s in stages for w in ("-o", s)])
    trainer = prepared(trained, plans="Fine")
    reader = trainer.lesson.reader(trainer.settings.split.train, "distillation")
    case = trainer.settings.split.train[0]
    assert reader.cases.shape(case, "body") != reader.cases.shape(case, "hu")
    whole = whole_target(trainer, case, "Fine")
    sample = reader.read(case, np.random.default_rng(0))
    window = tuple(slice(a, a + 12 + 4 * (i > 0)) for i, a in enumerate(sample.start))
    # Masks may be sampled a voxel apart at the border of the body.
    difference = np.abs(trainer.lesson.target(sample).numpy() - whole[window])
    assert (difference > 1e-3).mean() < 0.05


def test_stored_scores_are_used_again(trained: Any) -> None:
    trainer = prepared(trained)
    files = sorted(trainer.lesson.targets.scores.iterdir())
    split = trainer.settings.split
    assert [f.name for f in files] == sorted(f"{c}.npy" for c in (*split.train, *split.validation))
    assert trainer.lesson.targets.scores.parent.name == "ScreenerPlans_screener_scores"
    assert all(np.load(f).dtype == np.float32 for f in files)
    stamps = [f.stat().st_mtime_ns for f in files]
    lost, torn = files[1].read_bytes(), files[2].read_bytes()
    files[1].unlink()
    files[2].write_bytes(torn[: len(torn) // 2])
    again = prepared(trained)
    assert again.lesson.targets.scores == trainer.lesson.targets.scores
    assert files[1].read_bytes() == lost and files[2].read_bytes() == torn
    changed = [i for i, f in enumerate(files) if f.stat().st_mtime_ns != stamps[i]]
    assert changed == [1, 2]


def test_fewer_scans_are_scored_and_learned_from(trained: Any) -> None:
    shutil.rmtree(prepared(trained).lesson.targets.scores)
    trainer = prepared(trained, "distillation.max_scans=2")
    split = trainer.settings.split
    few = split.train[0], split.train[-1]
    found = {file.stem for file in trainer.lesson.targets.scores.iterdir()}
    assert found == {*few, *split.validation} and len(split.train) > 2
    assert trainer.scans_to_learn_from(trainer.settings) == few
    trainer.batches = lambda reader, _: reader.names
    assert trainer.training_batches(0) == few
    assert trainer.scans_of_phases(trainer.settings)["make_ready"] == 2 + len(split.validation)


def test_another_teacher_has_scores_of_its_own(trained: Any) -> None:
    folder = prepared(trained).lesson.targets.scores
    trained.train("density", "--restart", "-o", "density.optimiser.learning_rate=0.01")
    other = prepared(trained).lesson.targets.scores
    assert other != folder and other.parent == folder.parent
    name = sorted(p.name for p in other.iterdir())[0]
    assert not np.allclose(np.load(other / name), np.load(folder / name))


def test_image_and_target_are_mirrored_together(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = prepared(trained)
    seen: list[torch.Tensor] = []

    def repeat(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.clone())
        return images

    trainer.network = repeat
    # Were one mirrored without the other, the two would differ.
    monkeypatch.setattr(
        trainer.lesson, "target", lambda s: normalised(s.hu[None, None], trainer.plan)[0, 0]
    )
    batch = next(trainer.training_batches(0))
    plain = normalised(trainer.lesson._batch(batch)[0], trainer.plan)
    orders = set()
    for step in range(12):
        loss, _ = trainer.compute_loss(batch, step)
        assert float(loss) == 0
        for image, original in zip(seen[-1], plain, strict=True):
            flips = [
                f
                for f in [(), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)]
                if torch.equal(image, original.flip(f))
            ]
            assert len(flips) == 1
            orders.add(flips[0])
    assert len(orders) >= 5

    still = prepared(trained, "distillation.mirror=false")
    still.network = repeat
    still.compute_loss(batch, 0)
    assert torch.equal(seen[-1], plain)


def test_jitter_changes_the_images_alone(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    wanted: list[torch.Tensor] = []

    def note(outputs: torch.Tensor, targets: torch.Tensor, settings: Any) -> tuple[Any, dict]:
        wanted.append(targets.clone())
        return outputs.sum(), {}

    monkeypatch.setattr("screener_nnu.trainers.distilled_score.distillation_loss", note)
    for overrides in ((), ("distillation.jitter=true",)):
        trainer = prepared(trained, *overrides)
        trainer.network = lambda images: seen.append(images.clone()) or images
        batch = next(trainer.training_batches(0))
        trainer.compute_loss(batch, 3)
        trainer.compute_loss(batch, 3)
    assert torch.equal(wanted[0], wanted[2])  # mirrored alike, too
    assert torch.equal(seen[2], seen[3])  # a function of seed and step
    changed = [not torch.equal(a, b) for a, b in zip(seen[0], seen[2], strict=True)]
    assert any(changed)
    assert float((seen[0] - seen[2]).abs().max()) < 3


def test_deep_supervision_trains_all_outputs(trained: Any) -> None:
    overrides = ("distillation.deep_supervision=true", "distillation.optimiser.steps=2")
    trained.train("distillation", "--restart", *[w for o in overrides for w in ("-o", o)])
    saved = torch.load(student_file(trained), weights_only=True)["network_weights"]
    trainer = prepared(trained, *overrides)
    fresh = trainer.model.state_dict()
    heads = [name for name in fresh if "seg_layers" in name and name.endswith("weight")]
    assert len(heads) > 1
    assert all(not torch.equal(fresh[name], saved[name]) for name in heads)
    trainer.load_checkpoint(str(student_file(trained)))
    student, _, _ = ModelRef("901", "ScreenerPlans").load(CPU)
    image = torch.randn(1, 1, 12, 16, 16)
    with torch.no_grad():
        finest, *coarser = trainer.model.eval()(image)
        torch.testing.assert_close(student.network(image), finest)
    assert coarser and all(output.shape[1] == 1 for output in coarser)
    assert -1 <= trainer.validation_figure() <= 1


def whole_descriptors(trainer: Any, case: str) -> np.ndarray:
    """Standardised pooled descriptors of a case, interpolated to all of its voxels by SciPy."""
    teacher, plan, _ = ModelRef("901", "ScreenerPlans", "teacher").load(CPU)
    image = torch.from_numpy(CaseFolder(trainer.cases_folder).read(case, "equalised")).float()
    y = stitched_maps(teacher.features.descriptor_maps, teacher.cell, image, plan)[0].numpy()
    mean, std = (
        v.numpy()[:, None, None, None] for v in (teacher.density.y_mean, teacher.density.y_std)
    )
    places = [
        (np.arange(n) + 0.5) / c - 0.5 for n, c in zip(image.shape, teacher.cell, strict=True)
    ]
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    return np.stack([map_coordinates(m, grid, order=1, mode="nearest") for m in (y - mean) / std])


def test_descriptor_target_is_the_map_of_the_descriptor(trained: Any) -> None:
    trainer = prepared(trained, "distillation.descriptor_weight=0.5")
    reader = trainer.lesson.reader(trainer.settings.split.train, "distillation")
    for index in range(3):
        case = trainer.settings.split.train[index]
        sample = reader.read(case, np.random.default_rng(index))
        whole = whole_descriptors(trainer, case)
        assert sample.y.numel() < whole.size  # not more than is needed of a large scan
        window = tuple(slice(a, a + n) for a, n in zip(sample.start, (12, 16, 16), strict=True))
        expected = whole[(slice(None), *window)]
        found = trainer.lesson.descriptor_target(sample).numpy()
        inside = sample.body.numpy() > 0
        assert found.shape[0] == 4 and inside.any()
        cropped = tuple(slice(0, n) for n in expected.shape[1:])
        both = inside[cropped]
        np.testing.assert_allclose(
            found[(slice(None), *cropped)][:, both], expected[:, both], atol=1e-4
        )
        assert not found[:, ~inside].any()
        assert expected[:, both].std() > 0.1


def test_scores_are_the_same_with_descriptors(trained: Any) -> None:
    plain = prepared(trained)
    before = {f.name: np.load(f) for f in plain.lesson.targets.scores.iterdir()}
    for file in plain.lesson.targets.scores.iterdir():
        file.unlink()
    again = prepared(trained, "distillation.descriptor_weight=0.5")
    assert again.lesson.targets.scores == plain.lesson.targets.scores
    for name, scores in before.items():
        np.testing.assert_allclose(
            np.load(again.lesson.targets.scores / name), scores, rtol=1e-4, atol=1e-4
        )


def test_maps_of_the_density_are_used_again(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores are the same, and the networks do not run."""
    plain = prepared(trained)
    before = {f.name: np.load(f) for f in plain.lesson.targets.scores.iterdir()}
    prepared(trained, "distillation.descriptor_weight=0.5")  # stores maps, as a density does
    for file in plain.lesson.targets.scores.iterdir():
        file.unlink()

    def never(*_: Any) -> None:
        raise AssertionError("its maps are there")

    monkeypatch.setattr(score_statistics, "teacher_cells", never)
    again = prepared(trained)
    for name, scores in before.items():
        np.testing.assert_allclose(
            np.load(again.lesson.targets.scores / name), scores, rtol=1e-4, atol=1e-4
        )


def test_descriptor_outputs_train_and_stay_behind(trained: Any) -> None:
    """The student in the file has one output; a resumed run has all of them again."""
    overrides = ("distillation.descriptor_weight=0.5", "distillation.optimiser.steps=2")
    trained.train("distillation", "--restart", *[w for o in overrides for w in ("-o", o)])
    checkpoint = torch.load(student_file(trained), weights_only=True)
    heads = {k: v for k, v in checkpoint["network_weights"].items() if "seg_layers" in k}
    assert heads and all(len(v) == 1 for v in heads.values())
    student, _, _ = ModelRef("901", "ScreenerPlans").load(CPU)
    assert student.network(torch.zeros(1, 1, 12, 16, 16)).shape[1] == 1
    rest = checkpoint["descriptor_outputs"]
    assert sorted(rest) == sorted(heads) and all(len(v) == 4 for v in rest.values())
    resumed = trained.trainer("distillation", *overrides)
    fresh = {k: v.clone() for k, v in resumed.model.state_dict().items()}
    resumed.load_checkpoint(str(student_file(trained)))
    state = resumed.model.state_dict()
    for name, value in rest.items():
        torch.testing.assert_close(state[name][1:], value)
    last = max(rest)
    assert not torch.equal(state[last][1:], fresh[last][1:])  # they have learned


def test_rarity_of_hu_in_place_of_a_teacher(trained: Any) -> None:
    """The control needs no teacher; its target is the baseline's, standardised and clipped."""
    for stage in ("density", "descriptor", "condition"):
        shutil.rmtree(trained.stage(stage))
    # A control without teacher has no condition to read.
    control = "distillation.learns=condition", "distillation.target=hu_rarity"
    trained.train("distillation", "--restart", *[w for s in control for w in ("-o", s)])
    trainer = trained.trainer("distillation", *control)
    trainer.lesson.make_ready()
    histogram = training_histogram("901")
    probability = (histogram.counts + 1) / (histogram.counts + 1).sum()
    table = -np.log(probability / np.diff(histogram.edges))

    def rarity(hu: np.ndarray) -> np.ndarray:
        # A value at a float32 edge may fall on either side: compare away from edges.
        return table[np.clip(np.digitize(hu, histogram.edges) - 1, 0, len(table) - 1)]

    cases = CaseFolder(trainer.cases_folder)
    names = trainer.settings.split.train
    inside = [rarity(cases.read(n, "hu"))[cases.read(n, "body") > 0] for n in names]
    pooled = np.concatenate(inside)
    statistics = trainer.lesson.score_statistics
    found = [statistics[key] for key in ("mean", "std", "lowest", "highest")]
    expected = [pooled.mean(), pooled.std(ddof=1), pooled.min(), pooled.max()]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    sample = trainer.lesson.reader(names, "distillation").read(names[0], np.random.default_rng(1))
    body = sample.body.numpy() > 0
    scores = np.where(body, rarity(sample.hu.numpy()), pooled.min())
    target = np.clip((scores - pooled.mean()) / pooled.std(ddof=1), -5, 5)
    np.testing.assert_allclose(trainer.lesson.target(sample).numpy(), target, atol=1e-4)
    assert ModelRef("901", "ScreenerPlans").load(CPU)[2] == statistics


def test_targets_that_cannot_be(trained: Any) -> None:
    with pytest.raises(ScreenerError, match="teacher or hu_rarity, but is depth"):
        trained.trainer("distillation", "distillation.target=depth")
    with pytest.raises(ScreenerError, match="has no descriptors"):
        trained.trainer(
            "distillation", "distillation.target=hu_rarity", "distillation.descriptor_weight=1"
        )


def student_file(world: Any) -> Path:
    return world.stage("distillation") / "checkpoint_final.pth"


def test_stock_fine_tuning_takes_everything_but_the_heads(trained: Any) -> None:
    block = trained.plan().architecture
    torch.manual_seed(99)
    network = get_network_from_plans(
        block["network_class_name"],
        block["arch_kwargs"],
        block["_kw_requires_import"],
        1,
        3,
        allow_init=True,
        deep_supervision=True,
    )
    before = {key: value.clone() for key, value in network.state_dict().items()}
    load_pretrained_weights(network, str(student_file(trained)))
    checkpoint = torch.load(student_file(trained), weights_only=True)
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    for key, value in network.state_dict().items():
        if "seg_layers" in key:
            assert torch.equal(value, before[key])
        else:
            assert torch.equal(value, checkpoint["network_weights"][key]), key
    heads = [key for key in before if "seg_layers" in key]
    rest = len(before) - len(heads)
    # Values that training has not moved from a constant start are the same before and after.
    constant = {k for k in before if before[k].unique().numel() == 1}
    assert heads and rest > 30
    assert len(moved | (constant - set(heads))) == rest


def test_student_gives_its_output_in_nats(trained: Any) -> None:
    checkpoint = torch.load(student_file(trained), weights_only=True)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"]["plans"]["plans_name"] == "ScreenerPlans"
    student, _, statistics = ModelRef("901", "ScreenerPlans").load(CPU)
    teacher = torch.load(trained.stage("density") / "checkpoint_final.pth", weights_only=True)
    assert statistics == teacher["score_statistics"]
    image = torch.randn(1, 1, 12, 16, 16)
    with torch.no_grad():
        raw = student.network(image)[:, 0]
    found = student(image, torch.zeros(1, 3), torch.zeros(1, 3))
    torch.testing.assert_close(found, raw * statistics["std"] + statistics["mean"])


def test_figure_is_the_correlation_in_the_body(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from screener_nnu.trainers import distilled_score

    monkeypatch.setattr(distilled_score, "_VALIDATION_CROPS", 3)
    trainer = prepared(trained)
    reader = trainer.lesson.reader(trainer.settings.split.validation, "distillation validation")
    values: list[list[np.ndarray]] = [[], []]
    for index in range(3):
        sample = reader[index]
        image = normalised(sample.hu[None, None], trainer.plan)
        inside = sample.body.numpy() > 0
        with torch.no_grad():
            values[0].append(trainer.model.eval()(image)[0, 0].numpy()[inside])
        values[1].append(trainer.lesson.target(sample).numpy()[inside])
    expected = np.corrcoef(np.concatenate(values[0]), np.concatenate(values[1]))[0, 1]
    assert trainer.validation_figure() == pytest.approx(expected, abs=1e-5)
