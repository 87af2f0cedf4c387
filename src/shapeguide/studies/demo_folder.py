"""The folder of a demo: where everything lies, whose it is, and how long each step took."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import shapeguide
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.storage.whole import write_json
from shapeguide.training.settings.groups import TrainSettings

TRAINING_CASES, TEST_CASES = 8, 24


@dataclass(frozen=True)
class DemoCohort:
    """What the synthetic cohort of a demo holds."""

    training_cases: int = TRAINING_CASES
    test_cases: int = TEST_CASES
    shape: str = "horn"


@dataclass(frozen=True)
class DemoFiles:
    """Where everything of a demo lies."""

    folder: Path

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder / "index.html"

    @property
    def identity(self) -> Path:
        """Settings and cohort: which demo this is."""
        return self.folder / "demo.json"

    @property
    def steps(self) -> Path:
        """Seconds of each step."""
        return self.folder / "seconds.json"

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

    def figure(self, name: str) -> Path:
        """A picture; `name` has its suffix."""
        return self.folder / "figures" / name


def claim_demo(files: DemoFiles, settings: TrainSettings, cohort: DemoCohort) -> None:
    """Make the folder of a demo, or take up the one that the same demo left.

    Raises:
        ConfigError: If the folder holds another demo or something else.
        CheckpointError: If its description is damaged or it cannot be written.
    """
    identity = {
        "cohort": asdict(cohort),
        "settings": settings.model_dump(mode="json", exclude={"machine"}),
        "written_by": f"shapeguide {shapeguide.__version__}",
    }
    path = files.identity
    if path.is_file():
        found = _read(path)
        if found != identity:
            changed = [name for name in identity if found.get(name) != identity[name]]
            raise ConfigError(
                f"{files.folder} holds another demo (other {', '.join(changed)}); choose another "
                "folder, or overwrite this one"
            )
        return
    if files.folder.exists() and (not files.folder.is_dir() or any(files.folder.iterdir())):
        raise ConfigError(f"{files.folder} holds something else than a demo; choose another folder")
    try:
        write_json(path, identity)
    except OSError as error:
        raise CheckpointError(f"cannot write to {files.folder}: {error}") from error


def clear_demo(out: str | Path) -> None:
    """Delete the folder of a demo as a whole, if there is one.

    Raises:
        ConfigError: If the folder is not one of a demo, so that nothing else is ever deleted.
    """
    folder = Path(out)
    if not folder.exists():
        return
    if not DemoFiles(folder).identity.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not the folder of a demo: not deleted; choose another")
    shutil.rmtree(folder)


class Clock:
    """Seconds of each step, kept in a file so that a resumed demo still knows them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = _read(path) if path.is_file() else {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step, unless an earlier start has finished and measured it."""
        start = time.perf_counter()
        yield
        if name not in self.seconds:
            self.seconds[name] = round(time.perf_counter() - start, 2)
            write_json(self._path, self.seconds)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use another folder") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: not an object; use another folder")
    return content
