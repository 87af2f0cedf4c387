"""The demo: a plain and a guided segmenter on a synthetic cohort, compared on cases never seen.

Its steps are cells; each leaves files and is left out when they are there, so a killed demo goes on
where it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

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
from shapeguide.metrics.metric import METRICS
from shapeguide.metrics.summary import compare, summarise
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.models.restorer_model import RESTORER_FOLDER, USUAL_FILE
from shapeguide.models.shape_model import load_shape_network
from shapeguide.report.words import headline, records, shown
from shapeguide.storage.identity import claim
from shapeguide.storage.lock import locked
from shapeguide.storage.whole import write_table
from shapeguide.studies.demo_files import KIND, DemoCohort, DemoFiles
from shapeguide.studies.demo_page import MAIN_METRICS, DemoScores, write_report
from shapeguide.studies.study import seconds_of, stopwatch
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset, resolve
from shapeguide.training.stages.restorer import train_restorer
from shapeguide.training.stages.segmentation import train_segmenter
from shapeguide.training.stages.shape import train_shape
from shapeguide.workflows.evaluation import evaluate

QUICK = preset("quick")
DEMO_SETTINGS = QUICK.changed(
    # A coarser working grid makes room for more iterations; predictions still return to 1 mm.
    data=QUICK.data.changed(spacing_mm=(1.5, 1.5, 1.5)),
    shape=QUICK.shape.changed(iterations=200),
    segmentation=QUICK.segmentation.changed(dice_iterations=300, guided_iterations=150),
)

METHODS = ("plain", "guided")


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
        return headline(
            self.scores.comparison, first="guided", second="plain", metrics=MAIN_METRICS
        )

    def table(self) -> list[tuple[str, ...]]:
        """Mean scores of each method over the test cases, as text; the first row holds headings."""
        rows = [("method", *(metric.name for metric in METRICS.values()), "missed")]
        for name, table in self.scores.tables.items():
            summary = records(summarise(table))
            means = tuple(shown(row["metric"], row["mean"]) for row in summary)
            rows.append((name, *means, str(summary[0]["missed"])))
        return rows


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
        seed: Of the cohort, the split and the training.
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
        _do(_steps(made))
        scores = _score(made.cases()[1], files)
        if not files.page.is_file():
            _do([Cell("report", _report, (made, scores))])
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
        found = {name: seconds_of(self.files.folder, _file_name(name)) for name in STEPS}
        return {name: value for name, value in found.items() if value > 0}


STEPS = (
    "cohort",
    "shape network",
    "shape restorer",
    *(f"{method} {part}" for method in METHODS for part in ("segmenter", "predictions")),
    "report",
)


def _file_name(step: str) -> str:
    return step.replace(" ", "_")


def _steps(made: _Demo) -> list[Cell]:
    """The steps that are not done, in their order."""
    files = made.files
    restorer = files.run("guided") / RESTORER_FOLDER
    steps: dict[str, tuple[bool, Callable[..., None], tuple[object, ...]]] = {
        "cohort": ((files.cohort / "dataset.json").is_file(), _write_cohort, ()),
        "shape network": ((files.run("shape") / MODEL_FILE).is_file(), _train_shape, ()),
    }
    if made.restores:
        steps["shape restorer"] = ((restorer / MODEL_FILE).is_file(), _train_restorer, ())
    for method in METHODS:
        done = (files.run(method) / MODEL_FILE).is_file()
        if method == "guided" and made.restores:
            done = done and (restorer / USUAL_FILE).is_file()
        steps[f"{method} segmenter"] = (done, _train_segmenter, (method,))
        steps[f"{method} predictions"] = (False, _predict, (method,))
    return [
        Cell(name, call, (made, *arguments))
        for name, (done, call, arguments) in steps.items()
        if not done
    ]


def _do(steps: list[Cell]) -> None:
    """Do steps in this process, one after the other; each needs all before it.

    Raises:
        ShapeguideError: If one fails.
    """
    names = [step.name for step in steps]
    chained = [
        Cell(step.name, step.call, step.arguments, needs=tuple(names[:place]))
        for place, step in enumerate(steps)
    ]
    failures = run_cells(chained)
    for name, reason in failures.items():
        raise ShapeguideError(f"demo, {name}: {reason}")


def _write_cohort(made: _Demo) -> None:
    with stopwatch(made.files.folder, "cohort"):
        write_cohort(
            made.files.cohort,
            count=made.cohort.training_cases + made.cohort.test_cases,
            seed=made.settings.seed,
            shape=made.cohort.shape,
            overwrite=True,
        )


def _train_shape(made: _Demo) -> None:
    with stopwatch(made.files.folder, "shape_network"):
        run_dir = made.files.run("shape")
        train_shape(
            made.cases()[0], run_dir=run_dir, settings=made.settings, progress=made.progress
        )


def _train_restorer(made: _Demo) -> None:
    with stopwatch(made.files.folder, "shape_restorer"):
        run_dir = made.files.run("guided") / RESTORER_FOLDER
        train_restorer(
            made.cases()[0], run_dir=run_dir, settings=made.settings, progress=made.progress
        )


def _train_segmenter(made: _Demo, method: str) -> None:
    files, settings, train = made.files, made.settings, made.cases()[0]
    guide = load_shape_network(files.run("shape")) if method == "guided" else None
    with stopwatch(files.folder, f"{method}_segmenter"):
        train_segmenter(
            train,
            guide,
            run_dir=files.run(method),
            settings=settings,
            # Before the guidance both are the same to the bit; it is computed once.
            branch_from=files.run("plain") if guide else None,
            progress=made.progress,
        )
        if guide and made.restores:
            calibrate_restorer(
                files.run(method), train, share=settings.restorer.usual_share,
                progress=made.progress,
            )  # fmt: skip


def _predict(made: _Demo, method: str) -> None:
    """Predictions as they come, and with the largest component kept."""
    files, (_, test) = made.files, made.cases()
    raw, largest = files.predictions(method), files.predictions(f"{method} largest")
    names = [f"{case.id}.nii.gz" for case in test]
    if all((folder / name).is_file() for folder in (raw, largest) for name in names):
        return
    with stopwatch(files.folder, f"{method}_predictions"):
        report = predict_files(
            files.run(method), [case.image for case in test], out_dir=raw, progress=made.progress
        )
        if report.failed:
            failure = report.failed[0]
            raise DataError(f"{failure.scan} could not be segmented: {failure.reason}")
        for name in names:
            if not (largest / name).is_file():
                found = read_label_map(raw / name, structures=test.structures)
                write_label_map(keep_largest_component(found), largest / name)


def _report(made: _Demo, scores: DemoScores) -> None:
    with stopwatch(made.files.folder, "report"):
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
    methods = ("plain", "guided", "plain largest", "guided largest")
    tables = {
        method: evaluate(files.predictions(method), test, out=files.scores(method)).scores
        for method in methods
    }
    comparisons = {
        end: compare(tables[f"guided{end}"], tables[f"plain{end}"]) for end in ("", " largest")
    }
    joined = pd.concat(
        [
            comparison.assign(first=f"guided{end}", second=f"plain{end}")
            for end, comparison in comparisons.items()
        ]
    )
    write_table(files.scores("comparison"), joined)
    return DemoScores(tables, comparisons[""], comparisons[" largest"])
