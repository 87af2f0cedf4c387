"""Commands that need no model: describe a folder, write a synthetic cohort, run the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

import shapeguide as sg
from shapeguide.commands.arguments import ImagePatterns, refuse_existing
from shapeguide.commands.terminal import print_table, tell
from shapeguide.errors import DataError


@dataclass(frozen=True)
class Describe:
    """Write the description of a folder of scans and label maps (a Decathlon dataset.json).

    Knows Decathlon, nnU-Net v2, BIDS derivatives, FreeSurfer, LPBA40, one folder per person, any
    other by patterns, and tables with the columns image and label.
    """

    folder: Positional[Path]
    """The folder, or the table (.csv, .tsv)."""
    images: ImagePatterns = ()
    """Which files are images, such as 'T1_*.nii.gz'; `{person}` may stand in place of a star."""
    labels: Annotated[str | None, arg(metavar="PATTERN")] = None
    """Which files are label maps, such as '*_seg.nii.gz'."""
    out: Path = Path("dataset.json")
    """The description to write."""
    overwrite: bool = False
    """Replace an older description."""
    allow_outside: bool = False
    """Let the folder lead outside, by links or the root that its description states."""

    def run(self) -> int:
        """Describe the folder."""
        if not self.folder.is_dir() and self.folder.suffix.lower() not in (".csv", ".tsv"):
            raise DataError(
                f"{self.folder} is not a folder; name one of scans and label maps, or a table"
            )
        refuse_existing(self.out, self.overwrite)
        sg.describe(
            self.folder,
            self.out,
            images=self.images,
            labels=self.labels,
            allow_outside=self.allow_outside,
        )
        # A root elsewhere is the one that was just stated.
        described = sg.read_dataset(self.out, allow_outside=True)
        tell(f"{len(described)} cases described in {self.out}")
        return 0


@dataclass(frozen=True)
class Synthesize:
    """Write a synthetic cohort: label maps of varying shape inside images that hide them."""

    out: Positional[Path]
    """Folder to write, in the Decathlon layout."""
    cases: int = 40
    seed: int = 0
    spatial_shape: tuple[int, int, int] = (48, 48, 48)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shape: Literal["horn", "comma"] = "horn"
    """A hippocampus-like horn or a caudate-like comma."""
    overwrite: bool = False
    """Replace the cohort that the folder holds."""

    def run(self) -> int:
        """Write the cohort."""
        description = sg.write_cohort(
            self.out,
            count=self.cases,
            seed=self.seed,
            spatial_shape=self.spatial_shape,
            spacing_mm=self.spacing_mm,
            shape=self.shape,
            overwrite=self.overwrite,
        )
        tell(f"{self.cases} cases described in {description}")
        return 0


@dataclass(frozen=True)
class Demo:
    """Train a plain and a guided segmenter on a synthetic cohort and report the comparison.

    The same command goes on where a stopped one ended, and reads what a finished one wrote.
    """

    out: Path = Path("demo")
    """Folder of everything; the report is index.html."""
    seed: int = 0
    """Seed of the cohort, the split and the training."""

    def run(self) -> int:
        """Run the demo and print its scores."""
        found = sg.demo(self.out, seed=self.seed)
        print_table("mean scores on cases never trained on", found.table())
        tell(found.headline)
        tell(f"report: {found.page}")
        return 0
