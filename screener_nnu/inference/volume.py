"""Scores of one prepared scan: what the networks see, and the map on the plan's grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from screener_nnu.descriptors.base import EQUALISED, HU, ImageKind, beyond
from screener_nnu.detectors.base import Detector
from screener_nnu.inference.sliding_window import Part, cells_to_voxels, score_volume
from screener_nnu.inference.tile_memory import affordable_tile, tiles_at_once
from screener_nnu.inference.tiles import needed_cells, needed_voxels, voxels_of_cells
from screener_nnu.plans import Plan, Shape, StockPlan
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.sampling.crops import as_batch
from screener_nnu.scoring.contrast import local_contrast
from screener_nnu.scoring.teacher import Teacher, mean_descriptor


def normalised(values: torch.Tensor, plan: StockPlan) -> torch.Tensor:
    """Images (B, C, D, H, W) as stock nnU-Net normalises them.

    That is `CTNormalization` with the plan's four values of each channel; MR is stored as
    `ZScoreNormalization` makes it.
    """
    if not plan.standardises:
        return values.float()
    channels = []
    for channel in range(plan.channels):
        low, high, mean, std = plan.intensities_of(channel)
        clipped = values[:, channel : channel + 1].float().clamp(low, high)
        channels.append((clipped - mean) / max(std, 1e-8))
    return torch.cat(channels, dim=1) if len(channels) > 1 else channels[0]


def on_plan_grid(image: torch.Tensor, grid_shape: Shape) -> torch.Tensor:
    """An image (stored grid), (D, H, W) or (C, D, H, W) in colour, on the plan's grid."""
    if tuple(image.shape[-3:]) == tuple(grid_shape):
        return image.float()
    resized = F.interpolate(as_batch(image), grid_shape, mode="trilinear")[0]
    return resized if image.ndim == 4 else resized[0]


#: Gives an image of a scan (D, H, W), or (C, D, H, W) in colour, on the plan's grid: `equalised`
#: or `hu`.
Images = Callable[[ImageKind], torch.Tensor]


def images_of(cases: CaseFolder, case: str) -> Images:
    """The images of a prepared case; they are read when they are asked for."""

    def image(kind: ImageKind) -> torch.Tensor:
        return on_plan_grid(torch.from_numpy(cases.read(case, kind)), cases.shape(case, "hu"))

    return image


def with_overlap(plan: Plan, overlap: float) -> Plan:
    """The same plan whose tiles overlap by another fraction."""
    return plan.with_settings(plan.settings.override([f"inference.overlap={overlap}"]))


