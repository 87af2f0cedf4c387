"""The demo: a plain and a guided segmenter on a synthetic cohort, compared on cases never seen.

Its steps are cells; each leaves files and is left out when they are there, so a killed demo goes on
where it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from shapeguide.cells import Cell, run_cells
from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.data.nifti import read_label_map, write_label_map
from shapeguide.data.synthetic import write_cohort
from shapeguide.errors import DataError, ShapeguideError
from shapeguide.inference.prediction_files import predict_files
from shapeguide.inference.usual import calibrate_restorer
from shapeguide.metrics.components import keep_largest_component
from shapeguide.metrics.metric import MAIN_METRICS
from shapeguide.metrics.summary import compare
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.models.restorer_model import RESTORER_FOLDER, USUAL_FILE
from shapeguide.models.shape_model import load_shape_network
from shapeguide.report.words import headline, shown
from shapeguide.storage.identity import claim
from shapeguide.storage.lock import locked
from shapeguide.storage.whole import write_table
from shapeguide.studies.demo_files import GUIDED, KIND, METHODS, PLAIN, DemoCohort, DemoFiles
from shapeguide.studies.demo_page import (
    LARGEST,
    DemoScores,
    score_rows,
    write_report,
)
from shapeguide.studies.study import seconds_of, stopwatch
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset, resolve
from shapeguide.training.stages.restorer import train_restorer
from shapeguide.training.stages.segmentation import train_segmenter
from shapeguide.training.stages.shape import train_shape
from shapeguide.workflows.evaluation import evaluate

QUICK = preset("quick")
VARIATION = ("deep_supervision", "warped_share", "elastic_mm", "scanner_faults")
"""What the demo takes from the preset `default` and not from `quick`."""
DEMO_SETTINGS = QUICK.changed(
    # A coarser working grid makes room for more iterations; predictions still return to 1 mm.
    data=QUICK.data.changed(spacing_mm=(1.5, 1.5, 1.5)),
    shape=QUICK.shape.changed(iterations=200),
    segmentation=QUICK.segmentation.changed(
        dice_iterations=300,
        guided_iterations=150,
        # Eight cases are soon known by heart: variation is worth more here than anywhere.
        **{name: getattr(preset("default").segmentation, name) for name in VARIATION},
    ),
)


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo found, and where it lies."""

    folder: Path
    page: Path
    """The report; opens in any browser."""
    scores: DemoScores
    seconds: Mapping[str, float]
    """Wall-clock time of each step, over all its starts."""

    @property
    def headline(self) -> str:
        """The comparison of guided and plain in one line, as their predictions come."""
        return headline(self.scores.comparison, first=GUIDED, second=PLAIN, metrics=MAIN_METRICS)

    def table(self) -> list[tuple[str, ...]]:
        """Mean scores of each method over the test cases, as text; the first row holds headings."""
        return score_rows(self.scores, lambda row: shown(row["metric"], row["mean"]))


def demo(
    out: str | Path = "demo",
    *,
    seed: int = 0,
    settings: TrainSettings | str | None = None,
    cohort: DemoCohort | None = None,
    progress: bool = True,
) -> DemoResult:
    """Train both segmenters on a synthetic cohort, compare them and write the report.

    The same call on the folder of a killed demo does only what is missing; on that of a finished
    one it reads the result.

    Args:
        out: Folder for everything; see `index.html` in it.
        seed: Seed of the cohort, the split and the training.
        settings: Settings, or the name of a preset; those that fit the demo's cohort when not
            given. Both segmenters train with them, the plain one without the shape loss, for
            equally many iterations; what the guided one predicts is restored too, unless they
            train no restorer.
        cohort: Number of cases.
        progress: Show progress bars.

    Raises:
        ShapeguideError: If a step fails.
        ConfigError: If the folder holds another demo or something else, or the shape network has
            collapsed.
        CheckpointError: If a file of an earlier start is damaged.
    """
    settings = resolve(DEMO_SETTINGS if settings is None else settings).changed(seed=seed)
    made = _Demo(DemoFiles(Path(out)), settings, cohort or DemoCohort(), progress)
    files = made.files
    identity = {
        "cohort": asdict(made.cohort),
        "settings": settings.model_dump(mode="json", exclude={"machine"}),
    }
    with locked(files.folder), _one_thread():
        claim(files.folder, KIND, identity)
        _do(made, _steps(made))
        scores = _score(made.cases()[1], files)
        if not files.page.is_file():
            _do(made, {"report": (_report, (scores,))})
    return DemoResult(files.folder, files.page, scores, made.seconds())


@dataclass(frozen=True)
class _Demo:
    """What every step refers to."""

    files: DemoFiles
    settings: TrainSettings
    cohort: DemoCohort
    progress: bool

    @property
    def restores(self) -> bool:
        """Whether a restorer is trained, and used by the guided method."""
        return self.settings.restorer.iterations > 0

    def cases(self) -> tuple[Dataset, Dataset]:
        """Training and test cases."""
        dataset = read_dataset(self.files.cohort / "dataset.json")
        dataset = dataset.with_structures(**{self.cohort.shape: (1,)})
        return dataset.split_at_random(test_count=self.cohort.test_cases, seed=self.settings.seed)

    def seconds(self) -> dict[str, float]:
        """Seconds of each step, over all its starts."""
        found = {name: seconds_of(self.files.folder, name.replace(" ", "_")) for name in STEPS}
        return {name: value for name, value in found.items() if value > 0}


