"""Presets: settings with a name."""

from __future__ import annotations

from shapeguide.errors import ConfigError
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.training.settings.groups import (
    AutoencoderSettings,
    DataSettings,
    FinderSettings,
    MachineSettings,
    RestorerSettings,
    SegmentationSettings,
    ShapeSettings,
    TrainSettings,
)
from shapeguide.training.settings.guidance import ShapeGuidance

PRESETS: dict[str, TrainSettings] = {
    "default": TrainSettings(),
    # The published schedule and forms. What the paper does not state is named in the docstrings
    # of the networks.
    "paper": TrainSettings(
        preset="paper",
        # The crop of 256 x 256 x 128 voxels: the scans of LPBA40 have 128 from back to front.
        data=DataSettings(normalisation="volume", region="none", largest_shape=(256, 128, 256)),
        warp=WarpLimits(translation_mm=8.0, centre="object"),
        shape=ShapeSettings(
            objective="pairwise",
            maps="binary",
            pose="grid",
            iterations=200,
            batch_size=1,
            learning_rate=1e-4,
            decay="none",
            one_per_structure=True,
        ),
        restorer=RestorerSettings(iterations=0),
        finder=FinderSettings(iterations=0),
        shape_loss=ShapeGuidance(
            alpha=0.1,
            cap=1.0,
            cap_form="hard",
            distance="raw",
            balance="none",
            # Nobody looked whether it had collapsed; the log says so where it has.
            accept_collapsed=True,
        ),
        segmentation=SegmentationSettings(
            one_per_structure=True,
            segmenter="unet3d",
            channels=(32, 64, 128, 256),
            dice_iterations=800,
            guided_iterations=400,
            batch_size=1,
            learning_rate=1e-4,
            decay="none",
            cross_entropy_weight=0.0,
            deep_supervision=False,
            warped_share=1.0,
            elastic_mm=0.0,
            intensity_augmentation=False,
            scanner_faults=0.0,
            average_decay=0.0,
            validation_cases=0,
        ),
        machine=MachineSettings(precision="fp32"),
    ),
    # Minutes on a laptop: for the demo, a first look and tests.
    "quick": TrainSettings(
        preset="quick",
        shape=ShapeSettings(iterations=100, channels=(8, 16, 32), canonical_shape=24),
        autoencoder=AutoencoderSettings(iterations=200, channels=(8, 16, 32)),
        restorer=RestorerSettings(iterations=300),
        finder=FinderSettings(iterations=400),
        segmentation=SegmentationSettings(
            batch_size=2,
            channels=(8, 16, 32, 64),
            learning_rate=5e-3,
            # What the default gains by these was not measured in so short a training.
            deep_supervision=False,
            warped_share=0.5,
            elastic_mm=0.0,
            scanner_faults=0.0,
            dice_iterations=160,
            guided_iterations=80,
            validate_every=80,
        ),
    ),
}


def preset(name: str) -> TrainSettings:
    """The settings of that name.

    Raises:
        ConfigError: If there are none.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def resolve(settings: TrainSettings | str) -> TrainSettings:
    """Settings as they are, or those of the preset of that name."""
    return preset(settings) if isinstance(settings, str) else settings
