"""Errors raised on purpose: each names the case, what was found and the way out."""


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


def reason(error: BaseException) -> str:
    """Why something failed, in one line of at most 200 characters.

    The path is left out of what the operating system says, since the messages around it name it.
    """
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = (said or type(error).__name__).splitlines()[0]
    return line if len(line) <= 200 else line[:197] + "..."
