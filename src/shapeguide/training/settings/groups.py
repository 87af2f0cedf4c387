"""Settings of a training run: frozen, checked on creation, saved with the run.

Nothing here imports torch, so that the command line can show its help at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.training.settings.base import (
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Settings,
    affordable,
    given,
)
from shapeguide.training.settings.guidance import (
    GUIDE_GROUPS,
    AcnnGuidance,
    BoundaryGuidance,
    GuideSettings,
    HausdorffGuidance,
    ShapeGuidance,
    SrnGuidance,
)
from shapeguide.vocabulary import (
    MOST_MEMBERS,
    USUAL_SHARE,
    Centre,
    Decay,
    Device,
    Guidance,
    Maps,
    Normalisation,
    Objective,
    Pose,
    Precision,
    PresetName,
    RegionChoice,
    SegmenterChoice,
    SegmenterName,
)


class DataSettings(Settings):
    """How cases come to the working grid."""

    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    """Working spacing along R, A, S; the median of the training cases when not given."""
    spatial_shape: tuple[Count, Count, Count] | None = None
    """Working shape in voxels; large enough for every training case when not given."""
    largest_shape: tuple[Count, Count, Count] | None = None
    """The working shape is no longer than this along R, A, S where none is given: what lies beyond
    is left out in training."""
    centre: Centre = "volume"
    """What the working shape is centred on in training."""
    region: RegionChoice = "auto"
    """What is segmented: a region around `all` structures or one around each `structure`, which a
    finder finds first, or the whole scan (`none`). `auto`: the whole scan where regions would not
    be much smaller or a spatial shape is given, else the regions with fewer voxels."""
    region_margin_mm: Positive = 5.0
    """How far off the finder may lay a region: it is so much larger than the structures at each
    end, and training lays it so far off; more where the finder is less exact."""
    normalisation: Normalisation = "foreground"
    """Voxels that mean 0 and standard deviation 1 refer to."""
    memory_limit_gb: Positive = 4.0
    """Prepared cases are kept in memory up to this size, and memory-mapped from disk above it."""

    @property
    def memory_limit_bytes(self) -> int:
        """The same in bytes."""
        return int(self.memory_limit_gb * 1024**3)


class ShapeSettings(Settings):
    """The shape stage: how the shape network is built and trained."""

    objective: Objective = "surface"
    """`pairwise` as printed in the paper; `surface`: distances regressed to surface error."""
    maps: Maps = "corrupted"
    """What it is trained on: label maps that stay binary, as printed; with an interpolated edge;
    every second one softened; and corrupted copies beside those."""
    pose: Pose = "aligned"
    """What the network sees: the working grid as it is; the mask in its canonical pose; or placed
    and scaled by its moments and turned onto the mean shape of the training cases."""
    channels: tuple[Count, ...] = (16, 32, 64)
    """Channels of each stride-2 level."""
    canonical_shape: Annotated[int, Field(ge=8, le=128)] = 32
    """Edge length of the grid that a pose is sampled on, in voxels."""
    one_per_structure: bool = False
    """One network for each structure instead of one for all."""
    normalised: bool = False
    """Instance normalisation in the network; it hides how much of the view a structure fills."""
    iterations: Count = 200
    """Iterations of the stage."""
    batch_size: Count = 8
    """Cases in a batch; fewer, but not below 4, where they are more than 2 million voxels, those of
    each structure by itself."""
    learning_rate: Positive = 1e-3
    """Learning rate of Adam, at the start."""
    decay: Decay = "cosine"
    """Course of the learning rate over the stage."""
    quality_pairs: Annotated[int, Field(ge=4)] = 100
    """Pairs of either kind that the check for collapse draws."""


class AutoencoderSettings(Settings):
    """The autoencoder of label maps that `acnn` and `srn` guidance train first."""

    channels: tuple[Count, ...] = (16, 32, 64)
    """Channels of each stride-2 level."""
    code_length: Count = 64
    """Numbers in the code of `acnn`."""
    iterations: Count = 800
    """Iterations of the stage."""
    batch_size: Count = 4
    """Cases in a batch."""
    learning_rate: Positive = 1e-3
    """Learning rate of Adam, at the start."""
    decay: Decay = "cosine"
    """Course of the learning rate over the stage."""


class RestorerSettings(Settings):
    """The shape restorer: it completes and cleans predictions by what label maps look like."""

    iterations: CountOrZero = 500
    """0 trains none."""
    channels: tuple[Count, ...] = (8, 16, 32)
    """Channels of the levels of its U-Net."""
    batch_size: Count = 8
    """Cases in a batch; fewer where they are more than 64^3 of its voxels."""
    learning_rate: Positive = 3e-3
    """Learning rate of Adam, at the start."""
    decay: Decay = "cosine"
    """Course of the learning rate over the stage."""
    spacing_mm: Positive = 2.0
    """It works on voxels about this large, or on those of the working space if they are larger."""
    usual_share: Annotated[float, Field(ge=0, le=1)] = USUAL_SHARE
    """Share of the segmenter's own training scans that the restorer would leave alone, and so it
    does with every scan whose prediction it disagrees with no more: with 1 all that are no more
    unusual than the most unusual of them. With fewer than ten of them nobody knows what is usual,
    and all are restored."""
    caution: NotNegative = 1.0
    """A connected region is changed when the restorer's log odds for the new class over the old
    reach this somewhere in it, so that edges stay as the segmenter saw them."""


class FinderSettings(Settings):
    """The finder: it looks at the whole scan coarsely and says where each structure is."""

    iterations: CountOrZero = 1200
    """0 trains none."""
    channels: tuple[Count, ...] = (16, 32, 64)
    """Channels of the levels of its U-Net; the first sees blocks of 2 voxels along each edge."""
    batch_size: Count = 2
    """Cases in a batch."""
    learning_rate: Positive = 1e-2
    """Learning rate of Adam, at the start."""
    decay: Decay = "cosine"
    """Course of the learning rate over the stage."""
    spacing_mm: Positive = 3.0
    """It works on voxels of this size, or of the working spacing along an axis where that is
    coarser."""


SMALL_WINDOW_VOXELS = 64**3
"""What has no more voxels is about as large as a crop around one structure, or as any region: such
scans are worked on whole."""
BATCH_VOXELS = 500_000
"""About so many voxels make a batch where its size is not given."""
MOST_CASES = 3


@dataclass(frozen=True)
class SuitedSegmentation:
    """Settings of the segmentation that suit the size of what is seen at once."""

    segmenter: SegmenterName
    dice_iterations: int
    guided_iterations: int
    batch_size: int
    elastic_mm: float

    @property
    def iterations(self) -> int:
        """All iterations of the stage."""
        return self.dice_iterations + self.guided_iterations


class SegmentationSettings(Settings):
    """The segmentation stage: the network that segments, and how it is trained."""

    one_per_structure: bool = False
    """A segmenter of its own for each structure, with what guides it, one training after another;
    predictions put together what all of them say, as published. For scans that are worked on whole
    (`data.region` none)."""
    segmenter: SegmenterChoice = "auto"
    """The network that segments. `auto`: the 3D U-Net, and where more than 64^3 voxels are seen at
    once that of blocks, which leaves out the convolutions at full resolution."""
    channels: tuple[Count, ...] = (16, 32, 64, 128)
    """Channels of the segmenter's levels, from full resolution down; each halves it."""
    dice_iterations: CountOrZero | None = None
    """Iterations before the shape loss; when not given 800, and 1,600 where more than 64^3 voxels
    are seen at once."""
    guided_iterations: CountOrZero | None = None
    """Iterations with the shape loss, without guidance they train on like the first; when not given
    400, and 800 where more than 64^3 voxels are seen at once."""
    batch_size: Count | None = None
    """Cases in a batch; when not given, 1 to 3, as many as have about half a million voxels
    together."""
    learning_rate: Positive = 2e-3
    """Learning rate of Adam, at the start."""
    decay: Decay = "cosine"
    """Course of the learning rate over the stage."""
    cross_entropy_weight: NotNegative = 0.5
    """Weight of the cross-entropy beside the Dice loss; 0 as published."""
    deep_supervision: bool = True
    """Losses at lower resolutions too, each of half the weight of the one above, where the network
    has any on its way up; --no-deep-supervision as published."""
    warped_share: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of training images that are warped; the others show scans as they come. 1 as
    published."""
    elastic_mm: NotNegative | None = None
    """Standard deviation of elastic displacements, 16 mm apart, of warped images; 0 for none,
    as published; when not given 1.5, and 3 where more than 64^3 voxels are seen at once."""
    swelling_mm: NotNegative = 0.0
    """How far, at most, what is darker than a random level grows or shrinks in warped images, as
    ventricles do with age; 0 for none."""
    swollen_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Share of the warped images in which something swells, where `swelling_mm` is not 0."""
    mirrored: bool = False
    """Half of the training images are mirrored, left to right, and what is left of a structure
    (`left_caudate`) becomes right: for anatomy whose sides are alike."""
    intensity_augmentation: bool = True
    """Random contrast, brightness and noise on training images; --no-intensity-augmentation as
    published."""
    scanner_faults: Annotated[float, Field(ge=0, le=1)] = 0.07
    """Chance of a training image to have each of these faults: a missing or faint slab, uneven
    gain, ghosts, thick slices, strong noise; 0 for none, as published."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """The average of the weights keeps this share of itself in each iteration; 0 keeps none."""
    validation_cases: CountOrZero | None = None
    """Training cases held out for validation; a tenth, 1 to 8, when not given, none below 10."""
    validate_every: Count = 200
    """Iterations between two validations."""

    def suited(self, spatial_shape: tuple[int, int, int] = (1, 1, 1)) -> SuitedSegmentation:
        """What is given, and where nothing is, what suits windows of this shape, or small ones."""
        voxels = prod(spatial_shape)
        large = voxels > SMALL_WINDOW_VOXELS
        segmenter = self.segmenter
        if segmenter == "auto":
            segmenter = "unet3d_blocks" if large and len(self.channels) > 1 else "unet3d"
        batch_size = affordable(MOST_CASES, each=voxels, most=BATCH_VOXELS)
        return SuitedSegmentation(
            segmenter=segmenter,
            dice_iterations=given(self.dice_iterations, 1600 if large else 800),
            guided_iterations=given(self.guided_iterations, 800 if large else 400),
            batch_size=given(self.batch_size, batch_size),
            elastic_mm=given(self.elastic_mm, 3.0 if large else 1.5),
        )

    def with_iterations_for(self, spatial_shape: tuple[int, int, int]) -> SegmentationSettings:
        """These settings with the iterations that suit windows of this shape written in."""
        suited = self.suited(spatial_shape)
        return self.changed(
            dice_iterations=suited.dice_iterations, guided_iterations=suited.guided_iterations
        )

    @property
    def iterations(self) -> int:
        """All iterations of the stage, where nothing is given those for small windows."""
        return self.suited().iterations

    @model_validator(mode="after")
    def _trains_at_all(self) -> SegmentationSettings:
        if self.iterations < 1:
            raise ValueError("dice_iterations + guided_iterations must be at least 1")
        return self


class MachineSettings(Settings):
    """Where and how the run computes; not part of what it computes."""

    device: Device = "auto"
    """Where to compute; `auto`: on a GPU if there is one."""
    precision: Literal["auto"] | Precision = "auto"
    """`auto`: bf16 where the processor or GPU computes in it, fp32 elsewhere."""
    num_workers: CountOrZero = 0
    """Processes that load cases; 0 loads in the training process."""
    activation_checkpoints: bool = False
    """Compute activations of the segmenter again in the backward pass: less memory, a third more
    time. It is done anyway where a step might take more memory than there is."""
    checkpoint_every: Count = 50
    """Iterations between two checkpoints."""
    checkpoint_minutes: Positive = 5.0
    """Minutes after which one is saved anyway, so that no more work is ever lost."""


class TrainSettings(Settings):
    """Everything that decides what a training computes."""

    preset: PresetName = "default"
    """What settings start from: `paper` trains as published, `quick` in minutes to try it."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the training: the same seed gives the same weights."""
    members: Annotated[int, Field(ge=1, le=MOST_MEMBERS)] = 1
    """Segmenters to train, by this seed and the next ones; their probabilities are averaged."""
    guidance: Guidance = "shape"
    """What guides the segmenter after its Dice iterations."""
    data: DataSettings = DataSettings()
    warp: WarpLimits = WarpLimits()
    """Random affine warps: of affine pairs and of training images."""
    shape: ShapeSettings = ShapeSettings()
    autoencoder: AutoencoderSettings = AutoencoderSettings()
    restorer: RestorerSettings = RestorerSettings()
    finder: FinderSettings = FinderSettings()
    shape_loss: ShapeGuidance = ShapeGuidance()
    acnn: AcnnGuidance = AcnnGuidance()
    srn: SrnGuidance = SrnGuidance()
    boundary: BoundaryGuidance = BoundaryGuidance()
    hausdorff: HausdorffGuidance = HausdorffGuidance()
    segmentation: SegmentationSettings = SegmentationSettings()
    machine: MachineSettings = MachineSettings()

    @property
    def guide(self) -> GuideSettings | None:
        """The settings of what guides, whose type says what that is; None when nothing does."""
        group = GUIDE_GROUPS.get(self.guidance)
        found: GuideSettings | None = None if group is None else getattr(self, group)
        return found

    @property
    def is_balanced(self) -> bool:
        """Whether the gradient of the guide is held to its share of that of Dice."""
        balance = self.shape_loss.balance
        shape_alone = balance == "gradient" and isinstance(self.guide, ShapeGuidance)
        return balance == "gradient_all" or shape_alone

    def guide_weight(self, guided: int) -> float:
        """Weight of the guide after so many guided iterations, from 1: a ramp, then its own weight.

        With a balanced gradient it is alpha, whatever the guide.
        """
        ramp, alpha = self.shape_loss.ramp_iterations, self.shape_loss.alpha
        whole = alpha if self.is_balanced or self.guide is None else self.guide.full_weight
        return whole * (min(1.0, guided / ramp) if ramp else 1.0)
