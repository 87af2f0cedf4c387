"""What all tests share: where the real data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans that SHAPEGUIDE_DATA names; the test is skipped without it."""
    named = os.environ.get("SHAPEGUIDE_DATA")
    if not named:
        pytest.skip("SHAPEGUIDE_DATA is not set: no real data here")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"SHAPEGUIDE_DATA names {folder}, which is not a folder: no real data here")
    return folder
