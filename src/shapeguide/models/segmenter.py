"""A trained segmenter: its network, its structures and the space it works in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import torch
from pydantic import Field, model_validator
from torch import nn

from shapeguide.data.description import LONGEST_CHANNEL, MOST_CHANNELS
from shapeguide.data.file_choice import USUAL_CHANNEL
from shapeguide.data.regions import Regions
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.geometry.volume import Structure, check_structures
from shapeguide.machine import choose_device
from shapeguide.models.block_unet import BlockUNet
from shapeguide.models.fcn import Fcn
from shapeguide.models.finder_model import FINDER_FOLDER, Finder, load_finder
from shapeguide.models.levels import check_channels, check_lengths
from shapeguide.models.members import Members, folder_of_member
from shapeguide.models.model_files import (
    MODEL_FILE,
    ModelDescription,
    kind_of,
    load_network,
    read_description,
    write_description,
)
from shapeguide.models.one_per_structure import (
    STRUCTURES_FOLDER,
    OnePerStructure,
    folder_of_structure,
)
from shapeguide.models.unet import UNet
from shapeguide.models.unet2d import UNet2d
from shapeguide.models.vnet import VNet
from shapeguide.vocabulary import MOST_MEMBERS, SegmenterName, WeightsName

ImageChannels = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=LONGEST_CHANNEL)], ...],
    Field(min_length=1, max_length=MOST_CHANNELS),
]
BLOCKS: Final = "unet3d_blocks"
SegmenterNetwork: TypeAlias = UNet | UNet2d | Fcn | VNet

SEGMENTERS: dict[str, Callable[..., SegmenterNetwork]] = {
    "unet3d": UNet,
    "unet3d_blocks": BlockUNet,
    "unet2d": UNet2d,
    "fcn": Fcn,
    "vnet": VNet,
}
"""Name to network; each takes channels in, classes and the channels of its levels."""


class SegmenterDescription(ModelDescription):
    """`model.json` of a segmenter."""

    kind: Literal["segmenter"] = "segmenter"
    segmenter: SegmenterName = "unet3d"
    """Its network; files of older versions name none."""
    regions: Regions | None = None
    """Where it segments; None where that is the whole scan."""
    members: Annotated[int, Field(ge=1, le=MOST_MEMBERS)] = 1
    """Segmenters that answer together: this one, and those in the folders of the others."""
    image_channels: ImageChannels = (USUAL_CHANNEL,)
    """Names of the channels of its images, in their order; files of older versions have one."""
    wholes: tuple[Structure, ...] = ()
    """Structures that are made of several of `structures`."""

    @model_validator(mode="after")
    def _check_shape(self) -> SegmenterDescription:
        divisor = divisor_of(self.segmenter, self.channels)
        check_lengths(self.space.spatial_shape, divisor, self.segmenter)
        check_structures((*self.structures, *self.wholes), nested=True)
        if self.regions is not None:
            held = sorted(name for region in self.regions.each for name in region.structures)
            wanted = sorted(structure.name for structure in self.structures)
            if held != wanted:
                raise ValueError(f"its regions hold {held}, its structures are {wanted}")
        return self


class SeparateDescription(ModelDescription):
    """`model.json` of a run that holds a finished run for each structure."""

    kind: Literal["segmenters"] = "segmenters"
    wholes: tuple[Structure, ...] = ()
    """Structures that are made of several of `structures`."""


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Predicts structures from a volume; see `shapeguide.predict`."""

    network: nn.Module
    """Images (B, C, I, J, K) in the working space to logits (B, 1 + structures, I, J, K)."""
    structures: tuple[Structure, ...]
    space: WorkingSpace
    divisor: int = 1
    """The network takes spatial shapes that are multiples of this."""
    regions: Regions | None = None
    """Where it segments, each as large as the spatial shape of its space; None: the whole scan."""
    finder: Finder | None = None
    """What finds the regions, in the first channel; there if and only if there are some."""
    image_channels: tuple[str, ...] = (USUAL_CHANNEL,)
    """Names of the channels of its images, in their order."""
    wholes: tuple[Structure, ...] = ()
    """Structures that are made of several of `structures`."""

    @property
    def all_structures(self) -> tuple[Structure, ...]:
        """All structures that its label maps show, those that are made of others first."""
        return (*self.wholes, *self.structures)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device


def load_segmenter(
    run_dir: str | Path, *, weights: WeightsName = "last", device: str = "auto"
) -> Segmenter:
    """Load the segmenter of a finished run, with all of its members as one.

    Where a run holds one for each structure, those answer together.

    Args:
        run_dir: Folder that a training wrote.
        weights: Those after the last iteration, with the best validation score, or averaged.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        CheckpointError: If the run is not finished, damaged, or of another kind.
        ConfigError: If the device is not available.
    """
    folder = Path(run_dir)
    load = _separate if _is_separate(folder) else _together
    return load(folder, weights, device)


def _together(folder: Path, weights: WeightsName, device: str) -> Segmenter:
    """The segmenter of all structures of a run, in one network or one of several members."""
    description = read_description(SegmenterDescription, folder)
    network = _members(description, folder, weights)
    return Segmenter(
        network=network.to(choose_device(device)),
        structures=description.structures,
        space=description.space,
        divisor=divisor_of(description.segmenter, description.channels),
        regions=description.regions,
        finder=_finder_of(description, folder, device),
        image_channels=description.image_channels,
        wholes=description.wholes,
    )


