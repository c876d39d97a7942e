"""The network block: nnU-Net's classes build it, and its sizes are counted right."""

from __future__ import annotations

import pytest
import torch

from screener_nnu.networks.unet import build_unet
from screener_nnu.planners.architecture import feature_elements, plan_architecture
from screener_nnu.planners.presets import PRESETS
from screener_nnu.plans import StockPlan

torch.set_num_threads(1)
SPACING, PATCH = (4.7173, 3.1449, 3.1449), (32, 40, 48)


def as_plan(architecture: dict) -> StockPlan:
    return StockPlan({"configurations": {"3d_fullres": {"architecture": architecture}}})


def test_widths_double_up_to_the_largest() -> None:
    block = plan_architecture((2.25, 1.5, 1.5), (64, 96, 96), PRESETS["paper"])
    arguments = block["arch_kwargs"]
    assert block["network_class_name"].endswith("ResidualEncoderUNet")
    assert arguments["features_per_stage"] == [32, 64, 128, 256, 320]
    assert arguments["n_stages"] == 5 == len(arguments["strides"])
    assert arguments["n_blocks_per_stage"] == [1, 3, 4, 6, 6]
    assert arguments["n_conv_per_stage_decoder"] == [1] * 4


def test_cpu_network_is_a_narrow_plain_unet() -> None:
    block = plan_architecture(SPACING, PATCH, PRESETS["cpu"])
    assert block["network_class_name"].endswith("PlainConvUNet")
    assert block["arch_kwargs"]["features_per_stage"] == [16, 32, 64, 128]
    assert block["arch_kwargs"]["n_conv_per_stage"] == [2, 2, 2, 2]


@pytest.mark.parametrize("name", ["cpu", "paper"])
def test_network_maps_a_patch_to_its_own_resolution(name: str) -> None:
    patch = (16, 16, 16)
    block = plan_architecture((2.0, 2.0, 2.0), patch, PRESETS[name])
    network = build_unet(as_plan(block), 2, 5, seed=0)
    with torch.no_grad():
        assert network(torch.zeros(1, 2, *patch)).shape == (1, 5, *patch)


def test_initial_weights_follow_the_seed_and_leave_the_global_state_alone() -> None:
    plan = as_plan(plan_architecture(SPACING, PATCH, PRESETS["cpu"]))
    state = torch.get_rng_state()
    first, same, other = (build_unet(plan, 1, 4, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), b, c in zip(
        first.state_dict().items(),
        same.state_dict().values(),
        other.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b), name
        if name.endswith("conv.weight"):
            assert not torch.equal(a, c), name


def test_every_weight_that_learns_gets_a_gradient() -> None:
    """Heads of lower resolutions are frozen; all others take part in the output."""
    plan = as_plan(plan_architecture((2.0, 2.0, 2.0), (16, 16, 16), PRESETS["cpu"]))
    network = build_unet(plan, 1, 3, seed=0)
    network(torch.randn(2, 1, 16, 16, 16)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert any(not p.requires_grad for p in network.parameters())


def test_divisor_is_the_product_of_strides() -> None:
    block = plan_architecture(SPACING, PATCH, PRESETS["cpu"])
    network, divisor = build_unet(as_plan(block), 1, 1, seed=0), as_plan(block).divisor
    assert divisor == (8, 8, 8)
    with torch.no_grad():
        network(torch.zeros(1, 1, *divisor).repeat(1, 1, 2, 2, 2))
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 1, 2 * divisor[0], 2 * divisor[1], 2 * divisor[2] + 4))


@pytest.mark.parametrize("name", ["cpu", "balanced"])
def test_elements_are_the_outputs_of_all_convolutions(name: str) -> None:
    """Counted by running the network with a hook on each convolution, on the meta device."""
    block = plan_architecture(SPACING, PATCH, PRESETS[name])
    counted, parameters = feature_elements(block, PATCH)
    with torch.device("meta"):
        network = build_unet(as_plan(block), 1, 2)
        image = torch.zeros(1, 1, *PATCH)
    seen: list[int] = []
    kinds = (torch.nn.Conv3d, torch.nn.ConvTranspose3d)
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _, __, output: seen.append(output.numel()))
    network(image)
    assert counted == pytest.approx(sum(seen), rel=0.06)
    assert parameters == sum(p.numel() for p in network.parameters())


def test_elements_grow_with_the_patch() -> None:
    block = plan_architecture((2.0, 2.0, 2.0), (32, 32, 32), PRESETS["balanced"])
    small, _ = feature_elements(block, (32, 32, 32))
    large, _ = feature_elements(block, (64, 32, 32))
    assert large == pytest.approx(2 * small, rel=1e-6)
