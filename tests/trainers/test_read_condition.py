"""A student that reads its teacher's condition: exact where it reads well, whole in one file."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import nn

from screener_nnu.calibration.store import model_identity
from screener_nnu.descriptors.student_features import StudentFeatures
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.finetuning.checkpoint import load_weights
from screener_nnu.networks.unet import build_unet
from screener_nnu.scoring.reading_student import ReadingStudent
from screener_nnu.stage_checkpoint import DENSITY, HEAD, WEIGHTS

CPU = torch.device("cpu")
READS = "distillation.learns=condition"
WHOLE = (
    "density.whole_scans=true",
    "density.descriptor_plans=ScreenerPlans",
    "density.condition_plans=ScreenerPlans",
)


def words(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("-o", setting)]


def student_file(world: Any, plans: str = "ScreenerPlans") -> Any:
    return world.stage("distillation", plans) / "checkpoint_final.pth"


class Known(nn.Module):
    """In place of a head: the standardised condition that the teacher has of an image."""

    def __init__(self, teacher: Any, place: Any) -> None:
        super().__init__()
        self.teacher, self.place = teacher, place
        self.image = torch.empty(0)

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        c = self.teacher.features.condition_maps(self.image, *self.place)
        density = self.teacher.density
        return (c - density.c_mean.view(1, -1, 1, 1, 1)) / density.c_std.view(1, -1, 1, 1, 1)


@pytest.mark.parametrize("kind", ["flow", "experts"])
def test_who_reads_the_condition_well_scores_as_the_teacher(trained: Any, kind: str) -> None:
    plans = "ScreenerPlans"
    if kind == "experts":
        plans = "Experts"
        trained.train("density", "-p", plans, "-o", "density.kind=experts", *words(*WHOLE))
    teacher, plan, _ = ModelRef("901", plans, "teacher").load(CPU)
    features = StudentFeatures.of_descriptor(teacher.features.descriptor)
    assert ("filters" in features.read) is (kind == "experts")
    place = torch.tensor([[4, 0, 8]]), torch.tensor([[24, 28, 36]])
    head = Known(teacher, place)
    student = ReadingStudent(features, head, teacher.density, teacher.cell)  # type: ignore[arg-type]
    head.image = torch.rand(1, 1, 16, 16, 24)
    found = student(head.image, torch.zeros(1, 3), torch.zeros(1, 3))
    expected = teacher(head.image, *place)
    assert found.shape == (1, 8, 8, 12) and expected.std() > 0.01
    torch.testing.assert_close(found, expected)


def test_it_learns_to_read_the_condition(trained: Any) -> None:
    """Its scores come nearer to the teacher's."""
    schedule = "steps=90", "steps_per_epoch=30", "learning_rate=0.02"
    long = [f"{stage}.optimiser.{s}" for s in schedule for stage in ("density", "distillation")]
    place = "condition.kind=sincos", "density.descriptor_plans=ScreenerPlans", READS, *long
    place = (*place, "distillation.hidden=64")
    trained.train("density", "-p", "Place", *words(*place))
    trained.train("distillation", "-p", "Place")
    log = torch.load(student_file(trained, "Place"), weights_only=True)["logging"]["values"]
    assert log["train_losses"][-1] < 0.95 * log["train_losses"][0]
    trainer = trained.trainer("distillation", plans="Place")
    untrained = trainer.validation_figure()
    assert log["figures"][-1] > untrained + 0.001


@pytest.mark.parametrize("reading", ["flow", "experts"], indirect=True)
def test_its_file_is_enough(reading: Any) -> None:
    """It loads without its teacher, and gives what the trainer's networks give."""
    trainer = reading.trainer("distillation", READS)
    trainer.load_checkpoint(str(student_file(reading)))
    image = torch.rand(1, 1, 16, 16, 24)
    teacher = trainer.lesson.teacher
    expected = ReadingStudent(
        trainer.lesson.features, trainer.model.eval(), teacher.density, teacher.cell
    ).scores(image)
    statistics = ModelRef("901", "ScreenerPlans", "teacher").load(CPU)[2]
    for stage in ("density", "descriptor", "condition"):
        shutil.rmtree(reading.stage(stage))
    student, _, own = ModelRef("901", "ScreenerPlans").load(CPU)
    assert own == statistics
    torch.testing.assert_close(student(image, *torch.zeros(2, 1, 3)), expected)


