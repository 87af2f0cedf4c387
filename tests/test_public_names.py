"""The public names: all of them load, and none before it is used."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import shapeguide

HEAVY = ("torch", "monai", "numpy", "pandas", "nibabel", "matplotlib", "lightning", "pydantic")


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(finished.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", shapeguide.__all__)
def test_each_public_name_loads(name: str) -> None:
    assert getattr(shapeguide, name) is not None


def test_every_public_name_is_listed_by_dir() -> None:
    assert set(shapeguide.__all__) <= set(dir(shapeguide))


def test_version_is_that_of_the_installed_package() -> None:
    assert shapeguide.__version__ == version("shapeguide")


def test_unknown_name_is_an_attribute_error() -> None:
    misspelt = "tarin"
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        getattr(shapeguide, misspelt)


def test_importing_the_package_loads_no_heavy_library() -> None:
    assert not modules_after("import shapeguide").intersection(HEAVY)


def test_importing_the_package_prints_nothing() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "import shapeguide"], capture_output=True, text=True, check=True
    )
    assert (finished.stdout, finished.stderr) == ("", "")
