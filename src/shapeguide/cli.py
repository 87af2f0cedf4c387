"""The `shapeguide` command: find the command, run it, turn errors into messages and exit codes.

What each command takes and prints is in the room `commands`, which is loaded only when a command
runs; `shapeguide --help` needs none of it and answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from shapeguide.errors import ShapeguideError

SUMMARIES = {
    "describe": "write the dataset.json of a folder of scans and label maps",
    "synthesize": "write a synthetic cohort to try things on",
    "train": "train the shape network and the segmenter",
    "predict": "segment scans with a trained run",
    "evaluate": "score predictions against references",
    "demo": "train and compare on a synthetic cohort, with a report",
    "study": "compare methods: separation (table 1), systems (table 2), guidance",
}

RENAMED = {"experiment": "study separation, study systems or study guidance"}
"""Commands of earlier versions, and what they are called now."""

REFUSED, INTERRUPTED = 2, 130

FIRST_SPEAKS_S = 5.0
"""The first of several processes that fail, mostly for one reason, speaks: a launcher ends the
others while they wait. One that fails by itself speaks after that."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows `shapeguide` on the command line; taken from there when not given.

    Returns:
        0 done, 1 some cases failed, 2 refused with a message, 130 interrupted.

    Raises:
        SystemExit: After help, a version or arguments that cannot be parsed.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    start = next((i for i, word in enumerate(given) if not word.startswith("-")), len(given))
    parser = _parser()
    if start < len(given) and given[start] in RENAMED:
        parser.error(f"{given[start]} is now called {RENAMED[given[start]]}")
    options = parser.parse_args(given[: start + 1])
    debug = options.debug or bool(os.environ.get("SHAPEGUIDE_DEBUG"))
    return _run(options.command, given[start + 1 :], debug=debug)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, SUMMARIES)) + 2
    listed = "\n".join(f"  {name:<{width}}{summary}" for name, summary in SUMMARIES.items())
    parser = argparse.ArgumentParser(
        prog="shapeguide",
        usage="shapeguide [--version] [--debug] COMMAND ...",
        description="Shape-guided segmentation of anatomical structures in 3D scans.",
        epilog=f"commands:\n{listed}\n\n`shapeguide COMMAND --help` lists its options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show the traceback of an error; so does SHAPEGUIDE_DEBUG=1",
    )
    parser.add_argument("command", choices=SUMMARIES, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from shapeguide import __version__

        print(f"shapeguide {__version__}")
        parser.exit()


def _run(command: str, arguments: list[str], *, debug: bool) -> int:
    try:
        from shapeguide import commands

        return commands.run(command, arguments)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where this one ended", file=sys.stderr)
        return INTERRUPTED
    except (ShapeguideError, OSError) as error:
        if debug:
            raise
        from shapeguide.launch import count, is_first, number

        which = f" (process {number()})" if count() > 1 else ""
        if not is_first():
            time.sleep(FIRST_SPEAKS_S)
        print(f"error{which}: {_message(error)}", file=sys.stderr)
        return REFUSED


def _message(error: ShapeguideError | OSError) -> str:
    if isinstance(error, ShapeguideError) or not error.strerror:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}"
