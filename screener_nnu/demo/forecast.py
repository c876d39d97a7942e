"""How long the demo will take on this machine, from a few training steps of its network."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

from screener_nnu.demo.settings import DemoSize

# The default demo, 13 min 33 s on two cores where a step of the trial takes 0.62 s: phantoms, files
# and starts of processes, which do not depend on the network, and the rest in steps of the trial.
_STEPS, _OTHER_SECONDS = 1120.0, 120.0
_TRIAL_STEPS = 3
_CROPS, _EDGE = 8, 40
_SPACING = (3.0, 3.0, 3.0)


def expected_minutes(size: DemoSize) -> float:
    """Minutes that a demo will take on the processor, to within a half of it or so.

    Args:
        size: of the demo, compared with the default one by its steps.
    """
    default = DemoSize()
    share = _training_steps(size) / _training_steps(default)
    return (_OTHER_SECONDS + share * _STEPS * _seconds_of_a_step(size.width)) / 60


def _training_steps(size: DemoSize) -> float:
    # A step of the student's head takes a tenth of one of a network.
    student = size.distillation / 10
    return size.descriptor + size.condition + student + 2 * size.epochs * size.iterations


def _seconds_of_a_step(width: int) -> float:
    """A step of the descriptor's network, the fastest of a few."""
    import torch

    from screener_nnu.networks.unet import build_unet, low_precision
    from screener_nnu.planners.architecture import plan_architecture
    from screener_nnu.planners.presets import PRESETS
    from screener_nnu.plans import VOLUMES, StockPlan

    preset = replace(PRESETS["cpu"], base_width=width)
    patch = (_EDGE, _EDGE, _EDGE)
    block = {"architecture": plan_architecture(_SPACING, patch, preset)}
    network = build_unet(StockPlan({"configurations": {VOLUMES: block}}), 1, 32)
    crops = torch.rand(_CROPS, 1, *patch)
    seconds = []
    for _ in range(1 + _TRIAL_STEPS):  # the first one prepares the kernels
        begun = perf_counter()
        with low_precision(torch.device("cpu"), True):
            loss = network(crops).float().square().mean()
        loss.backward()
        seconds.append(perf_counter() - begun)
    return min(seconds[1:])
