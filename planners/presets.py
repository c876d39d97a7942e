"""Presets: what a plan aims at, before the data and the memory have their say."""

from __future__ import annotations

from dataclasses import dataclass, replace

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import CONDITION, SCORE, IgdSettings, JitterSettings, OptimiserSettings

PAPER_CROP_VOXELS = 96 * 96 * 64
PAPER_VOLUMES = 8


@dataclass(frozen=True)
class Preset:
    """Starting values of the planner.

    Attributes:
        memory_gb: device memory that the plan must fit into.
        crop_voxels: voxels of a crop of self-supervision at most.
        residual_encoder: nnU-Net's residual encoder UNet, else its plain UNet.
        base_width, max_width: channels of the first stage and at most.
        channels: channels of descriptor and condition.
        equalisation, jitter: contrast of the images, and how the self-supervised stages change it.
        loss, head_width, volumes, positives: of the dense self-supervised stages.
        density, hidden, flow_steps: kind, in CT, and size of the density.
        tile_factor: edge of the density's crops and of the teacher's tiles, in crops.
        pretext: optimiser of the image-level pre-training.
        igd: optimiser of the auto-encoder of normal images.
        baseline: optimiser of methods of other groups, detectors and starts of fine-tuning.
        baseline_crops: crops of a step of such a detector.
        student: what the student learns, see `DistillationSettings`.
        distillation_factor, distillation_volumes: edge of the student's crops, in crops, and how
            many of them are in a step, where it learns the score.
        distillation_scans: that these are taken from (0: all); the teacher scores each of them.
        pooled_mm: edge of a position of the density grid.
        whole_scans, max_scans, scan_positions: fit densities to stored maps of so many whole scans
            and so many positions of a scan in a step (0: all), not to random crops.
        descriptor, condition, position, density_steps, distillation: optimiser of each stage.
        finetuning_batch: largest batch of the stock configuration.
        workers: reading processes.
    """

    name: str
    memory_gb: float
    crop_voxels: int
    residual_encoder: bool
    base_width: int
    max_width: int
    channels: int
    equalisation: str
    jitter: JitterSettings
    loss: str
    head_width: int
    volumes: int
    positives: int
    density: str
    hidden: int
    flow_steps: int
    tile_factor: int
    student: str
    distillation_factor: float
    pooled_mm: float
    descriptor: OptimiserSettings
    condition: OptimiserSettings
    position: OptimiserSettings
    density_steps: OptimiserSettings
    distillation: OptimiserSettings
    pretext: OptimiserSettings
    igd: OptimiserSettings
    baseline: OptimiserSettings
    baseline_crops: int
    density_volumes: int
    whole_scans: bool
    max_scans: int
    scan_positions: int
    distillation_volumes: int
    distillation_scans: int
    finetuning_batch: int
    workers: int


