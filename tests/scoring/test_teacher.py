"""Teacher and student against a composition of their parts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from screener_nnu.conditions import build_condition
from screener_nnu.densities import GaussianDensity, StandardisedDensity
from screener_nnu.scoring.student import Student
from screener_nnu.scoring.teacher import FeatureExtractor, Teacher

torch.set_num_threads(1)
POOLING = (1, 2, 3)
PLACE = (torch.tensor([[2, 3, 4], [0, 0, 5]]), torch.tensor([[20, 22, 24], [9, 9, 30]]))


def descriptor() -> nn.Module:
    """Its dropout makes training mode visible."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.Dropout(0.5), nn.BatchNorm3d(3))


def images() -> torch.Tensor:
    return torch.rand(2, 1, 4, 6, 9, generator=torch.Generator().manual_seed(1))


def pooled(maps: torch.Tensor) -> np.ndarray:
    array = maps.detach().numpy()
    batch, channels, *shape = array.shape
    split = [n for size, k in zip(shape, POOLING, strict=True) for n in (size // k, k)]
    return array.reshape(batch, channels, *split).mean((3, 5, 7))


def unconditional() -> Teacher:
    features = FeatureExtractor(descriptor(), build_condition("none"), POOLING)
    density = StandardisedDensity(GaussianDensity(3), noise=0.5)
    y, _ = features(images(), *PLACE)
    density.accumulate(y * 2 + 1)
    density.finish_statistics()
    return Teacher(features, density).eval()


def test_teacher_is_minus_the_log_density_of_pooled_descriptors() -> None:
    teacher = unconditional()
    with torch.no_grad():
        y = pooled(descriptor().eval()(images()))
    view = (1, 3, 1, 1, 1)
    mean, std = (getattr(teacher.density, f"y_{k}").numpy().reshape(view) for k in ("mean", "std"))
    expected = -stats.norm.logpdf((y - mean) / std).sum(1)
    scores = teacher(images(), *PLACE)
    assert scores.shape == (2, 4, 3, 3) and teacher.cell == POOLING
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)


def test_teacher_gives_image_and_place_to_the_condition() -> None:
    features = FeatureExtractor(descriptor(), build_condition("sincos"), POOLING)
    y, c = features(images(), *PLACE)
    assert y.shape == (2, 3, 4, 3, 3) and c is not None and c.shape == (2, 24, 4, 3, 3)
    by_hand = pooled(build_condition("sincos")(images(), *PLACE))
    np.testing.assert_allclose(c.numpy(), by_hand, atol=1e-5)
    torch.manual_seed(3)
    density = StandardisedDensity(GaussianDensity(3, 24, hidden=5, kernel_size=1))
    with torch.no_grad():
        for parameter in density.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    density.accumulate(y, c)
    density.finish_statistics()
    teacher = Teacher(features, density).eval()
    torch.testing.assert_close(teacher(images(), *PLACE), -density.log_prob(y, c).detach())
    elsewhere = teacher(images(), PLACE[0] + 5, PLACE[1])
    assert not torch.allclose(elsewhere, teacher(images(), *PLACE), atol=1e-3)


def test_pooling_is_per_axis() -> None:
    image = torch.arange(216.0).view(1, 1, 6, 6, 6)
    features = FeatureExtractor(nn.Identity(), build_condition("none"), (1, 2, 3))
    y, c = features(image, PLACE[0][:1], PLACE[1][:1])
    assert c is None
    np.testing.assert_allclose(y.numpy(), pooled(image))


def test_features_are_frozen_and_stay_in_evaluation_mode() -> None:
    features = FeatureExtractor(
        descriptor(),
        build_condition("masking_invariant", network=nn.Conv3d(2, 2, 1), channels=2),
        POOLING,
    )
    assert [p for p in features.parameters()]
    assert not any(p.requires_grad for p in features.parameters())
    before = features(images(), *PLACE)
    features.train()
    assert not any(module.training for module in features.modules())
    after = features(images(), *PLACE)
    for one, two in zip(before, after, strict=True):
        assert torch.equal(one, two) and not one.requires_grad


def test_training_the_density_leaves_the_features_alone() -> None:
    """`Teacher.train()` reaches the density, and only it."""
    teacher = unconditional().train()
    assert teacher.density.training and not teacher.features.descriptor.training
    y, c = teacher.features(images(), *PLACE)
    (-teacher.density.log_prob(y, c).mean()).backward()
    assert all(p.grad is None for p in teacher.features.parameters())
    assert any(p.grad is not None for p in teacher.density.parameters())


def test_scores_are_repeatable_and_without_gradient() -> None:
    teacher = unconditional()
    first, second = teacher(images(), *PLACE), teacher(images(), *PLACE)
    assert torch.equal(first, second) and not first.requires_grad
    assert first.dtype == torch.float32


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (42.0, 7.5)])
def test_student_gives_nats(mean: float, std: float) -> None:
    network = nn.Conv3d(1, 1, 3, padding=1)
    student = Student(network, mean, std)
    with torch.no_grad():
        expected = network(images())[:, 0].numpy() * std + mean
    scores = student(images(), *PLACE)
    assert scores.shape == (2, 4, 6, 9) and student.cell == (1, 1, 1)
    assert not scores.requires_grad and scores.dtype == torch.float32
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)


def test_student_starts_in_evaluation_mode() -> None:
    student = Student(descriptor(), 0.0, 1.0)
    assert not any(module.training for module in student.modules())
    assert torch.equal(student(images(), *PLACE), student(images(), *PLACE))
