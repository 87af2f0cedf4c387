"""Which of several processes this is, where torchrun or the like has started more than one."""

from __future__ import annotations

import os


def count() -> int:
    """How many processes work together: what the launcher says, or 1."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def count_on_this_machine() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if count() > 1 else 1


def is_first() -> bool:
    """Whether this is the one that writes, and speaks."""
    return number() == 0


def is_started_by_fabric() -> bool:
    """Whether `fabric run` has started it: then processes are joined without being asked to."""
    return os.environ.get("LT_CLI_USED") == "1"
