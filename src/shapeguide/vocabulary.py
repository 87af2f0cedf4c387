"""Closed sets of names, each written once, and the few defaults that several rooms share.

A set is a type for the checker and, where code walks through it, a tuple of the same name in
capitals. Nothing here imports the package or anything heavy, so that the command line can show its
help at once.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Guidance: TypeAlias = Literal["none", "shape", "acnn", "srn", "boundary", "hausdorff"]
"""What guides a segmenter after its Dice iterations."""
GUIDANCE: tuple[Guidance, ...] = get_args(Guidance)
AutoencoderName: TypeAlias = Literal["acnn", "srn"]
"""Guidance by an autoencoder of label maps."""

SegmenterName: TypeAlias = Literal["unet3d", "unet3d_blocks", "unet2d", "fcn", "vnet"]
SEGMENTER_NAMES: tuple[SegmenterName, ...] = get_args(SegmenterName)
SegmenterChoice: TypeAlias = Literal["auto"] | SegmenterName
"""`auto`: whichever suits the size of what is seen at once."""

WeightsName: TypeAlias = Literal["last", "best", "average"]
"""Weights after the last iteration, of the best validation score, or averaged over iterations."""

Centre: TypeAlias = Literal["volume", "foreground", "structure"]
"""What the working space is centred on."""
RegionChoice: TypeAlias = Literal["auto", "none", "all", "structure"]
"""What regions of whole scans are laid around: all structures, each of them, or nothing."""
Normalisation: TypeAlias = Literal["volume", "foreground"]
"""Voxels that mean 0 and standard deviation 1 refer to."""

Objective: TypeAlias = Literal["pairwise", "contrastive", "vicreg", "reconstruction", "surface"]
"""What a shape network learns: `pairwise` is as printed in the paper."""
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
Maps: TypeAlias = Literal["binary", "clean", "softened", "corrupted"]
"""What a shape network is trained on: maps that stay binary under a warp, as printed in the paper;
maps whose edge the warp interpolates; every second one softened; and corrupted copies beside
those."""
Pose: TypeAlias = Literal["grid", "canonical", "aligned"]
"""What a shape network sees: the working grid; a mask in its canonical pose; or aligned."""
POSES: tuple[Pose, ...] = get_args(Pose)

CapForm: TypeAlias = Literal["hard", "smooth"]
"""How a shape loss is capped: `hard` as published."""
ShapeDistance: TypeAlias = Literal["calibrated", "raw"]
"""Unit of a shape distance: two people's distance, or as it comes, as published."""
Balance: TypeAlias = Literal["none", "gradient", "gradient_all"]
"""Whose gradient is held to its share of that of Dice: nobody's, shape's, or every guide's."""

Corruption: TypeAlias = Literal["noise", "blur", "bias", "ghosts", "slab", "thick", "contrast"]
"""What is made wrong with test images."""
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)
SEVERITIES = (1, 2, 3)
"""How much of it: mild to severe."""

Decay: TypeAlias = Literal["none", "cosine"]
"""Course of a learning rate."""
Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
Precision: TypeAlias = Literal["fp32", "bf16"]
WarpCentre: TypeAlias = Literal["grid", "object"]
"""What random warps turn and scale about."""
PresetName: TypeAlias = Literal["default", "paper", "quick"]

MOST_MEMBERS = 9
"""Segmenters that a run has at most."""
USUAL_SHARE = 1.0
"""Share of the training scans whose predictions the restorer would leave alone: see
`benchmarks/restoring.py` for what less costs."""

STATED = "stated"
"""Name of the split that a description or a table of cases states."""
