from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import (
    check_same_input,
    input_differences,
    read_checkpoint,
    stock_checkpoint,
    unwrap,
)
from screener_nnu.plans import StockPlan

_made = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
tiny_plan, tiny_network, labelled_json = (
    _made[name] for name in ("tiny_plan", "tiny_network", "labelled_json")
)


def test_file_is_plain_and_no_larger_than_the_parameters(tmp_path: Path) -> None:
    plan = tiny_plan((32, 64, 64))
    network = tiny_network(plan)
    path = tmp_path / "student.pth"
    torch.save(stock_checkpoint(network, plan, labelled_json(), extra={"epoch": 3}), path)
    checkpoint = torch.load(path, weights_only=True)
    parameters = sum(4 * p.numel() for p in network.parameters())
    names = sum(4 * p.numel() for p in network.state_dict().values())
    assert names > 2 * parameters  # names repeat, so a copy per name would show
    assert parameters < path.stat().st_size < parameters + 100_000
    assert checkpoint["epoch"] == 3
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"]["configuration"] == "3d_fullres"
    for key, tensor in network.state_dict().items():
        assert torch.equal(checkpoint["network_weights"][key], tensor)


def test_half_precision_weights_become_float32_and_stay_shared() -> None:
    plan = tiny_plan()
    weights = stock_checkpoint(tiny_network(plan).half(), plan, {})["network_weights"]
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    distinct = {tensor.data_ptr() for tensor in weights.values()}
    assert len(distinct) == len(list(tiny_network(plan).parameters()))


def test_wrapped_network_loses_its_prefix() -> None:
    plan = tiny_plan()
    network = tiny_network(plan)
    wrapped = torch.nn.DataParallel(network)
    weights = stock_checkpoint(wrapped, plan, {})["network_weights"]
    assert list(weights) == list(network.state_dict())


def test_adaptation_block_names_parts_of_the_network() -> None:
    plan = tiny_plan()
    checkpoint = stock_checkpoint(tiny_network(plan), plan, {})
    block, names = checkpoint["nnssl_adaptation_plan"], list(checkpoint["network_weights"])
    assert block["key_to_encoder"] == "encoder.stages"
    for key in (block["key_to_stem"], *block["keys_to_in_proj"]):
        assert any(name.startswith(f"{key}.") for name in names)
    assert block["recommended_downstream_patchsize"] == [16, 16, 16]
    assert list(block["pretrain_plan"]["configurations"].values()) == [
        {"spacing": [1.5, 1.5, 1.5], "patch_size": [16, 16, 16]}
    ]


class Wrapped(torch.nn.Module):
    """As `torch.compile` and distributed training wrap a network."""

    def __init__(self, name: str, inner: torch.nn.Module) -> None:
        super().__init__()
        setattr(self, name, inner)


@pytest.mark.parametrize("order", [("module", "_orig_mod"), ("_orig_mod", "module"), ("module",)])
def test_wrappers_are_taken_off_in_any_order(order: tuple[str, ...]) -> None:
    """nnU-Net compiles before it distributes."""
    network = wrapped = tiny_network(tiny_plan())
    for name in order:
        wrapped = Wrapped(name, wrapped)
    assert unwrap(wrapped) is network


def test_extra_entries_may_not_hide_the_weights() -> None:
    plan = tiny_plan()
    with pytest.raises(ValueError, match="network_weights"):
        stock_checkpoint(tiny_network(plan), plan, {}, extra={"network_weights": {}})


def test_unreadable_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    with pytest.raises(ScreenerError, match="no checkpoint"):
        read_checkpoint(path)
    path.write_bytes(b"torn")
    with pytest.raises(ScreenerError, match="cannot be read"):
        read_checkpoint(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ScreenerError, match="network_weights"):
        read_checkpoint(path)


@pytest.mark.parametrize("change", ["spacing", "window"])
def test_changed_plan_is_refused_though_all_shapes_fit(change: str) -> None:
    plan = tiny_plan()
    changed = plan.to_dict()
    checkpoint = stock_checkpoint(tiny_network(plan), plan, {})
    check_same_input(checkpoint, plan)
    if change == "spacing":
        changed["configurations"]["3d_fullres"]["spacing"] = [2.0, 1.5, 1.5]
    else:
        changed["foreground_intensity_properties_per_channel"]["0"]["percentile_99_5"] = 400.0
    with pytest.raises(ScreenerError, match="plan has changed"):
        check_same_input(checkpoint, StockPlan(changed))


@pytest.mark.parametrize("held", [None, [], {"network_weights": 3}, {"network_weights": {"a": 1}}])
def test_what_holds_no_weights_is_no_checkpoint(tmp_path: Path, held: object) -> None:
    path = tmp_path / "odd.pth"
    torch.save(held, path)
    with pytest.raises(ScreenerError, match=f"{path} holds no 'network_weights'.*; give the "):
        read_checkpoint(path)


def test_a_checkpoint_whose_origin_is_nonsense_is_of_unknown_origin() -> None:
    assert input_differences({"init_args": None}, tiny_plan()) == []
    odd = input_differences({"init_args": {"plans": {"configurations": None}}}, tiny_plan())
    assert len(odd) == 1 and odd[0].startswith("the plan it was trained with has no")
