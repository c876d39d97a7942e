"""What every start of fine-tuning has to do, on volumes and on pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.networks.unet import build_unet
from screener_nnu.planners.settings_check import check_settings
from screener_nnu.plans import ScreenerSettings
from screener_nnu.starts import METHODS, OPTIONS, crop_size, method_class, start_plans
from screener_nnu.starts.base import ENCODER, WHOLE, build_start, value_range
from tests.baselines.made_plans import PICTURE, VOLUME
from tests.starts.made_starts import EVERY, batch, losses, start_plan


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_every_parameter_that_learns_gets_a_gradient(name: str, kind: str) -> None:
    plan = start_plan(kind, name)
    check_settings(plan)
    method = build_start(plan).train()
    found = losses(method, plan)
    assert found and all(v.ndim == 0 and v.dtype == torch.float32 for v in found.values())
    total = torch.stack(list(found.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    trained = {k for k, v in method.named_parameters() if v.requires_grad}
    reached = {k for k, v in method.named_parameters() if v.grad is not None}
    assert reached == trained
    of_decoder = [k for k in trained if ".decoder." in k and ".decoder.encoder." not in k]
    assert bool(of_decoder) == (method.trains == WHOLE)
    assert any(k.startswith("network.encoder.") for k in trained)


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_losses_are_functions_of_seed_and_images(name: str, kind: str) -> None:
    plan = start_plan(kind, name)
    torch.manual_seed(11)
    one = build_start(plan)
    first = losses(one, plan)
    torch.manual_seed(12)
    second = losses(build_start(plan), plan)
    assert all(torch.equal(first[key], second[key]) for key in first)
    if name != "tissue":  # which draws nothing
        third = losses(one, plan, seed=1)
        assert any(not torch.equal(first[key], third[key]) for key in first)


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_mixed_precision_gives_nearly_the_same(name: str, kind: str) -> None:
    plan = start_plan(kind, name)
    method = build_start(plan)
    with torch.no_grad():
        exact = losses(method, plan)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = losses(method, plan)
    for key, value in exact.items():
        assert rounded[key].dtype == torch.float32
        assert float(rounded[key]) == pytest.approx(float(value), rel=0.05, abs=0.01), key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_losses_on_a_device(name: str, kind: str) -> None:
    plan = start_plan(kind, name)
    method = build_start(plan).cuda()
    images, bodies = (values.cuda() for values in batch(plan))
    with torch.autocast("cuda"):
        found = method(images, bodies, torch.Generator("cuda").manual_seed(0), 0, 10)
    torch.stack(list(found.values())).sum().backward()
    assert all(v.is_cuda and v.dtype == torch.float32 and v.isfinite() for v in found.values())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_the_start_is_the_plans_network_and_the_rest_stands_apart(name: str, kind: str) -> None:
    plan = start_plan(kind, name)
    method, other = build_start(plan), build_start(plan)
    with torch.no_grad():
        for value in method.parameters():
            value.add_(torch.rand(value.shape) * 0.1)
    network, rest = method.start_weights()
    # Strict: names and shapes are those that a student of the plan has.
    build_unet(plan, plan.channels, 1).load_state_dict(network)
    other.load_start_weights(network, rest)
    for key, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert not any(k.startswith("network.encoder") for k in rest)


def test_one_method_alone_leaves_the_decoder_as_it_was_made() -> None:
    assert [n for n in METHODS if method_class(n).trains == ENCODER] == ["contextual_position"]


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_learned(name: str) -> None:
    plan = start_plan(VOLUME, name)
    method = build_start(plan).train()
    coarse = torch.rand(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 6 - 3
    images = torch.nn.functional.interpolate(coarse, method.size, mode="trilinear")
    bodies = torch.ones_like(images, dtype=torch.bool)
    optimiser = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), lr=5e-3)
    values = []
    for _ in range(100):
        optimiser.zero_grad()
        # The same draws in every step.
        found = method(images, bodies, torch.Generator().manual_seed(0), 0, 100)
        loss = torch.stack(list(found.values())).sum()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.5 * values[0]


@pytest.mark.parametrize("name", METHODS)
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(ScreenerError, match="screener.start.options"):
        method_class(name).options({"nonsense": 1}, OPTIONS)


def test_settings_are_checked_before_anything_is_trained() -> None:
    plan = start_plan(VOLUME, "tissue")
    for wrong, message in (
        ("start.method=oracle", "no start.method 'oracle'; known: masked_autoencoder"),
        ("start.crop_size=[16, 15, 16]", "start.crop_size .* must be a multiple"),
        ("start.options.cells=3", "screener.start.options"),
    ):
        with pytest.raises(ScreenerError, match=message):
            check_settings(plan.with_settings(plan.settings.override([wrong])))
    with pytest.raises(ScreenerError, match="three numbers"):
        plan.settings.override(["start.crop_size=[16, 16]"])


def test_older_plans_have_the_defaults() -> None:
    plan = start_plan(VOLUME, "tissue")
    values = plan.settings.to_dict()
    del values["start"]
    settings = ScreenerSettings.from_dict(values)
    assert settings.start.method == "masked_autoencoder"
    assert crop_size(plan.with_settings(settings)) == settings.distillation.crop_size
    assert start_plans("A", "tissue") == "A_start_tissue"


def test_values_are_as_wide_as_nnunet_leaves_them() -> None:
    assert value_range(start_plan(VOLUME, "denoising")).flatten().tolist() == [1800 / 200]
    plan = start_plan(PICTURE, "denoising")
    assert value_range(plan).shape == (plan.channels, 1, 1, 1)
    values: dict[str, Any] = plan.to_dict()
    values["configurations"]["2d"]["normalization_schemes"] = ["ZScoreNormalization"]
    assert value_range(type(plan).from_dict(values)).flatten().tolist() == [6.0]


def test_crops_that_are_too_small_are_refused_with_the_setting() -> None:
    small = ["start.crop_size=[1, 16, 16]"]
    for name in ("contextual_position", "swin_tasks"):
        with pytest.raises(ScreenerError, match="start.crop_size"):
            build_start(start_plan(PICTURE, name, small))
    images, bodies = batch(start_plan(PICTURE, "denoising"))
    assert images.shape[2:] == bodies.shape[2:] == (1, 64, 96)
