"""A CUDA device computes what a processor computes, up to the precision that is meant."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from screener_nnu.checkpoints import read_checkpoint
from screener_nnu.inference.api import as_raw_image, load_predictor
from screener_nnu.losses.infonce import DenseInfoNCE
from screener_nnu.losses.vicreg import DenseVICReg
from screener_nnu.synthetic import generate_phantom
from screener_nnu.trainers.base import ScreenerTrainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

STAGES = ("descriptor", "condition", "density", "distillation")
SPACING = (12.0, 9.0, 9.0)


def train(stage: str, *arguments: str) -> None:
    from screener_nnu.commands.train import main

    main(["901", "3d_fullres", stage, "-device", "cuda", *arguments])


def scores(teacher: bool, device: str) -> np.ndarray:
    scan = generate_phantom(11, SPACING).image_hu.astype(np.int16)
    predictor = load_predictor(901, detector="teacher" if teacher else "student", device=device)
    return sitk.GetArrayFromImage(predictor.predict(as_raw_image(scan, SPACING)).score)


@pytest.mark.parametrize("teacher", [False, True])
def test_maps_equal_those_of_a_processor(trained: Any, teacher: bool) -> None:
    on_cpu, on_gpu = (scores(teacher, device) for device in ("cpu", "cuda"))
    assert on_cpu.std() > 0
    # bfloat16 has 8 bits: emulated on a processor it changes these maps by 0.7 %.
    assert np.sqrt(np.mean((on_gpu - on_cpu) ** 2)) < 0.03 * on_cpu.std()


@pytest.mark.parametrize("compiled", [False, True])
def test_chain_trains_on_the_device(
    trained: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_compile", str(compiled))
    plan = ("-p", "OnDevice", "--from_plans", "ScreenerPlans", "-o", "workers=1")
    train("chain", *plan)
    for stage in STAGES:
        on_cpu, on_gpu = (
            read_checkpoint(trained.stage(stage, name) / "checkpoint_final.pth")
            for name in ("ScreenerPlans", "OnDevice")
        )
        # A compiled network's weights have the names of a plain one's.
        assert list(on_gpu["network_weights"]) == list(on_cpu["network_weights"])
        assert all(value.isfinite().all() for value in on_gpu["network_weights"].values())
        assert np.isfinite(on_gpu["logging"]["values"]["figures"]).all()


def test_an_interrupted_run_goes_on(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ("-p", "Cut", "-o", "descriptor.optimiser.steps=8")
    with monkeypatch.context() as patch:
        patch.setattr(ScreenerTrainer, "on_train_epoch_start", second_epoch_fails)
        with pytest.raises(InterruptedError):
            train("descriptor", *plan)
    folder = trained.stage("descriptor", "Cut")
    cut = read_checkpoint(folder / "checkpoint_latest.pth")
    assert cut["global_step"] == 2
    train("descriptor", *plan)
    whole = read_checkpoint(folder / "checkpoint_final.pth")
    assert whole["global_step"] == 8
    losses = (c["logging"]["values"]["train_losses"] for c in (cut, whole))
    first, every = losses
    assert len(every) == 4 and every[:1] == first and np.isfinite(every).all()


def second_epoch_fails(
    trainer: ScreenerTrainer, start: Any = ScreenerTrainer.on_train_epoch_start
) -> None:
    if trainer.current_epoch == 1:
        raise InterruptedError
    start(trainer)


@pytest.mark.parametrize("loss", [DenseInfoNCE(), DenseVICReg()])
def test_losses_equal_those_of_a_processor(loss: Any) -> None:
    views = torch.randn(2, 256, 32, dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        first, second = (v.detach().to(device).requires_grad_() for v in views)
        value, _ = loss(first, second)
        value.backward()
        results.append((value.cpu(), first.grad.cpu(), second.grad.cpu()))
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-9, atol=1e-12)


def test_flow_equals_nflows_on_the_device() -> None:
    benchmark = runpy.run_path(
        str(Path(__file__).parents[1] / "benchmarks" / "benchmark_flow.py"), run_name="flow"
    )
    stock = benchmark["stock_flow"](16, 16, 4, 64).double().cuda()
    ours = benchmark["same_flow"](stock, 16, 16, 4, 64).cuda()
    y, c = torch.randn(2, 1001, 16, dtype=torch.float64, device="cuda")
    torch.testing.assert_close(
        benchmark["log_prob"](ours, y, c), stock.log_prob(y, context=c), rtol=1e-9, atol=0
    )
