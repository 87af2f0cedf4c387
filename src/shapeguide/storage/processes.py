"""Whether another process of this machine still runs."""

from __future__ import annotations

import os

WINDOWS = os.name == "nt"


def may_run(process: int) -> bool:
    """Whether a process of that number is there; where one cannot ask, it may be."""
    if WINDOWS:  # to ask in this way would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
