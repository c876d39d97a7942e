"""The memory formula against autograd's own bytes, and the order in which numbers give way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from screener_nnu.networks.unet import build_unet
from screener_nnu.planners.architecture import feature_elements, plan_architecture
from screener_nnu.planners.memory import (
    BYTES_PER_ELEMENT,
    CONTEXT_GB,
    Fit,
    estimate_gb,
    fit_to_memory,
    volume_grid,
)
from screener_nnu.planners.presets import PRESETS, Preset
from screener_nnu.plans import StockPlan

torch.set_num_threads(1)
THIN, BODY = (1.5, 0.75, 0.75), (400.0, 320.0, 420.0)
SPACING, PATCH = (2.25, 1.5, 1.5), (64, 96, 96)


def fit(preset: str, memory_gb: float, spacing: tuple[float, float, float] = THIN) -> Fit:
    return fit_to_memory(PRESETS[preset], volume_grid(spacing, BODY), memory_gb)


def saved_bytes(preset: Preset, patch: tuple[int, int, int]) -> int:
    """Float32 bytes that autograd keeps for a backward pass of one crop, each storage once."""
    block = plan_architecture(SPACING, patch, preset)
    with torch.device("meta"):
        plan = StockPlan({"configurations": {"3d_fullres": {"architecture": block}}})
        network = build_unet(plan, 1, preset.channels)
        image = torch.zeros(1, 1, *patch)
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(image)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(
    ("name", "patch"),
    [("paper", PATCH), ("paper", (32, 96, 96)), ("paper", (48, 48, 48)), ("cpu", (32, 40, 48))],
)
def test_activations_are_bounded_by_what_autograd_keeps(
    name: str, patch: tuple[int, int, int]
) -> None:
    """No step can do with less than the saved tensors in half precision; and not four times more.

    Temporary buffers, gradients and cuDNN's workspaces make the difference.
    """
    preset = PRESETS[name]
    half = saved_bytes(preset, patch) / 2
    elements, _ = feature_elements(plan_architecture(SPACING, patch, preset), patch)
    assert half < elements * BYTES_PER_ELEMENT < 4 * half


@pytest.mark.parametrize(("volumes", "positives"), [(8, 1024), (1, 16)])
def test_estimate_holds_at_least_activations_weights_and_head(volumes: int, positives: int) -> None:
    """Against what must be there at once; of one small pair, AdamW's state is nearly all."""
    preset = replace(PRESETS["paper"], volumes=volumes, positives=positives)
    _, parameters = feature_elements(plan_architecture(SPACING, PATCH, preset), PATCH)
    width, rows = preset.head_width, 2 * volumes * positives
    needed = (
        2 * volumes * saved_bytes(preset, PATCH) / 2
        + 16 * (parameters + width * (preset.channels + 2 * width))
        + 3 * 4 * rows * width  # outputs of the head's three layers
        + 2 * 4 * width * min(width, rows)  # one covariance a view
    ) / 1024**3
    assert needed < estimate_gb(preset, SPACING, PATCH) - CONTEXT_GB < 2.5 * needed


@pytest.mark.parametrize(
    "change",
    [
        {"volumes": 9},
        {"positives": 2048},
        {"head_width": 9000},
        {"channels": 64},
        {"base_width": 40},
    ],
)
def test_estimate_grows_with_every_number(change: dict[str, int]) -> None:
    preset = PRESETS["paper"]
    more = replace(preset, **change)  # type: ignore[arg-type]
    assert estimate_gb(more, SPACING, PATCH) > 1.001 * estimate_gb(preset, SPACING, PATCH)


def test_the_paper_fits_its_own_device_untouched() -> None:
    made = fit("paper", 80.0)
    assert made.given_way == () and made.spacing == SPACING and made.patch == PATCH
    assert made.preset == PRESETS["paper"]


def test_numbers_give_way_in_the_order_of_the_design() -> None:
    """Expander, positives, volumes, width, and only then the crop."""
    seen: list[str] = []
    for memory in np.geomspace(40, 1.7, 60):
        made = fit("paper", float(memory))
        words = [w for w in made.given_way if not w.startswith("nothing")]
        assert words[: len(seen)] == seen[: len(words)]
        seen = max(seen, words, key=len)
    assert seen[:8] == [
        "head 8192 -> 2048",
        "head 2048 -> 512",
        "positives 1024 -> 512",
        "volumes a step 8 -> 4",
        "volumes a step 4 -> 2",
        "network width 32 -> 24",
        "network width 24 -> 16",
        "crop 589824 -> 294912 voxels",
    ]
    assert all(word.startswith("crop") for word in seen[7:])


@pytest.mark.parametrize("spacing", [THIN, (5.0, 0.75, 0.75), (2.5, 3.906, 3.906)])
@pytest.mark.parametrize("memory_gb", [4.0, 8.0, 11.0, 16.0, 24.0, 40.0, 80.0])
def test_estimate_stays_within_nine_tenths_and_no_step_back_was_needless(
    memory_gb: float, spacing: tuple[float, float, float]
) -> None:
    made = fit("paper", memory_gb, spacing)
    assert made.estimate_gb <= 0.9 * memory_gb
    assert made.estimate_gb == pytest.approx(
        estimate_gb(made.preset, made.spacing, made.patch), rel=1e-9
    )
    if made.given_way:
        last = made.given_way[-1]
        kinds = {"head": "head_width", "positives": "positives", "volumes": "volumes"}
        field = next((f for k, f in kinds.items() if last.startswith(k)), None)
        if field:
            before = int(last.split(" -> ")[0].split()[-1])
            larger = replace(made.preset, **{field: before})  # type: ignore[arg-type]
            assert estimate_gb(larger, made.spacing, made.patch) > 0.9 * memory_gb


def test_memory_left_over_goes_to_the_batch_up_to_the_papers_voxels() -> None:
    coarse = fit("paper", 80.0, (5.0, 0.75, 0.75))
    assert coarse.patch == (32, 96, 96) and coarse.preset.volumes == 16
    tight = fit("paper", 24.0, (3.27, 2.0, 2.0))
    assert tight.given_way == () and tight.preset.volumes in (10, 12, 14)
    more = replace(tight.preset, volumes=tight.preset.volumes + 2)
    assert estimate_gb(more, tight.spacing, tight.patch) > 0.9 * 24


def test_the_cpu_preset_is_planned_for_time_and_does_not_grow() -> None:
    assert fit("cpu", 1000.0).preset == PRESETS["cpu"]


def test_says_so_when_nothing_is_left_to_shrink() -> None:
    made = fit("paper", 1.0)
    assert made.given_way[-1].startswith("nothing is left to shrink")
    assert f"{made.estimate_gb:.1f} GB" in made.given_way[-1]