class _Maps:
    """Gives pooled maps as `score_volume` wants them."""

    def __init__(self, cell: Shape, maps: Callable[..., torch.Tensor]) -> None:
        self.cell = cell
        self.maps = maps

    def __call__(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        return self.maps(image, start, extent)


def stitched_maps(
    maps: Callable[..., torch.Tensor],
    cell: Shape,
    image: torch.Tensor,
    plan: Plan,
    needed: np.ndarray | None = None,
    tile: Shape | None = None,
    part: Part | None = None,
    divisor: Shape | None = None,
    reads: ImageKind = EQUALISED,
) -> torch.Tensor:
    """Pooled maps of a whole image, averaged where tiles overlap.

    Args:
        maps: (image, start, extent) -> (B, channels, d, h, w), see `FeatureExtractor`.
        cell: voxels per axis of a position.
        image: (D, H, W) or (C, D, H, W), on the plan's grid.
        plan: with the tile and its overlap.
        needed: (D, H, W) voxels whose maps are asked for; all by default.
        tile: another one than the plan's.
        part: of which scan the image is a part; by default it is the whole scan.
        divisor: what starts of tiles are multiples of; by default the strides of the plan.
        reads: which image it is.

    Returns:
        (1, channels, d, h, w) float32 on the device of the image.
    """
    inference = plan.settings.inference
    tile = tile or inference.teacher_tile
    batch = 1
    if needed is not None:
        batch = tiles_at_once(tile, inference.teacher_tile, image.device)
    scorer, divisor = _Maps(cell, maps), divisor or plan.divisor
    overlap, air = inference.overlap, beyond(reads, plan)
    return score_volume(scorer, image, tile, overlap, divisor, air, needed, batch, part)[None]


class ScanScores(NamedTuple):
    """What a detector says of a scan.

    Attributes:
        scores: of each cell (d, h, w) or, once resampled, of each voxel.
        vector_scores: by name, of the whole scan; none of most detectors, see
            `ConditionalDensity.vector_scores`.
        vector: (d,) float32 that these are scores of.
        image_scores: by name, of the whole scan by a detector that has them.
    """

    scores: Any
    vector_scores: dict[str, float]
    vector: Any = None
    image_scores: dict[str, float] = {}


def teacher_cells(
    teacher: Teacher,
    images: Images,
    device: torch.device,
    plan: Plan,
    needed: np.ndarray | None = None,
    tile: Shape | None = None,
    body: np.ndarray | None = None,
) -> ScanScores:
    """Scores on the teacher's cell grid of a scan on the plan's grid.

    The maps of overlapping tiles are averaged and the density is evaluated once a position.

    Args:
        teacher: on the device.
        images: of the scan.
        device: of the teacher.
        plan, tile: as for `stitched_maps`.
        needed: (D, H, W) voxels whose scores are asked for; those of other cells may be 0.
        body: mask on the storage grid; without it there are no `vector_scores`.
    """
    features, cell = teacher.features, teacher.cell
    image = images(features.reads).to(device)
    z, y, x = image.shape[-3:]
    cells = voxels = None
    if needed is not None and needed.any():
        cells = torch.from_numpy(needed_cells(needed, cell, 0)).to(device)
        reach = teacher.density.density.reach
        voxels = voxels_of_cells(needed_cells(needed, cell, reach), cell, (z, y, x))
    divisor = features.divisor(plan.divisor)
    y_map = stitched_maps(
        features.descriptor_maps, cell, image, plan, voxels, tile, None, divisor, features.reads
    )
    c_map = None
    if features.condition.channels:
        if features.reads != EQUALISED:
            image = images(EQUALISED).to(device)
        c_map = stitched_maps(features.condition_maps, cell, image, plan, voxels, tile)
    scores = teacher.score(y_map, c_map, cells)[0]
    if body is None or not teacher.density.has_vector_scores:
        return ScanScores(scores, {})
    inside = cells_in_body(body, (z, y, x), cell).to(y_map.device)
    if not inside.any():
        return ScanScores(scores, {})
    vector = mean_descriptor(y_map, inside)
    return ScanScores(scores, teacher.density.vector_scores(vector), vector.cpu().numpy())


def body_cells(body: np.ndarray, grid_shape: Sequence[int], cell: Shape) -> torch.Tensor:
    """Fraction of body in each cell (d, h, w) of the plan's grid.

    Args:
        body: mask on any grid that covers the same box.
        grid_shape: of the plan's grid.
        cell: voxels of a cell per axis; the last cells may reach beyond the grid.
    """
    mask = torch.from_numpy(body)[None, None].float()
    if tuple(body.shape) != tuple(grid_shape):
        mask = F.interpolate(mask, tuple(grid_shape), mode="nearest-exact")
    missing = [-size % edge for size, edge in zip(grid_shape, cell, strict=True)]
    mask = F.pad(mask, [v for m in missing[::-1] for v in (0, m)])
    return F.avg_pool3d(mask, cell)[0, 0]


def cells_in_body(body: np.ndarray, grid_shape: Sequence[int], cell: Shape) -> torch.Tensor:
    """Cells more than half of which lie in the body, bool (d, h, w); see `body_cells`."""
    return body_cells(body, grid_shape, cell) > 0.5


def score_map(
    scorer: Detector,
    hu: np.ndarray,
    equalised: np.ndarray,
    plan: Plan,
    device: torch.device,
    body: np.ndarray | None = None,
) -> np.ndarray:
    """The anomaly map (D, H, W), float32, on the plan's grid; see `score_scan`."""
    return score_scan(scorer, hu, equalised, plan, device, body, whole=False).scores


def score_scan(
    scorer: Detector,
    hu: np.ndarray,
    equalised: np.ndarray,
    plan: Plan,
    device: torch.device,
    body: np.ndarray | None = None,
    whole: bool = True,
) -> ScanScores:
    """The anomaly map (D, H, W) in the detector's unit, float32, and what it says of the scan.

    Args:
        scorer: any detector, on the device.
        hu, equalised: what they see, see `PreparedImage`.
        plan: of the model.
        device: of the scorer.
        body: mask on the storage grid; with it, what no voxel of the body is interpolated from is
            not computed, and 0 or the score of fewer tiles; without it there are no scores of
            the scan as a whole.
        whole: without it, `image_scores` are left out, which cost another pass.
    """
    z, y, x = hu.shape[-3:]
    given: dict[ImageKind, np.ndarray] = {EQUALISED: equalised, HU: hu}

    def images(kind: ImageKind) -> torch.Tensor:
        return on_plan_grid(torch.from_numpy(given[kind]).to(device), (z, y, x))

    needed = None if body is None else needed_voxels(body, (z, y, x))
    if scorer.by_position:
        found = _scores_of_positions(scorer, images, device, plan, needed, body)
    else:
        found = ScanScores(_scores_of_tiles(scorer, images, device, plan, needed), {})
        if whole and body is not None and hasattr(scorer, "image_scores"):
            mask = body_cells(body, (z, y, x), (1, 1, 1))[None, None].to(device) > 0.5
            image = as_batch(_image_for(scorer, images, plan)[0])
            found = found._replace(image_scores=scorer.image_scores(image, mask))
    return found._replace(scores=map_of_cells(found.scores, scorer.cell, (z, y, x), plan, body))


def map_of_cells(
    cells: torch.Tensor, cell: Shape, grid_shape: Shape, plan: Plan, body: np.ndarray | None
) -> np.ndarray:
    """The map (D, H, W), float32, of scores on a detector's cell grid.

    It holds the scores of the voxels, or their contrast where the plan asks for it.

    Args:
        cells: scores (d, h, w).
        cell: voxels of a cell per axis.
        grid_shape: of the plan's grid.
        plan: see `InferenceSettings.contrast_mm`.
        body: mask on any grid over the same box; all voxels without one.
    """
    scores = cells_to_voxels(cells, cell, (0, 0, 0), grid_shape)
    inference = plan.settings.inference
    if inference.contrast_mm:
        inside = torch.ones_like(scores, dtype=torch.bool)
        if body is not None:
            inside = cells_in_body(body, grid_shape, (1, 1, 1)).to(scores.device)
        spacing = plan.settings.preprocessing.spacing
        fine, coarse = ([width / edge for edge in spacing] for width in inference.contrast_mm)
        scores = local_contrast(scores, inside, fine, coarse, inference.contrast_weight)
    return scores.cpu().numpy()


def _scores_of_positions(
    teacher: Any,
    images: Images,
    device: torch.device,
    plan: Plan,
    needed: np.ndarray | None,
    body: np.ndarray | None,
) -> ScanScores:
    largest, outputs = plan.settings.inference.teacher_tile, plan.settings.descriptor.channels
    tile = affordable_tile(largest, plan, outputs, device, teacher.low_precision_cpu)
    return teacher_cells(teacher, images, device, plan, needed, tile, body)


def _scores_of_tiles(
    scorer: Detector,
    images: Images,
    device: torch.device,
    plan: Plan,
    needed: np.ndarray | None,
) -> torch.Tensor:
    image, air = _image_for(scorer, images, plan)
    inference = plan.settings.inference
    largest, overlap = inference.student_tile, inference.overlap
    tile: Shape | None = getattr(scorer, "tile", None)
    if tile is None:
        tile = affordable_tile(largest, plan, 1, device, scorer.low_precision_cpu)
    batch = tiles_at_once(tile, largest, device)
    return score_volume(scorer, image, tile, overlap, plan.divisor, air, needed, batch)


def _image_for(scorer: Detector, images: Images, plan: Plan) -> tuple[torch.Tensor, float]:
    """The image that a detector sees, and the value of what lies beyond its border."""
    if scorer.reads != "normalised":
        return images(scorer.reads), beyond(scorer.reads, plan)
    image = normalised(as_batch(images(HU)), plan)[0]
    empty = torch.full((1, plan.channels, 1, 1, 1), beyond(HU, plan))
    return image, float(normalised(empty, plan)[0, 0])
