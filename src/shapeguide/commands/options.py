"""The options that settings give to a command, and which of all options its help shows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import ValidationError
from tyro.conf import OmitArgPrefixes, Suppress, arg
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from shapeguide.commands.arguments import CaseChoice
from shapeguide.errors import ConfigError
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.training.settings.base import Settings
from shapeguide.training.settings.groups import (
    DataSettings,
    MachineSettings,
    SegmentationSettings,
    TrainSettings,
)
from shapeguide.training.settings.guidance import ShapeGuidance
from shapeguide.training.settings.presets import PRESETS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

HELP, HELP_ALL = "--help", "--help-all"
CHOSEN = (Settings, CaseChoice, WarpLimits)
"""Groups of options of which the short help shows but some, or none."""

SHORT_GROUPS = ("data", "shape_loss", "segmentation", "machine")
"""Groups of settings whose options carry no prefix."""

USUAL: dict[type, tuple[str, ...]] = {
    CaseChoice: ("split", "fold", "test_count", "images", "labels"),
    DataSettings: ("spacing_mm", "spatial_shape", "region"),
    ShapeGuidance: ("alpha",),
    SegmentationSettings: (
        "segmenter",
        "dice_iterations",
        "guided_iterations",
        "batch_size",
    ),
    MachineSettings: ("device",),
}
"""What `--help` shows of the settings and of the choice of cases; `--help-all` shows the rest too.

The options that a command states itself are always shown."""


def setting_options(arguments: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """Name, annotation and default of the options that `TrainSettings` gives a command.

    Args:
        arguments: The command's arguments; the preset that they name gives the defaults.
    """
    defaults = PRESETS.get(_preset_in(arguments), TrainSettings())
    options: list[tuple[str, Any, Any]] = []
    for name, setting in TrainSettings.model_fields.items():
        kind = cast(Any, setting.annotation)
        stated = OmitArgPrefixes if name in SHORT_GROUPS else arg(help=setting.description)
        options.append((name, Annotated[kind, stated], getattr(defaults, name)))
    return options


def _preset_in(arguments: Sequence[str]) -> str:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?", default="")
    return str(parser.parse_known_args(arguments)[0].preset)


def settings_of(command: object) -> TrainSettings:
    """The settings that the options of a parsed command give; others have their defaults.

    Raises:
        ConfigError: Naming each option that does not fit.
    """
    names = [name for name in TrainSettings.model_fields if hasattr(command, name)]
    try:
        return TrainSettings.model_validate({name: getattr(command, name) for name in names})
    except ValidationError as error:
        raise ConfigError("; ".join(map(_fault, error.errors()))) from error


def _fault(fault: ErrorDetails) -> str:
    group, *names = map(str, fault["loc"])
    reason = fault["msg"].removeprefix("Value error, ")
    if not names and group not in ("seed", "members", "preset", "guidance"):
        return f"{group} options: {reason}"
    prefix = () if group in SHORT_GROUPS else (group,)
    return f"--{'.'.join((*prefix, *names)).replace('_', '-')} {fault['input']}: {reason}"


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for the short help."""
    return HELP_ALL not in arguments and bool({"-h", HELP}.intersection(arguments))


def option_rules(*, usual_alone: bool) -> ConstructorRegistry:
    """How the parser makes options of settings: plain values, which `settings_of` checks.

    Args:
        usual_alone: Leave out what the short help does not show. It would not be parsed either.
    """
    registry = ConstructorRegistry()
    inside = False

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal inside
        kind: object = info.type
        if inside or not isinstance(kind, type) or not issubclass(kind, CHOSEN):
            return None
        inside = True  # so that the parser's own rules make the options
        try:
            made = ConstructorRegistry.get_struct_spec(info)
        finally:
            inside = False
        if not isinstance(made, StructConstructorSpec):
            return None
        if issubclass(kind, Settings):
            made = replace(made, instantiate=dict)
        shown = USUAL.get(kind, ())
        hidden = {field.name for field in made.fields if usual_alone and field.name not in shown}
        return replace(made, fields=tuple(_suppressed(f, f.name in hidden) for f in made.fields))

    return registry


def _suppressed(field: StructFieldSpec, hidden: bool) -> StructFieldSpec:
    kind = cast(type, Annotated[field.type, Suppress])
    return replace(field, type=kind) if hidden else field
