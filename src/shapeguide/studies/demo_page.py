"""From what the demo found to its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

import shapeguide
from shapeguide.data.dataset import Dataset
from shapeguide.metrics.metric import MAIN_METRICS, METRICS
from shapeguide.metrics.summary import summarise
from shapeguide.models.quality import LOWEST_AUC, LOWEST_RATIO
from shapeguide.models.shape_model import ShapeModel
from shapeguide.report.page import Card, Page, Picture, Section, Table, write_page
from shapeguide.report.words import (
    headline,
    listed,
    records,
    sentence,
    shown,
    verdict,
)
from shapeguide.studies.case_pictures import choose_cases
from shapeguide.studies.demo_figures import draw_figures, held_out_distances
from shapeguide.studies.demo_files import GUIDED, PLAIN, DemoFiles
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.shape.separation import PairDistances

LARGEST = " largest"
"""After the name of a method whose largest components alone are scored."""
FILES = (
    ("cohort/", "the synthetic scans and label maps, a Decathlon folder"),
    ("shape/", "run folder of the shape network"),
    ("plain/", "run folder of the plain segmenter: settings, log, model"),
    ("guided/", "run folder of the guided segmenter, in restorer/ that of its shape restorer"),
    ("predictions/", "label maps of both, as they come and with the largest component kept"),
    ("scores/", "scores of every case and the paired comparison, as CSV"),
    ("figures/", "the pictures of this page"),
)
"""What lies in the folder of a demo."""


@dataclass(frozen=True, eq=False)
class DemoScores:
    """Scores of every method on the test cases, and the paired comparisons."""

    tables: Mapping[str, pd.DataFrame]
    """One row for each case, by method; `plain largest` has only its largest components."""
    comparison: pd.DataFrame
    """Guided minus plain, as predictions come."""
    comparison_largest: pd.DataFrame
    """The same with the largest component of both."""


def write_report(
    files: DemoFiles,
    cohort: tuple[Dataset, Dataset],
    shape_network: ShapeModel,
    settings: TrainSettings,
    scores: DemoScores,
    seconds: Mapping[str, float],
) -> None:
    """Draw the figures and write the page.

    Args:
        files: Where everything lies.
        cohort: Training cases and test cases.
        shape_network: What guided.
        settings: Those of the training.
        scores: Those of the test cases.
        seconds: Time of each step so far.
    """
    train, test = cohort
    distances = held_out_distances(shape_network, test, settings)
    draw_figures(files, test, scores.tables, distances, settings)
    chosen = choose_cases(scores.tables)
    page = Page(
        title="shapeguide demo: does a learned shape help a segmenter?",
        headline=headline(scores.comparison, first=GUIDED, second=PLAIN, metrics=MAIN_METRICS),
        lead=_lead(train, test, settings),
        cards=_cards(scores),
        sections=(
            _score_section(files, scores),
            _case_section(files, chosen),
            _shape_section(files, distances, len(test)),
            _training_section(files, settings),
            _run_section(train, test, settings, seconds),
        ),
        files=FILES,
        footer=f"Written by shapeguide {shapeguide.__version__}. Synthetic data; research "
        "software, not a medical device.",
    )
    write_page(page, files.page)


def _lead(train: Dataset, test: Dataset, settings: TrainSettings) -> str:
    return (
        f"Two 3D U-Nets learned from the same {len(train)} synthetic cases, from the same start, "
        f"for {settings.segmentation.iterations} iterations each. The guided one also had to match "
        f"the shape of the reference as a shape network sees it{_restored(settings)}. Both were "
        "then tried on the same "
        f"{len(test)} cases that neither had seen. One seed: another run may come out differently."
    )


def _restored(settings: TrainSettings) -> str:
    if not settings.restorer.iterations:
        return ""
    return ", and a restorer that knows label maps alone completes and cleans what it predicts"


def _cards(scores: DemoScores) -> tuple[Card, ...]:
    cards = []
    for comparison, largest in ((scores.comparison, False), (scores.comparison_largest, True)):
        for row in records(comparison):
            metric = row["metric"]
            if metric not in (("hausdorff_mm",) if largest else MAIN_METRICS):
                continue
            title = METRICS[metric].name + (", largest component kept" if largest else "")
            values = ((GUIDED, row["mean_first"]), (PLAIN, row["mean_second"]))
            cards.append(
                Card(
                    title=title,
                    values=tuple((name, shown(metric, value)) for name, value in values),
                    verdict=verdict(row),
                    note=f"{GUIDED} better in {row['wins']}, worse in {row['losses']}, equal in "
                    f"{row['ties']} of {row['pairs']} cases",
                )
            )
    return tuple(cards)


def _score_section(files: DemoFiles, scores: DemoScores) -> Section:
    sentences = tuple(
        sentence(row, first=GUIDED, second=PLAIN) for row in records(scores.comparison)
    )
    kept = tuple(
        "With the largest component of both kept, " + sentence(row, first=GUIDED, second=PLAIN)
        for row in records(scores.comparison_largest)
        if row["metric"] in MAIN_METRICS
    )
    return Section(
        title="Scores",
        words=(
            "Mean over the test cases with its 95 % bootstrap interval. Keeping only the largest "
            "connected component costs nothing and needs no shape network, so it stands beside "
            "both.",
        ),
        sentences=sentences + kept,
        tables=(_score_table(scores),),
        pictures=(
            _chart(
                files,
                "scores",
                alt="Scores of every test case, plain and guided, joined by lines",
                caption="Every test case, plain and guided. Thick bars are means over found cases; "
                "a missed structure has Dice 0 and no distance.",
            ),
        ),
    )


def _chart(files: DemoFiles, name: str, *, alt: str, caption: str) -> Picture:
    """A chart of the demo, for light and for dark pages."""
    light, dark = (files.figures / f"{name}{end}.png" for end in ("", "-dark"))
    return Picture(path=light, dark_path=dark, alt=alt, caption=caption)


def score_rows(
    scores: DemoScores, text: Callable[[Mapping[str, Any]], str]
) -> list[tuple[str, ...]]:
    """Each method over the test cases, each row of `summarise` as text; first come headings."""
    rows = [("method", *(metric.name for metric in METRICS.values()), "missed")]
    for method, table in scores.tables.items():
        summary = records(summarise(table))
        rows.append((method, *map(text, summary), str(summary[0]["missed"])))
    return rows


def _score_table(scores: DemoScores) -> Table:
    headings, *rows = score_rows(scores, _mean_and_interval)
    return Table(
        title="Means over the test cases",
        headings=headings,
        rows=tuple((row[0].replace(LARGEST, ", largest component"), *row[1:]) for row in rows),
        note="Higher is better for Dice and surface Dice, lower for distances. Distances of missed "
        "structures are infinite and not in the means.",
    )


def _mean_and_interval(row: Mapping[str, Any]) -> str:
    metric, low, high = row["metric"], row["low"], row["high"]
    digits = 2 if metric.endswith("_mm") else 3
    interval = "" if math.isnan(low) else f"\n{low:.{digits}f} to {high:.{digits}f}"
    return shown(metric, row["mean"]) + interval


def _case_section(files: DemoFiles, chosen: Mapping[str, str]) -> Section:
    names = listed([f"{name} ({case})" for name, case in chosen.items()])
    return Section(
        title="Cases",
        words=(
            f"Shown are the {names} of the test cases by the mean Hausdorff distance of the plain "
            "and the guided prediction, so the choice favours neither. Predictions are shown as "
            "they come, stray parts included.",
        ),
        pictures=(
            Picture(
                path=files.figures / "slices.jpg",
                alt="Slices with the contours of reference, plain and guided segmenter",
                caption="In each plane, the slice with the largest area of the reference.",
            ),
            Picture(
                path=files.figures / "surfaces.jpg",
                alt="Shaded surfaces of reference, plain and guided prediction",
                caption="Surfaces seen from the side. Colour is the distance to the surface of the "
                "reference in mm; the thin line is the outline of the reference. Masks are "
                "smoothed for the display, scores are not.",
            ),
        ),
    )


def _shape_section(files: DemoFiles, distances: list[PairDistances], cases: int) -> Section:
    known = [found for found in distances if len(found.same)]
    sentences = tuple(_shape_sentence(found) for found in known)
    pictures = (
        _chart(
            files,
            "shape_distances",
            alt="Shape distances of affine pairs, same case against different cases",
            caption="Each point is a pair of label maps under random rotation, scale and shift. "
            "The same case should be close to itself however it is turned, and far from others.",
        ),
    )
    return Section(
        title="Does the shape network know shapes?",
        words=(f"Measured on the {cases} test cases, of which it has seen none.",),
        sentences=sentences,
        pictures=pictures if known else (),
    )


def _shape_sentence(found: PairDistances) -> str:
    numbers = (
        f"different cases are {found.ratio:.2f} times as far apart as one case under two warps; "
        f"a same-case pair is the closer one with probability {found.auc:.3f} (AUC)"
    )
    if found.ratio < LOWEST_RATIO or found.auc < LOWEST_AUC:
        return f"{found.structure}: it hardly tells cases apart: {numbers}."
    return f"{found.structure}: it tells cases apart: {numbers}."


def _training_section(files: DemoFiles, settings: TrainSettings) -> Section:
    chosen = settings.segmentation.suited()
    return Section(
        title="Training",
        words=(
            f"Until iteration {chosen.dice_iterations} both segmenters train alike; then the "
            f"guided one has the shape loss too, with weight {settings.shape_loss.alpha:g}.",
        ),
        pictures=(
            _chart(
                files,
                "training",
                alt="Loss terms of both segmenters and of the shape network by iteration",
                caption="Thin lines are means over ten iterations, thick lines their moving "
                "average.",
            ),
        ),
    )


def _run_section(
    train: Dataset, test: Dataset, settings: TrainSettings, seconds: Mapping[str, float]
) -> Section:
    """Settings and times of a demo, for its page."""
    chosen, shape = settings.segmentation, settings.shape
    suited = chosen.suited()
    facts = (
        ("cohort", f"{train.name}, {len(train)} training cases, {len(test)} test cases"),
        ("seed", f"{settings.seed} (cohort, split and training)"),
        ("preset", settings.preset),
        ("training cases", ", ".join(case.id for case in train)),
        (
            "shape network",
            f"objective {shape.objective}, {shape.pose} pose, {shape.iterations} iterations of "
            f"{shape.batch_size} pairs",
        ),
        (
            "shape restorer",
            f"{settings.restorer.iterations} iterations of {settings.restorer.batch_size} maps",
        ),
        (
            "segmenters",
            f"3D U-Net with {', '.join(map(str, chosen.channels))} channels, "
            f"{suited.dice_iterations} + {suited.guided_iterations} iterations of "
            f"{suited.batch_size} cases, Adam, learning rate {chosen.learning_rate:g}",
        ),
        (
            "guidance",
            f"alpha {settings.shape_loss.alpha:g}, {settings.shape_loss.cap_form} cap "
            f"{settings.shape_loss.cap:g}, {settings.shape_loss.distance} distance",
        ),
    )
    times = tuple((name, f"{value:.1f} s") for name, value in seconds.items())
    return Section(
        title="What was run",
        tables=(
            Table(title="Settings", headings=("what", "value"), rows=facts),
            Table(
                title="Time",
                headings=("step", "wall-clock time"),
                rows=(*times, ("together", f"{sum(seconds.values()):.0f} s")),
                note="Up to this page, over all starts of a step.",
            ),
        ),
    )
