"""The commands: each class is one, its fields are the arguments, `run` makes one public call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import tyro

from shapeguide.commands.cohorts import Demo, Describe, Synthesize
from shapeguide.commands.options import HELP, HELP_ALL, asks_for_help, option_rules
from shapeguide.commands.predict import Predict
from shapeguide.commands.scores import Evaluate
from shapeguide.commands.studies import study_command
from shapeguide.commands.terminal import show_log, tell
from shapeguide.commands.train import train_command


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
    "study": study_command,
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
    """
    short = asks_for_help(arguments)
    try:
        return tyro.cli(
            COMMANDS[name](arguments),
            args=[HELP if word == HELP_ALL else word for word in arguments],
            prog=f"shapeguide {name}",
            config=(tyro.conf.FlagCreatePairsOff,),
            registry=option_rules(usual_alone=short),
        )
    except SystemExit:
        if short:
            tell(f"{HELP_ALL} in place of {HELP} shows every option.")
        raise
