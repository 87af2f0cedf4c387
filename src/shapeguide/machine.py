"""Which device computes, in which precision, and how the state of a machine is told in a log."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from pathlib import Path

import torch

from shapeguide.errors import ConfigError

logger = logging.getLogger(__name__)


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes CUDA where there is one, else the CPU.

    MPS is taken when it is named: nothing of this package has been tried there yet.

    Raises:
        ConfigError: If this machine does not have it.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = "cuda" if available["cuda"] else "cpu"
        if name == "cpu" and available["mps"]:
            logger.info("computing on the CPU; 'mps' is untried, and taken when it is named")
    if not available.get(name, False):
        there = ", ".join(kind for kind, has in available.items() if has)
        raise ConfigError(f"device {name!r} is not available here; choose one of: auto, {there}")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` takes bf16 where the device is faster in it.

    A processor that multiplies matrices in bf16 (AMX) is, and so is one of AMD that has it in its
    vectors. An Intel processor with AVX-512 in bf16 alone is not: its convolutions take about 1.6
    times as long as in fp32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        in_vectors = has.get("avx512_bf16") and not str(has.get("cpu_name")).startswith("Intel")
        return "bf16" if has.get("amx_bf16") or in_vectors else "fp32"
    return "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context in which networks run in that precision on that device."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where Linux states what a container may take; a word instead of a number is no limit."""


def memory_bytes(device: torch.device) -> int | None:
    """Memory of a GPU, or of the machine, or what a container on it may take; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(names):
        return None
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(found, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):
        return found


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory that tensors have taken on a GPU, or this process at all; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        resource = import_module("resource")
    except ImportError:  # Windows
        return None
    found: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else 1024 * found
