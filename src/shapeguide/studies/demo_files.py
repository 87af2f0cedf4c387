"""The folder of a demo: where everything lies, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shapeguide.storage.identity import FolderKind
from shapeguide.studies.study import StudyFiles

PLAIN, GUIDED = METHODS = ("plain", "guided")
KIND = FolderKind("demo", "demo.json", identity=("cohort", "settings"))


@dataclass(frozen=True)
class DemoCohort:
    """What the synthetic cohort of a demo holds."""

    training_cases: int = 8
    test_cases: int = 24
    shape: str = "horn"


@dataclass(frozen=True)
class DemoFiles(StudyFiles):
    """Where everything of a demo lies."""

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder / "index.html"

    @property
    def cohort(self) -> Path:
        """The synthetic cohort, a Decathlon folder."""
        return self.folder / "cohort"

    def run(self, name: str) -> Path:
        """Run folder of the shape network (`shape`) or of a method."""
        return self.folder / name

    def predictions(self, method: str) -> Path:
        """Label maps of a method."""
        return self.folder / "predictions" / method.replace(" ", "_")

    def scores(self, name: str) -> Path:
        """Table of scores of a method, or of the comparison."""
        return self.folder / "scores" / f"{name.replace(' ', '_')}.csv"
