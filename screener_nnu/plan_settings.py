"""Every setting of every stage, typed: what stands under the key `screener` of a plan.

Array axes are (z, y, x); spacings have the same order and are in mm.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from screener_nnu.baseline_settings import BaselineSettings
from screener_nnu.errors import some
from screener_nnu.igd_settings import IgdSettings
from screener_nnu.optimiser_settings import OptimiserSettings
from screener_nnu.pretext_settings import PretextSettings
from screener_nnu.setting_values import (
    Count,
    CountOrNone,
    Fraction,
    NotNegative,
    Odd,
    OneOf,
    Positive,
    PositiveRange,
    Rising,
    Size,
    Within,
    assign,
    parse,
)
from screener_nnu.start_settings import StartSettings

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
Range = tuple[float, float]
PositiveSpacing = tuple[Positive, Positive, Positive]


@dataclass(frozen=True)
class PreprocessingSettings:
    """How a scan becomes a case.

    Attributes:
        spacing: voxel size (mm) of the network's grid; that of the stock configuration.
        storage_spacing: voxel size (mm) at which the equalised image and the body mask are kept.
        hu_window: window (HU) that is scaled to [0, 1] before equalisation; of pictures in grey
            values. MR has one of its own for each scan, see `preprocessing.modality`.
        hu_clip: bounds (HU) of nnU-Net's `CTNormalization`, applied before resampling; of pictures
            in grey values, of MR in standard deviations about the mean of a scan.
        body_threshold: HU above which tissue is dense, for the body; of MR and pictures as a share
            of the window, and below 0 all of a picture counts.
        body_block_mm: edge of the blocks (mm) whose minimum must be dense.
        equalisation: `adaptive` (CLAHE of each scan), `global` (the same curve for every scan, so
            that equal HU stay equal) or `none` (linear in the window).
        hu_levels: HU of equally spaced grey levels from 0 to 1, the curve of `global`.
        clahe_clip, clahe_tiles, clahe_bins: clip limit, tiles per axis and grey levels of the
            contrast-limited adaptive histogram equalisation.
        min_slices, max_raw_spacing: filters of raw scans, off (0) by default.
        modality: what the values of the images mean, a name of `modality.MODALITIES`.
        picture_size: pixels (y, x) that every picture is resized to, whatever its size; empty:
            pictures are resampled by spacing, as scans are.
        keep_aspect: resize pictures to at most that size, both sides by one factor.
    """

    spacing: PositiveSpacing
    storage_spacing: PositiveSpacing
    hu_clip: Annotated[Range, Rising()]
    hu_window: Annotated[Range, Rising(strictly=True)] = (-1000.0, 300.0)
    body_threshold: float = -500.0
    body_block_mm: Positive = 5.0
    equalisation: Annotated[str, OneOf("adaptive", "global", "none")] = "adaptive"
    hu_levels: tuple[float, ...] = ()
    clahe_clip: NotNegative = 0.05
    clahe_tiles: Count = 8
    clahe_bins: Annotated[int, Within(at_least=2)] = 256
    min_slices: CountOrNone = 0
    max_raw_spacing: tuple[NotNegative, NotNegative, NotNegative] = (0.0, 0.0, 0.0)
    modality: Annotated[str, OneOf("ct", "mr", "picture")] = "ct"
    picture_size: tuple[Count, ...] = ()
    keep_aspect: bool = False

    def __post_init__(self) -> None:
        """Refuses a size of other than two numbers, or of what is no picture."""
        pictures = self.modality == "picture"
        if len(self.picture_size) not in (0, 2) or (self.picture_size and not pictures):
            raise ValueError(
                f"picture_size must hold rows and columns of pictures, but is {self.picture_size}"
            )

    def identity(self) -> dict[str, Any]:
        """Plain values, by which what was made with them is known.

        Settings of later versions are left out at their defaults: what is stored stays valid.
        """
        later = {"modality": "ct", "picture_size": (), "keep_aspect": False}
        values = asdict(self)
        return {k: v for k, v in values.items() if k not in later or later[k] != v}


@dataclass(frozen=True)
class JitterSettings:
    """Colour augmentation of crops; lengths in mm, intensities in [0, 1]."""

    probability: Fraction = 0.8
    blur_sigma_mm: NotNegative = 1.5
    sharpen: NotNegative = 2.0
    noise: NotNegative = 0.1
    brightness: PositiveRange = (0.8, 1.2)
    contrast: PositiveRange = (0.8, 1.2)
    gamma: PositiveRange = (0.8, 1.25)


@dataclass(frozen=True)
class MaskSettings:
    """Block masks of the condition and position stages."""

    probability: Fraction = 0.9
    hidden_fraction: Fraction = 0.6
    blocks_per_axis: Count = 4


@dataclass(frozen=True)
class ContrastSettings:
    """A dense self-supervised stage: pairs of crops of one scan, matching voxels as positives.

    Attributes:
        loss: `vicreg` or `infonce`.
        channels: channels of the map at input resolution.
        head_width: width of the training head (expander or projector).
        volumes_per_step, positives: pairs of crops a step; matching voxels of a pair.
        scale_range: crop spacing as a multiple of the plan's, drawn per crop and axis.
        min_overlap: smallest overlap of the two crops per axis, as a fraction of the smaller one.
        pair_draws: pairs that are drawn for one to train on: the one that shares most body.
        flip_probability: of mirroring a crop, per axis; each of the two by itself.
        rotation_degrees: largest angle by which a crop is turned in plane; each by itself.
        temperature: of InfoNCE.
        vicreg_weights: of invariance, variance and covariance.
        view_reduction: `mean` or `sum` of variance and covariance over the two views (VICReg).
    """

    optimiser: OptimiserSettings
    loss: str = "vicreg"
    channels: Count = 32
    head_width: Count = 8192
    volumes_per_step: Count = 8
    positives: Count = 1024
    scale_range: PositiveRange = (2 / 3, 4 / 3)
    min_overlap: Fraction = 0.0
    pair_draws: Count = 1
    flip_probability: Fraction = 0.0
    rotation_degrees: Annotated[float, Within(at_least=0, at_most=180)] = 0.0
    temperature: Positive = 0.1
    vicreg_weights: tuple[NotNegative, NotNegative, NotNegative] = (25.0, 25.0, 1.0)
    view_reduction: Annotated[str, OneOf("mean", "sum")] = "mean"


@dataclass(frozen=True)
class PositionSettings:
    """The position stage, which the condition `ape` is made of.

    Attributes:
        optimiser: by default that of the preset `cpu`, for plans that are older than the stage.
        volumes_per_step: pairs of crops a step.
        positives: body voxels that are drawn from each crop, and from what both share.
        scale_range, min_overlap: see `ContrastSettings`; wide, because context tells a place.
        width: channels of the UNet, as a fraction of the plan's: three coordinates need fewer.
        extent_mm: length that an output in [0, 1] stands for, per channel; a body must fit in.
        masks: augmentation in training.
    """

    optimiser: OptimiserSettings = OptimiserSettings(
        steps=400, steps_per_epoch=50, warmup_steps=20, learning_rate=2e-3, eps=1e-8
    )
    volumes_per_step: Count = 4
    positives: Count = 256
    scale_range: PositiveRange = (2 / 3, 8 / 3)
    min_overlap: Fraction = 0.0
    width: Positive = 0.5
    extent_mm: Positive = 2000.0
    masks: MaskSettings = MaskSettings(probability=0.5)


@dataclass(frozen=True)
class ConditionSettings:
    """Which condition the density sees.

    `contrast` and `masks` belong to the condition stage, `position` to the position stage.
    """

    contrast: ContrastSettings
    kind: str = "masking_invariant"
    masks: MaskSettings = MaskSettings()
    position: PositionSettings = PositionSettings()


@dataclass(frozen=True)
class DensitySettings:
    """The conditional density q(y | c) on pooled maps.

    Attributes:
        kind: a name of `densities.DENSITIES`.
        pooling: kernel and stride of the average pooling of y and c, per axis.
        noise: standard deviation of the noise on standardised y and c, in training only.
        options: settings of this kind of density alone, see its class in `densities`.
        hidden, flow_steps, kernel_size: hidden width; Glow steps; kernel of the Gaussian's net.
        crop_size: crop of the plan's grid that one training sample covers (voxels).
        volumes_per_step: crops or scans a step.
        body_only: fit to positions inside the body only.
        whole_scans: fit to whole scans, whose maps are computed once and kept on disk, in place of
            random crops.
        max_scans: training scans at most, spread evenly over the list; 0 for all.
        positions: drawn of each stored scan in a step (0: all of them). A flow gets scattered ones;
            a Gaussian, which looks at neighbours, a block of about so many.
        keep: `best` keeps the epoch with the highest mean AUROC on synthetic anomalies of
            validation scans, `last` the last one.
        descriptor: a name of `descriptors.DESCRIPTORS`; `dense` is the plan's own, its last layer,
            with filters behind it where `kind` is `experts`.
        descriptor_options: settings of this kind of descriptor alone, see its class.
        descriptor_plans, condition_plans: plan whose trained stage is used; empty for this plan.
    """

    optimiser: OptimiserSettings
    pooling: Size
    crop_size: Size
    kind: str = "flow"
    noise: NotNegative = 0.1
    hidden: Count = 512
    flow_steps: Count = 64
    kernel_size: Annotated[int, Within(at_least=1), Odd()] = 3
    volumes_per_step: Count = 4
    body_only: bool = True
    whole_scans: bool = False
    max_scans: CountOrNone = 0
    positions: CountOrNone = 0
    keep: Annotated[str, OneOf("best", "last")] = "best"
    descriptor_plans: str = ""
    condition_plans: str = ""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    descriptor: str = "dense"
    descriptor_options: dict[str, Any] = field(default_factory=dict, hash=False)


#: Whose score a student may learn.
TEACHER, RARITY = "teacher", "hu_rarity"
#: What of its teacher a student may learn.
SCORE, CONDITION = "score", "condition"


@dataclass(frozen=True)
class DistillationSettings:
    """The student: one UNet in place of descriptor, condition and density.

    Attributes:
        learns: `score`: the UNet regresses the teacher's standardised, tail-clipped score (paper).
            `condition`: the student keeps descriptor and density of its teacher, and a head learns
            to read the condition off all maps of the descriptor, which see a crop of the
            density's size of each scan. What else is set here of crops and targets, from
            `crop_size` to `jitter`, belongs to `score`.
        hidden: width of that head.
        volumes_per_step, positions: crops of a step; where the condition is learned scans, of each
            of which so many positions are drawn.
        crop_size: of a crop (voxels of the plan's grid).
        clip_sigma: scores are clipped at so many standard deviations.
        mirror: mirror crops along every axis, image and target together.
        tail_weight: how much more a high score counts: a voxel of standardised score t weighs
            1 + tail_weight * max(t, 0). The paper's plain squared error is 0.
        descriptor_weight: weight of the teacher's standardised descriptors as further targets, for
            the sake of fine-tuning; the student keeps the score alone. 0 leaves them out (paper).
        deep_supervision: train the decoder's coarser outputs as well, on the mean of the target
            over their voxels, as stock fine-tuning will do with its labels.
        jitter: change the contrast of the student's images as the plan's `jitter` says, and not
            their targets.
        max_scans: training scans at most, spread evenly over the list; 0 for all. The teacher
            scores each of them once.
        density_plans: plan whose teacher is distilled; empty for this plan.
        target: `teacher`, or `hu_rarity` for the control that every claim needs: a student of a
            score that nothing was learned for.
    """

    optimiser: OptimiserSettings
    crop_size: Size
    learns: Annotated[str, OneOf(SCORE, CONDITION)] = SCORE
    hidden: Count = 256
    positions: Count = 512
    volumes_per_step: Count = 8
    clip_sigma: Positive = 5.0
    mirror: bool = True
    tail_weight: NotNegative = 0.0
    descriptor_weight: NotNegative = 0.0
    deep_supervision: bool = False
    jitter: bool = False
    max_scans: CountOrNone = 0
    density_plans: str = ""
    target: Annotated[str, OneOf(TEACHER, RARITY)] = TEACHER

    @property
    def reads_condition(self) -> bool:
        """Whether the student learns to read a condition; a control without teacher has none."""
        return self.learns == CONDITION and self.target == TEACHER


@dataclass(frozen=True)
class InferenceSettings:
    """How a scan is scored.

    Attributes:
        teacher_tile, student_tile: largest tile of the sliding window (voxels of the plan's grid).
        overlap: of tiles.
        contrast_mm: none, or two standard deviations (mm; of pictures in pixels): a score is then
            the mean of those close by less the mean of a larger neighbourhood, see
            `scoring.contrast`.
        contrast_weight: part of the larger neighbourhood's mean that is taken away.
    """

    teacher_tile: Size
    student_tile: Size
    overlap: Annotated[float, Within(at_least=0, below=1)] = 0.5
    contrast_mm: tuple[Positive, ...] = ()
    contrast_weight: Fraction = 1.0

    def __post_init__(self) -> None:
        """Refuses neighbourhoods of which the second is not the larger one, and a lone weight."""
        if self.contrast_mm and (
            len(self.contrast_mm) != 2 or self.contrast_mm[0] >= self.contrast_mm[1]
        ):
            raise ValueError(
                "contrast_mm must be empty or hold two numbers, the smaller first, but is "
                f"{list(self.contrast_mm)}"
            )
        if self.contrast_weight != 1 and not self.contrast_mm:
            raise ValueError(
                f"contrast_weight is {self.contrast_weight}, and there is no contrast to weigh: "
                "set contrast_mm, too"
            )


@dataclass(frozen=True)
class CalibrationSettings:
    """What scores mean, measured when a density or a student is trained.

    Attributes:
        max_scans: validation scans at most, spread evenly over the list; 0 for no calibration.
    """

    max_scans: CountOrNone = 32


@dataclass(frozen=True)
class SplitSettings:
    """Cases by use.

    Attributes:
        train: what stages learn from.
        validation: for figures and choices.
        test: read by evaluation only.
        normal: those of `train` that are known to be normal, for methods that take what they learn
            from as normal; empty where nothing is known.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()
    normal: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses normal cases that are not for training."""
        others = set(self.normal) - set(self.train)
        if others:
            raise ValueError(f"normal must be cases of train, but {some(others)} are none")

    @property
    def presumed_normal(self) -> tuple[str, ...]:
        """What methods learn from that take it as normal: the normal cases, or all of `train`."""
        return self.normal or self.train


@dataclass(frozen=True)
class ScreenerSettings:
    """Everything under the plan's key `screener`.

    Attributes:
        preset, memory_gb: what was planned for.
        data_identifier: folder of the cases under the preprocessed dataset.
        crop_size: crop of self-supervision (voxels); `crop_spacing` is the plan's spacing.
        network: nnU-Net's architecture block (class, keyword arguments) of all stages.
        low_precision_cpu: use bfloat16 for the UNets on processors that compute in it.
        workers: reading processes of a stage.
        reasons: a sentence for each number that was planned.
        left_out: usable images that the plan has no use for, and why.
    """

    preset: str
    memory_gb: NotNegative
    data_identifier: str
    seed: CountOrNone
    crop_size: Size
    preprocessing: PreprocessingSettings
    jitter: JitterSettings
    descriptor: ContrastSettings
    condition: ConditionSettings
    density: DensitySettings
    distillation: DistillationSettings
    inference: InferenceSettings
    split: SplitSettings
    calibration: CalibrationSettings = CalibrationSettings()
    pretext: PretextSettings = PretextSettings()
    igd: IgdSettings = IgdSettings()
    baseline: BaselineSettings = BaselineSettings()
    start: StartSettings = StartSettings()
    low_precision_cpu: bool = True
    workers: CountOrNone = 4
    reasons: dict[str, str] = field(default_factory=dict, hash=False)
    left_out: dict[str, str] = field(default_factory=dict, hash=False)

    def image_size(self, own: tuple[int, ...]) -> Shape:
        """Voxels (z, y, x) of what a stage takes as a whole image.

        Args:
            own: setting of the stage; empty for all of a picture where all have one size, and
                otherwise for the crop of self-supervision.
        """
        pictures = self.preprocessing.picture_size
        whole = (1, *pictures) if pictures else self.crop_size
        return own or whole  # type: ignore[return-value]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ScreenerSettings:
        """Reads plain values; what does not fit raises `ScreenerError`."""
        return parse(cls, values, "screener")

    def override(self, assignments: list[str]) -> ScreenerSettings:
        """Applies `key=value` settings, for instance `descriptor.loss=infonce`.

        Raises:
            ScreenerError: an unknown key, or a value of another type or outside its limits.
        """
        values = self.to_dict()
        for assignment in assignments:
            assign(values, assignment)
        return ScreenerSettings.from_dict(values)