@pytest.mark.parametrize("reading", ["experts"], indirect=True)
def test_filters_are_read_on_the_scale_of_the_density(reading: Any) -> None:
    lesson = reading.trainer("distillation", READS).lesson
    features, density = lesson.features, lesson.teacher.density
    y = torch.randn(1, features.described, 3, 4, 5)
    stages = torch.randn(1, features.channels - features.described, 3, 4, 5)
    read, found = features.parted(torch.cat([stages, y], dim=1))
    assert torch.equal(found, y) and read.shape[1] == sum(features.read.values())
    torch.testing.assert_close(read[:, : stages.shape[1]], stages)
    expected = (y - density.y_mean.view(1, -1, 1, 1, 1)) / density.y_std.view(1, -1, 1, 1, 1)
    torch.testing.assert_close(read[:, stages.shape[1] :], expected[:, -14:])
    # And of the rows that are stored.
    rows = torch.cat([stages, y], dim=1)[0].flatten(1).T
    torch.testing.assert_close(features.parted(rows)[0], read[0].flatten(1).T)


@pytest.mark.parametrize("reading", ["experts"], indirect=True)
def test_two_experts_are_no_likelihood(reading: Any) -> None:
    """Their weighted sum is not called one, and an older file of theirs is refused."""
    path = reading.stage("density") / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["nll"] is None and checkpoint["network_weights"]["density.weight"] > 0
    older = dict(checkpoint["network_weights"])
    del older["density.weight"]
    torch.save({**checkpoint, "network_weights": older}, path)
    with pytest.raises(ScreenerError, match=r"(?s)density.weight.*--restart"):
        ModelRef("901", detector="teacher").load(CPU)
    latest = reading.trainer("density", "density.kind=experts")
    with pytest.raises(ScreenerError, match="another version.*--restart"):
        latest.load_checkpoint(str(path))


def test_a_killed_training_goes_on(reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from screener_nnu.trainers.distillation import DistillationTrainer

    whole = torch.load(student_file(reading), weights_only=True)
    plain, calls = DistillationTrainer.on_epoch_end, []

    def end(self: Any) -> None:
        plain(self)
        calls.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "on_epoch_end", end)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            reading.train("distillation", "--restart", *words(READS))
    assert calls and not student_file(reading).is_file()
    reading.train("distillation", *words(READS))
    again = torch.load(student_file(reading), weights_only=True)
    for key in WEIGHTS:
        for name, value in whole[key].items():
            assert torch.equal(value, again[key][name]), (key, name)


def test_stock_fine_tuning_starts_from_the_descriptor(reading: Any) -> None:
    network = build_unet(reading.plan(), 1, 3, seed=5, deep_supervision=True)
    load_weights(network, student_file(reading))
    path = reading.stage("descriptor") / "checkpoint_final.pth"
    descriptor = torch.load(path, weights_only=True)["network_weights"]
    moved = [name for name in descriptor if "seg_layers" not in name]
    assert len(moved) > 30
    for name in moved:
        assert torch.equal(network.state_dict()[name], descriptor[name]), name


def test_another_head_is_another_model(reading: Any) -> None:
    """A calibration belongs to the head and the density, too."""
    checkpoint = torch.load(student_file(reading), weights_only=True)
    known = model_identity(checkpoint)
    assert known == model_identity(torch.load(student_file(reading), weights_only=True))
    for key in WEIGHTS:
        name = next(n for n, v in checkpoint[key].items() if v.is_floating_point() and v.numel())
        changed = {**checkpoint[key], name: checkpoint[key][name] + 1}
        assert model_identity({**checkpoint, key: changed}) != known


@pytest.mark.parametrize("lost", [HEAD, DENSITY, "teacher"])
def test_a_file_that_lacks_a_part_is_refused(reading: Any, lost: str) -> None:
    checkpoint = torch.load(student_file(reading), weights_only=True)
    del checkpoint[lost]
    torch.save(checkpoint, student_file(reading))
    with pytest.raises(ScreenerError, match=rf"(?s)it lacks {lost}, which .*--restart"):
        ModelRef("901", "ScreenerPlans").load(CPU)


def test_what_has_nothing_to_read_is_refused(trained: Any) -> None:
    with pytest.raises(ScreenerError, match="jitter is a setting .*distillation.learns=score"):
        trained.trainer("distillation", READS, "distillation.jitter=true")
    own = "density.descriptor_plans=ScreenerPlans"
    trained.train("density", "-p", "None", *words("condition.kind=none", own))
    with pytest.raises(ScreenerError, match="no condition for a student to read"):
        trained.trainer("distillation", READS, plans="None")
    levels = ("density.descriptor=levels", own, "density.condition_plans=ScreenerPlans")
    trained.train("density", "-p", "Levels", *words(*levels))
    with pytest.raises(ScreenerError, match="LevelsDescriptor: set distillation.learns=score"):
        trained.trainer("distillation", READS, plans="Levels")


def test_crops_of_air_tell_nothing(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nothing can be measured on is said, and no figure is made up."""
    trainer = trained.trainer("distillation", READS)

    def of_air(source: Any, sample: Any) -> Any:
        raise CaseError(sample.case, "air")

    monkeypatch.setattr("screener_nnu.trainers.read_condition.positions_in_body", of_air)
    with pytest.raises(ScreenerError, match="none of 12 crops.*holds body.*density.crop_size"):
        trainer.validation_figure()
