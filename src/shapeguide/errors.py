"""Errors raised on purpose: each names the case, what was found and the way out."""

from __future__ import annotations

from pathlib import Path


class ShapeguideError(Exception):
    """Base of all errors that tell the user what to change."""


class DataError(ShapeguideError, ValueError):
    """A scan, label map, dataset description or split cannot be used as it is."""


class GeometryError(ShapeguideError, ValueError):
    """Grids, affines or shapes do not fit together."""


class ConfigError(ShapeguideError, ValueError):
    """Settings contradict each other, the data or the run they are meant for."""


class CheckpointError(ShapeguideError, OSError):
    """A model, checkpoint or run folder is damaged, foreign or cannot be written."""


def reason(error: BaseException, path: Path | None = None) -> str:
    """Why something failed, in one line of at most 200 characters.

    A path is left out of what the operating system says, since the messages around it name it; so
    is `path` out of what a library says.
    """
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if path is not None:
        said = said.replace(str(path), "").strip(" :'\"")
    line = (said or type(error).__name__).splitlines()[0]
    return line if len(line) <= 200 else line[:197] + "..."