def run_folders(run_dir: str | Path) -> tuple[Path, ...]:
    """The folders of a finished run that hold a segmenter: itself, or one for each structure.

    Raises:
        CheckpointError: If it is not finished, or damaged.
    """
    folder = Path(run_dir)
    if not _is_separate(folder):
        return (folder,)
    description = read_description(SeparateDescription, folder)
    return tuple(folder_of_structure(folder, one.name) for one in description.structures)


def load_member(folder: Path, *, weights: WeightsName = "last") -> SegmenterNetwork:
    """The network that one folder holds, without the members in folders inside it.

    Raises:
        CheckpointError: If its training is not finished, or it is damaged, or of another kind.
    """
    return _network_of(read_description(SegmenterDescription, folder), folder, weights)


def state_members(folder: Path, count: int) -> None:
    """Write into the model file of a run how many members it has, if it says otherwise."""
    description = read_description(SegmenterDescription, folder)
    if description.members != count:
        write_description(description.model_copy(update={"members": count}), folder)


def _network_of(
    description: SegmenterDescription, folder: Path, weights: WeightsName
) -> SegmenterNetwork:
    classes = 1 + len(description.structures)

    def build() -> SegmenterNetwork:
        return build_segmenter(
            description.segmenter,
            description.channels,
            classes=classes,
            image_channels=len(description.image_channels),
        )

    return load_network(build, description, folder, weights)


def _members(first: SegmenterDescription, folder: Path, weights: WeightsName) -> nn.Module:
    """The networks of all members as one.

    Raises:
        CheckpointError: If one is not finished, damaged, or not of the same training.
    """
    networks = [_network_of(first, folder, weights)]
    for number in range(2, first.members + 1):
        own = folder_of_member(folder, number)
        if not (own / MODEL_FILE).is_file():
            raise CheckpointError(
                f"{folder} is to have {first.members} members, and the training of number "
                f"{number} is not finished; run the same training again to resume it"
            )
        found = read_description(SegmenterDescription, own)
        same = (
            "structures",
            "wholes",
            "space",
            "regions",
            "segmenter",
            "channels",
            "image_channels",
        )
        if any(getattr(found, name) != getattr(first, name) for name in same):
            raise CheckpointError(
                f"{own} is not of the same training as {folder}: its structures, space, regions "
                "or network differ; restore both from a copy, or train again"
            )
        networks.append(_network_of(found, own, weights))
    return networks[0] if len(networks) == 1 else Members(networks)


def _is_separate(folder: Path) -> bool:
    """Whether a finished run holds one for each structure."""
    if not (folder / STRUCTURES_FOLDER).is_dir():
        return False
    return kind_of(folder) == str(SeparateDescription.model_fields["kind"].default)


def _separate(folder: Path, weights: WeightsName, device: str) -> Segmenter:
    """The segmenters of all structures as one.

    Raises:
        CheckpointError: If one is not finished, damaged, or not of the same training.
    """
    description = read_description(SeparateDescription, folder)
    parts = [_together(own, weights, device) for own in run_folders(folder)]
    channels = parts[0].image_channels
    for part, structure in zip(parts, description.structures, strict=True):
        found = (part.structures, part.space, part.image_channels, part.regions)
        if found != ((structure,), description.space, channels, None):
            raise CheckpointError(
                f"{folder_of_structure(folder, structure.name)} is not of the same training as "
                f"{folder}: its structure, space or channels differ; restore both from a copy, or "
                "train again"
            )
    return Segmenter(
        network=OnePerStructure(part.network for part in parts).eval(),
        structures=description.structures,
        space=description.space,
        divisor=max(part.divisor for part in parts),
        image_channels=channels,
        wholes=description.wholes,
    )


def _finder_of(description: SegmenterDescription, folder: Path, device: str) -> Finder | None:
    if description.regions is None:
        return None
    finder = load_finder(folder / FINDER_FOLDER, device=device)
    if finder.structures != description.structures:
        raise CheckpointError(
            f"{folder / FINDER_FOLDER} finds {finder.structures}, the segmenter beside it segments "
            f"{description.structures}: they are not of one training; restore both from a copy"
        )
    return finder


def build_segmenter(
    name: str,
    channels: tuple[int, ...],
    *,
    classes: int,
    image_channels: int = 1,
    activation_checkpoints: bool = False,
) -> SegmenterNetwork:
    """An untrained segmenter.

    Args:
        name: One of `SEGMENTERS`.
        channels: Channels of each level, from full resolution down.
        classes: Background included.
        image_channels: Channels of the images.
        activation_checkpoints: Compute each level again in the backward pass: the same gradients
            from less memory.

    Raises:
        ConfigError: If the name is unknown, or there is not at least one level.
    """
    _check_name(name)
    return SEGMENTERS[name](
        image_channels, classes, channels, activation_checkpoints=activation_checkpoints
    )


def divisor_of(name: str, channels: tuple[int, ...]) -> int:
    """What a spatial shape must be a multiple of for a segmenter, without building it.

    The same for all of them, so that all can be compared in one working space: the 2D U-Net could
    do with less along the last axis.

    Raises:
        ConfigError: If the name is unknown, or there is not at least one level, or for blocks two.
    """
    _check_name(name)
    check_channels(channels[1:] if name == BLOCKS else channels, "segmenter")
    return int(2 ** (len(channels) - 1))


def held_channels(name: SegmenterName, channels: tuple[int, ...]) -> tuple[int, ...]:
    """Channels of each level that are computed and held, from full resolution down."""
    return (0, *channels[1:]) if name == BLOCKS else channels


def _check_name(name: str) -> None:
    if name not in SEGMENTERS:
        raise ConfigError(f"unknown segmenter {name!r}; choose one of {', '.join(SEGMENTERS)}")
