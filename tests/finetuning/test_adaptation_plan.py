"""The second way into nnU-Net: later ones read `nnssl_adaptation_plan` and take the encoder."""

from __future__ import annotations

import json
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu.finetuning.checkpoint import stock_checkpoint
from screener_nnu.plans import StockPlan

CONFTEST = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
tiny_plan, tiny_network = CONFTEST["tiny_plan"], CONFTEST["tiny_network"]
labelled_json, CASES, TARGET = (CONFTEST[n] for n in ("labelled_json", "CASES", "TARGET"))
NEWER = "nnunetv2.experiment_planning.like_nnssl"


def residual_plan() -> StockPlan:
    """The same with the residual encoder that the larger presets have; it has a stem of its own."""
    values = tiny_plan().to_dict()
    block = values["configurations"]["3d_fullres"]["architecture"]
    name = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    block["network_class_name"] = name
    arguments = block["arch_kwargs"]
    arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
    return StockPlan(values)


@pytest.fixture(params=["plain", "residual"])
def plan(request: pytest.FixtureRequest) -> StockPlan:
    return tiny_plan() if request.param == "plain" else residual_plan()


def test_block_is_complete(plan: StockPlan, tmp_path: Any) -> None:
    """Every entry that nnU-Net reads, of the kind that it expects, in a file without code."""
    file = tmp_path / "checkpoint_final.pth"
    torch.save(stock_checkpoint(tiny_network(plan), plan, labelled_json()), file)
    checkpoint = torch.load(file, weights_only=True)
    block = checkpoint["nnssl_adaptation_plan"]
    architecture = block["architecture_plans"]
    assert set(architecture) == {"arch_class_name", "arch_kwargs", "arch_kwargs_requiring_import"}
    assert block["pretrain_num_input_channels"] == 1
    (configuration,) = block["pretrain_plan"]["configurations"].values()
    assert len(configuration["spacing"]) == len(configuration["patch_size"]) == 3
    assert len(block["recommended_downstream_patchsize"]) == 3
    assert isinstance(block["keys_to_in_proj"], list) and block["keys_to_in_proj"]
    assert all(f"{key}.weight" in checkpoint["network_weights"] for key in block["keys_to_in_proj"])
    assert block["key_to_lpe"] is None or not any(
        name.startswith(block["key_to_lpe"]) for name in checkpoint["network_weights"]
    )
    assert all({"type", "name"} <= set(citation) for citation in checkpoint["citations"])


def test_encoder_and_stem_are_found_by_their_keys(plan: StockPlan) -> None:
    """As nnU-Net does: weights by prefix, without it, strictly into a module of the network."""
    source = tiny_network(plan, seed=1)
    checkpoint = stock_checkpoint(source, plan, labelled_json())
    block, weights = checkpoint["nnssl_adaptation_plan"], checkpoint["network_weights"]
    network = tiny_network(plan, heads=3, seed=2)
    for ours, theirs in (
        (block["key_to_encoder"], network.key_to_encoder),
        (block["key_to_stem"], network.key_to_stem),
    ):
        part = {
            k.removeprefix(ours).lstrip("."): v for k, v in weights.items() if k.startswith(ours)
        }
        network.get_submodule(theirs).load_state_dict(part, strict=True)
    state = network.state_dict()
    encoder = [name for name in state if name.startswith("encoder.")]
    assert encoder and all(torch.equal(state[name], weights[name]) for name in encoder)


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec(NEWER) is None, reason="this nnU-Net has no nnUNetv2_train_pretrained"
)
@pytest.mark.parametrize("mode", ["like_pretrained", "default_nnunet"])
def test_newer_nnunet_takes_the_encoder(
    world: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.experiment_planning.like_nnssl import preprocess_like_nnssl
    from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import (
        plan_and_preprocess_entry,
    )
    from nnunetv2.run.run_training_from_pretrained import get_trainer_from_args

    words = ["nnUNetv2_plan_and_preprocess", "-d", "502", "--no_pp", "-npfp", "1"]
    monkeypatch.setattr(sys, "argv", words)
    plan_and_preprocess_entry()
    student = str(world.student)
    preprocess_like_nnssl(502, "screener", student, mode, None, 1, False)
    (plans,) = world.preprocessed.glob("ptPlans__screener*.json")
    information = json.loads(plans.read_text())["pretrain_info"]
    assert information["key_to_encoder"] == "encoder.stages"
    trainer = get_trainer_from_args(
        TARGET, "3d_fullres", "all", "PretrainedTrainer", plans.stem, torch.device("cpu")
    )
    trainer.initialize()
    state = trainer.network.state_dict()
    weights = torch.load(student, weights_only=True)["network_weights"]
    encoder = [name for name in weights if name.startswith("encoder.")]
    assert encoder and all(torch.equal(state[name], weights[name]) for name in encoder)
    assert len(
        list((world.preprocessed / trainer.configuration_manager.data_identifier).glob("*.b2nd"))
    ) >= len(CASES)
