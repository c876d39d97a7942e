"""What MedMix and weak views cost beside the network of a step of image-level pre-training.

    OMP_NUM_THREADS=1 python tests/benchmarks/benchmark_medmix.py [--device cuda] [--repeats 20]

A step makes two views of four classes of each image, as `pretext` does with `pmsacl`. Compared is a
bare forward and backward pass of the same batch: of timm's ResNet18 on pictures of 128 x 128, and
of the encoder of the preset `cpu` on crops of 40^3. Both alternate in one process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import timm
import torch
from torch import Tensor, nn

from screener_nnu.networks.unet import build_unet, low_precision
from screener_nnu.planners.architecture import plan_architecture
from screener_nnu.planners.presets import PRESETS
from screener_nnu.plans import VOLUMES, JitterSettings, StockPlan
from screener_nnu.pretext_settings import MedMixSettings, ViewSettings
from screener_nnu.sampling.views import weak_views
from screener_nnu.synthetic.shifts import shift_of

_CLASSES = 4
_SPACING = (3.6, 3.9, 3.9)
#: Images of a step: grey and colour pictures, and crops of volumes.
_BATCHES = {
    "grey pictures": (4, 1, 1, 128, 128),
    "colour pictures": (4, 3, 1, 128, 128),
    "volumes": (2, 1, 40, 40, 40),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--float32", action="store_true", help="networks in single precision")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print(
        f"{'images':16}{'MedMix ms':>11}{'views ms':>10}{'network ms':>12}{'images/s':>10}  share"
    )
    for name, shape in _BATCHES.items():
        times = _measure(shape, device, arguments.repeats, not arguments.float32)
        pasting, viewing, network = (1000 * median(values) for values in times)
        augmenting = pasting + viewing
        print(
            f"{name:16}{pasting:11.1f}{viewing:10.1f}{network:12.1f}"
            f"{1000 * shape[0] / augmenting:10.1f}{augmenting / (augmenting + network):7.1%}",
            flush=True,
        )


def _measure(
    shape: tuple[int, ...], device: torch.device, repeats: int, low: bool
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of patches, views and network in every step but the first."""
    generator = torch.Generator(device).manual_seed(0)
    images = torch.rand(shape, generator=generator, device=device)
    bodies = torch.ones((shape[0], *shape[2:]), dtype=torch.bool, device=device)
    bodies[..., : shape[-1] // 5] = False
    network = (_resnet() if shape[2] == 1 else _encoder()).to(device)
    times: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(repeats + 1):
        pasted = _timed(times[0], device, lambda: _pasted(images, bodies, generator))
        views = _timed(times[1], device, lambda p=pasted: _views(p, generator))  # type: ignore[misc]
        _timed(times[2], device, lambda v=views: _pass(network, v, low))  # type: ignore[misc]
    return times[0][1:], times[1][1:], times[2][1:]


def _timed(into: list[float], device: torch.device, work: Callable[[], Tensor]) -> Tensor:
    """Of this process on a CPU, where other programs would count else."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    into.append(clock() - start)
    return result


def _pasted(images: Tensor, bodies: Tensor, generator: torch.Generator) -> Tensor:
    shift, settings = shift_of("medmix", _CLASSES), MedMixSettings()
    classes = [shift(images, bodies, n, generator, settings)[0] for n in range(_CLASSES)]
    return torch.cat(classes)


def _views(pasted: Tensor, generator: torch.Generator) -> Tensor:
    pairs = torch.cat([pasted, pasted])
    return weak_views(pairs, generator, ViewSettings(), JitterSettings(), _SPACING)[0]


def _pass(network: nn.Module, views: Tensor, low: bool) -> Tensor:
    if views.shape[2] == 1:
        views = views[:, :, 0].expand(-1, 3, -1, -1)
    with low_precision(views.device, low):
        features = network(views)
    loss = (features[-1] if isinstance(features, list) else features).float().square().mean()
    loss.backward()
    return loss.detach()


def _resnet() -> nn.Module:
    return timm.create_model("resnet18", pretrained=False, num_classes=0)


def _encoder() -> nn.Module:
    architecture = plan_architecture(_SPACING, (40, 40, 40), PRESETS["cpu"])
    plan = StockPlan({"configurations": {VOLUMES: {"architecture": architecture}}})
    return build_unet(plan, 1, 1, seed=0).encoder


if __name__ == "__main__":
    main()