def _paper_steps(steps: int) -> OptimiserSettings:
    # The authors' 10,000 steps of warm-up, less where a stage is shorter than theirs.
    return OptimiserSettings(
        steps=steps, steps_per_epoch=1000, warmup_steps=min(10_000, steps // 30)
    )


def _pretext_steps(steps: int, steps_per_epoch: int) -> OptimiserSettings:
    # Rate and decay of Tian et al., "PMSACL" and "CCD". They print no clipping; without it, the
    # first steps throw directions about that are seen from a centre nearby.
    return OptimiserSettings(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=0,
        learning_rate=0.01,
        weight_decay=3e-4,
    )


def _igd_steps(steps: int, steps_per_epoch: int) -> OptimiserSettings:
    optimiser = IgdSettings().optimiser
    return replace(optimiser, steps=steps, steps_per_epoch=steps_per_epoch)


def _cpu_steps(steps: int, learning_rate: float, steps_per_epoch: int = 50) -> OptimiserSettings:
    return OptimiserSettings(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=steps // 20,
        learning_rate=learning_rate,
        eps=1e-8,
    )


def _accelerator(name: str, memory_gb: float, steps: tuple[int, int, int]) -> Preset:
    contrast, density, distillation = steps
    return Preset(
        name=name,
        memory_gb=memory_gb,
        crop_voxels=PAPER_CROP_VOXELS,
        residual_encoder=True,
        base_width=32,
        max_width=320,
        channels=32,
        equalisation="adaptive",
        jitter=JitterSettings(),
        loss="vicreg",
        head_width=8192,
        volumes=PAPER_VOLUMES,
        positives=1024,
        density="flow",
        hidden=512,
        flow_steps=64,
        tile_factor=1,
        student=SCORE,
        distillation_factor=1.0,
        pooled_mm=4.5,
        descriptor=_paper_steps(contrast),
        condition=_paper_steps(contrast),
        position=_paper_steps(contrast // 2),
        density_steps=_paper_steps(density),
        distillation=_paper_steps(distillation),
        pretext=_pretext_steps(distillation // 2, 500),
        # 256 epochs of 1600 images by 16, as published.
        igd=_igd_steps(25_600, 500),
        # Between what the authors of these methods take, 30,000 and 100,000.
        baseline=OptimiserSettings(
            steps=50_000, steps_per_epoch=1000, warmup_steps=1000, learning_rate=1e-3, eps=1e-8
        ),
        baseline_crops=8,
        density_volumes=4,
        whole_scans=False,
        max_scans=0,
        scan_positions=0,
        distillation_volumes=8,
        distillation_scans=0,
        finetuning_batch=8,
        workers=8,
    )


# Few steps teach a network what jitter hides, and not yet what remains: see results.md.
_SMALL_JITTER = JitterSettings(
    noise=0.05, brightness=(0.97, 1.03), contrast=(0.95, 1.05), gamma=(0.95, 1.05)
)

PRESETS = {
    "paper": _accelerator("paper", 80.0, (300_000, 500_000, 300_000)),
    "balanced": _accelerator("balanced", 24.0, (100_000, 100_000, 50_000)),
    "cpu": Preset(
        name="cpu",
        memory_gb=8.0,
        crop_voxels=40**3,
        residual_encoder=False,
        base_width=16,
        max_width=128,
        channels=16,
        equalisation="none",
        jitter=_SMALL_JITTER,
        loss="infonce",
        head_width=512,
        volumes=4,
        positives=512,
        # Few steps of a descriptor leave much to filters: see results.md.
        density="experts",
        hidden=64,
        flow_steps=8,
        tile_factor=3,
        # In few steps a head learns the condition, and no UNet the score: see results.md.
        student=CONDITION,
        # One crop of 64^3 in place of four of 40^3: instance normalisation sees more of what it
        # sees in the tiles of a prediction.
        distillation_factor=1.6,
        pooled_mm=8.0,
        descriptor=_cpu_steps(1000, 2e-3),
        condition=_cpu_steps(850, 2e-3),
        position=_cpu_steps(400, 2e-3),
        # Flows gain for long, and a step of both takes a tenth of one of the descriptor's.
        density_steps=_cpu_steps(4000, 4e-3, 500),
        distillation=_cpu_steps(1500, 3e-3, 100),
        pretext=_pretext_steps(400, 50),
        igd=_igd_steps(400, 20),
        baseline=_cpu_steps(1200, 1e-3),
        baseline_crops=4,
        density_volumes=8,
        whole_scans=True,
        max_scans=80,
        scan_positions=512,
        distillation_volumes=1,
        # Of its thousand crops: with more scans, most would be scored for one crop or none.
        distillation_scans=400,
        finetuning_batch=2,
        workers=0,
    ),
}


def preset_named(name: str) -> Preset:
    """The preset of that name; `ScreenerError` lists the known ones."""
    if name not in PRESETS:
        raise ScreenerError(f"no preset '{name}'; known: {', '.join(PRESETS)}")
    return PRESETS[name]
