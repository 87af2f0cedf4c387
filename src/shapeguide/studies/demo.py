"""The demo: a plain and a guided segmenter on a synthetic cohort, compared on cases never seen.

Every step leaves files and is skipped when they are there, so a killed demo goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.data.nifti import read_label_map, write_label_map
from shapeguide.data.synthetic import write_cohort
from shapeguide.errors import DataError
from shapeguide.inference.prediction_files import predict_files
from shapeguide.inference.usual import calibrate_restorer
from shapeguide.metrics.components import keep_largest_component
from shapeguide.metrics.metric import METRICS
from shapeguide.metrics.summary import compare, summarise
from shapeguide.models.restorer_model import RESTORER_FOLDER
from shapeguide.report.words import headline, records, shown
from shapeguide.storage.whole import written_whole
from shapeguide.studies.demo_folder import Clock, DemoCohort, DemoFiles, claim_demo
from shapeguide.studies.demo_report import MAIN_METRICS, DemoScores, write_report
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


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo found, and where it lies."""

    folder: Path
    page: Path
    """The report; opens in any browser."""
    scores: DemoScores
    seconds: Mapping[str, float]
    """Wall-clock time of each step, of the start that finished it."""

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
        ConfigError: If the folder holds another demo or something else, or the shape network has
            collapsed.
        CheckpointError: If a file of an earlier start is damaged.
    """
    folder, cohort = Path(out), cohort or DemoCohort()
    settings = resolve(DEMO_SETTINGS if settings is None else settings).changed(seed=seed)
    files = DemoFiles(folder)
    claim_demo(files, settings, cohort)
    clock = Clock(files.steps)
    with _one_thread():
        with clock.step("cohort"):
            train, test = _cohort(files, cohort, seed)
        with clock.step("shape network"):
            shape_network = train_shape(
                train, run_dir=files.run("shape"), settings=settings, progress=progress
            )
        if settings.restorer.iterations:
            with clock.step("shape restorer"):
                restorer = files.run("guided") / RESTORER_FOLDER
                train_restorer(train, run_dir=restorer, settings=settings, progress=progress)
        for method, guide in (("plain", None), ("guided", shape_network)):
            with clock.step(f"{method} segmenter"):
                train_segmenter(
                    train,
                    guide,
                    run_dir=files.run(method),
                    settings=settings,
                    # Before the guidance both are the same to the bit; it is computed once.
                    branch_from=files.run("plain") if guide else None,
                    progress=progress,
                )
                if guide and settings.restorer.iterations:
                    calibrate_restorer(
                        files.run(method),
                        train,
                        share=settings.restorer.usual_share,
                        progress=progress,
                    )
            with clock.step(f"{method} predictions"):
                _predict(test, files, method, progress)
        scores = _score(test, files)
        if not files.page.is_file():
            with clock.step("report"):
                write_report(files, (train, test), shape_network, settings, scores, clock.seconds)
    return DemoResult(folder, files.page, scores, clock.seconds)


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


def _cohort(files: DemoFiles, cohort: DemoCohort, seed: int) -> tuple[Dataset, Dataset]:
    description = files.cohort / "dataset.json"
    if not description.is_file():
        count = cohort.training_cases + cohort.test_cases
        write_cohort(files.cohort, count=count, seed=seed, shape=cohort.shape, overwrite=True)
    dataset = read_dataset(description).with_structures(**{cohort.shape: (1,)})
    return dataset.split_at_random(test_count=cohort.test_cases, seed=seed)


def _predict(test: Dataset, files: DemoFiles, method: str, progress: bool) -> None:
    """Predictions as they come, and with the largest component kept."""
    raw, largest = files.predictions(method), files.predictions(f"{method} largest")
    scans = [case.image for case in test]
    report = predict_files(files.run(method), scans, out_dir=raw, progress=progress)
    if report.failed:
        failure = report.failed[0]
        raise DataError(f"{failure.scan} could not be segmented: {failure.reason}")
    for case in test:
        target = largest / f"{case.id}.nii.gz"
        if not target.is_file():
            found = read_label_map(raw / target.name, structures=test.structures)
            write_label_map(keep_largest_component(found), target)


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
    with written_whole(files.scores("comparison")) as temporary:
        joined.to_csv(temporary, index=False)
    return DemoScores(tables, comparisons[""], comparisons[" largest"])
