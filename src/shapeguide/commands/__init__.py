"""The commands: each class is one, its fields are the arguments, `run` makes one public call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import tyro
from pydantic import ValidationError

from shapeguide.commands.cohorts import Demo, Describe, Synthesize
from shapeguide.commands.experiments import experiment_command
from shapeguide.commands.models import Predict, train_command
from shapeguide.commands.scores import Evaluate
from shapeguide.commands.terminal import show_log
from shapeguide.errors import ConfigError


class Command(Protocol):
    """What every command class has."""

    def run(self) -> int:
        """Do it, print the result, and return the exit code: 0, or 1 when some cases failed."""
        ...


COMMANDS: dict[str, Callable[[Sequence[str]], type[Command]]] = {
    "describe": lambda _: Describe,
    "synthesize": lambda _: Synthesize,
    "train": train_command,
    "predict": lambda _: Predict,
    "evaluate": lambda _: Evaluate,
    "demo": lambda _: Demo,
    "experiment": experiment_command,
}
"""Name to the class that parses these arguments: the options of `train` depend on its preset."""


def run(name: str, arguments: Sequence[str]) -> int:
    """Parse the arguments of a command and run it.

    Returns:
        0, or 1 when some cases failed.

    Raises:
        SystemExit: After help, or when the arguments cannot be parsed.
        ShapeguideError: If the command refuses.
    """
    show_log()
    return parse(name, arguments).run()


def parse(name: str, arguments: Sequence[str]) -> Command:
    """Parse the arguments of a command without running it.

    Raises:
        SystemExit: After help, or when the arguments cannot be parsed.
        ConfigError: If a setting is out of range.
    """
    command = COMMANDS[name](arguments)
    try:
        return tyro.cli(
            command,
            args=arguments,
            prog=f"shapeguide {name}",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except ValidationError as error:
        raise ConfigError(_faults(error)) from error


def _faults(error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        option = ".".join(str(part) for part in fault["loc"]).replace("_", "-")
        lines.append(f"--{option} {fault['input']}: {fault['msg']}")
    return "; ".join(lines)