STEPS = (
    "cohort",
    "shape network",
    "shape restorer",
    *(f"{method} {part}" for method in METHODS for part in ("segmenter", "predictions")),
    "report",
)
Steps = dict[str, tuple[Callable[..., None], tuple[Any, ...]]]
"""What is called for each step: a function, and its arguments after the demo."""


def _steps(made: _Demo) -> Steps:
    """The steps that are not done, in their order."""
    files = made.files
    shape, guided = files.run("shape"), files.run(GUIDED)
    restorer = guided / RESTORER_FOLDER
    steps: Steps = {
        "cohort": (_write_cohort, ()),
        "shape network": (_train_shapes, (train_shape, shape)),
        "shape restorer": (_train_shapes, (train_restorer, restorer)),
    }
    for method in METHODS:
        steps[f"{method} segmenter"] = (_train_segmenter, (method,))
        steps[f"{method} predictions"] = (_predict, (method,))
    done = {
        "cohort": (files.cohort / "dataset.json").is_file(),
        "shape network": (shape / MODEL_FILE).is_file(),
        "shape restorer": not made.restores or (restorer / MODEL_FILE).is_file(),
        "plain segmenter": (files.run(PLAIN) / MODEL_FILE).is_file(),
        "guided segmenter": (guided / MODEL_FILE).is_file()
        and (not made.restores or (restorer / USUAL_FILE).is_file()),
    }
    if done["cohort"]:
        names = [f"{case.id}.nii.gz" for case in made.cases()[1]]
        for method in METHODS:
            folders = [files.predictions(f"{method}{end}") for end in ("", LARGEST)]
            there = [(folder / name).is_file() for folder in folders for name in names]
            done[f"{method} predictions"] = all(there)
    return {name: step for name, step in steps.items() if not done.get(name)}


def _do(made: _Demo, steps: Steps) -> None:
    """Do steps in this process, one after the other; each needs the one before it.

    Raises:
        ShapeguideError: If one fails.
    """
    cells: list[Cell] = []
    for name, (call, arguments) in steps.items():
        before = tuple(cell.name for cell in cells[-1:])
        cells.append(Cell(name, _timed, (made, name, call, *arguments), needs=before))
    for name, reason in run_cells(cells).items():
        raise ShapeguideError(f"demo, {name}: {reason}")


def _timed(made: _Demo, step: str, call: Callable[..., None], *arguments: Any) -> None:
    with stopwatch(made.files.folder, step.replace(" ", "_")):
        call(made, *arguments)


def _write_cohort(made: _Demo) -> None:
    write_cohort(
        made.files.cohort,
        count=made.cohort.training_cases + made.cohort.test_cases,
        seed=made.settings.seed,
        shape=made.cohort.shape,
        overwrite=True,
    )


def _train_shapes(made: _Demo, train: Callable[..., object], run_dir: Path) -> None:
    """Train a network that sees label maps alone."""
    train(made.cases()[0], run_dir=run_dir, settings=made.settings, progress=made.progress)


def _train_segmenter(made: _Demo, method: str) -> None:
    files, settings, train = made.files, made.settings, made.cases()[0]
    guide = load_shape_network(files.run("shape")) if method == GUIDED else None
    train_segmenter(
        train,
        guide,
        run_dir=files.run(method),
        settings=settings,
        # Before the guidance both are the same to the bit; it is computed once.
        branch_from=files.run(PLAIN) if guide else None,
        progress=made.progress,
    )
    if guide and made.restores:
        calibrate_restorer(
            files.run(method), train, share=settings.restorer.usual_share, progress=made.progress
        )


def _predict(made: _Demo, method: str) -> None:
    """Predictions as they come, and with the largest component kept."""
    files, (_, test) = made.files, made.cases()
    raw, largest = files.predictions(method), files.predictions(method + LARGEST)
    report = predict_files(
        files.run(method), [case.image for case in test], out_dir=raw, progress=made.progress
    )
    if report.failed:
        failure = report.failed[0]
        raise DataError(f"{failure.scan} could not be segmented: {failure.reason}")
    for case in test:
        name = f"{case.id}.nii.gz"
        if not (largest / name).is_file():
            found = read_label_map(raw / name, structures=test.structures)
            write_label_map(keep_largest_component(found), largest / name)


def _report(made: _Demo, scores: DemoScores) -> None:
    shape_network = load_shape_network(made.files.run("shape"))
    write_report(made.files, made.cases(), shape_network, made.settings, scores, made.seconds())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread.

    The networks of the demo are so small that a second thread saves little, and on a machine that
    others use too, waiting for it costs up to ten times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _score(test: Dataset, files: DemoFiles) -> DemoScores:
    methods = (*METHODS, *(method + LARGEST for method in METHODS))
    tables = {
        method: evaluate(files.predictions(method), test, out=files.scores(method)).scores
        for method in methods
    }
    raw, largest = (
        compare(tables[GUIDED + end], tables[PLAIN + end]).assign(
            first=GUIDED + end, second=PLAIN + end
        )
        for end in ("", LARGEST)
    )
    write_table(files.scores("comparison"), pd.concat([raw, largest]))
    return DemoScores(tables, raw, largest)
