from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.compare import compare_with_network, require_match, summary_table

_made = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
tiny_plan, tiny_network, labelled_json = (
    _made[name] for name in ("tiny_plan", "tiny_network", "labelled_json")
)


def test_everything_but_the_heads_is_transferred() -> None:
    plan = tiny_plan()
    weights = tiny_network(plan, heads=1).state_dict()
    rows = compare_with_network(weights, plan, labelled_json())
    heads = sum(".seg_layers." in key for key in weights)
    assert heads == 4  # weight and bias at two resolutions
    assert require_match(rows) == len(weights) - heads
    reset = [row for row in rows if row.status == "reset"]
    assert {row.key for row in reset} == {key for key in weights if ".seg_layers." in key}
    # One student channel against background and lesion.
    assert all((row.checkpoint[0], row.network[0]) == (1, 2) for row in reset)


def test_table_counts_each_block() -> None:
    plan = tiny_plan()
    weights = tiny_network(plan).state_dict()
    lines = summary_table(compare_with_network(weights, plan, labelled_json())).splitlines()
    in_stage_2 = sum("encoder.stages.2." in key for key in weights)
    table = {line[:20].strip(): line.split()[-3:] for line in lines[1:]}
    assert list(table)[:3] == ["encoder stage 0", "encoder stage 1", "encoder stage 2"]
    assert table["encoder stage 2"] == [str(in_stage_2), "of", str(in_stage_2)]
    assert table["all"] == [str(len(weights) - 4), "of", str(len(weights))]
    assert "0 of 4     4 reset" in next(line for line in lines if "heads" in line)


def test_other_widths_raise_with_a_line_a_tensor() -> None:
    weights = tiny_network(tiny_plan((4, 6, 8))).state_dict()
    rows = compare_with_network(weights, tiny_plan((4, 8, 8)), labelled_json())
    with pytest.raises(ScreenerError) as caught:
        require_match(rows)
    message = str(caught.value)
    assert "encoder.stages.1.0.convs.0.conv.weight" in message
    assert "6 x 4 x 3 x 3 x 3" in message and "8 x 4 x 3 x 3 x 3" in message
    assert "mismatch" in summary_table(rows)


def test_encoder_alone_raises() -> None:
    plan = tiny_plan()
    weights = {k: v for k, v in tiny_network(plan).state_dict().items() if k.startswith("encoder.")}
    rows = compare_with_network(weights, plan, labelled_json())
    missing = [row for row in rows if row.status == "missing"]
    assert all(row.checkpoint is None and row.key.startswith("decoder.") for row in missing)
    with pytest.raises(ScreenerError, match="do not fit"):
        require_match(rows)


def test_deeper_checkpoint_shows_its_unused_tensors() -> None:
    plan = tiny_plan()
    weights = {
        **tiny_network(plan).state_dict(),
        "expander.0.weight": next(iter(tiny_network(plan).parameters())),
    }
    rows = compare_with_network(weights, plan, labelled_json())
    assert [row.key for row in rows if row.status == "unused"] == ["expander.0.weight"]
    assert "1 tensors of the checkpoint have no place" in summary_table(rows)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_wrapped_names_are_refused(prefix: str) -> None:
    plan = tiny_plan()
    weights = {f"{prefix}{k}": v for k, v in tiny_network(plan).state_dict().items()}
    with pytest.raises(ScreenerError, match="wrapped"):
        compare_with_network(weights, plan, labelled_json())
