"""What was run, as a part of the demo's page: settings, times and files."""

from __future__ import annotations

from collections.abc import Mapping

from shapeguide.data.dataset import Dataset
from shapeguide.report.page import Section, Table
from shapeguide.training.settings.groups import TrainSettings


def run_section(
    train: Dataset, test: Dataset, settings: TrainSettings, seconds: Mapping[str, float]
) -> Section:
    """Settings and times of a demo, for its page."""
    chosen, shape = settings.segmentation, settings.shape
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
            f"{chosen.dice_iterations} + {chosen.guided_iterations} iterations of "
            f"{chosen.batch_size} cases, Adam, learning rate {chosen.learning_rate:g}",
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
                note="Up to this page. A step that was resumed counts from its last start.",
            ),
        ),
    )


def file_list() -> tuple[tuple[str, str], ...]:
    """What lies in the folder of a demo."""
    return (
        ("cohort/", "the synthetic scans and label maps, a Decathlon folder"),
        ("shape/", "run folder of the shape network"),
        ("plain/", "run folder of the plain segmenter: settings, log, model"),
        ("guided/", "run folder of the guided segmenter, in restorer/ that of its shape restorer"),
        ("predictions/", "label maps of both, as they come and with the largest component kept"),
        ("scores/", "scores of every case and the paired comparison, as CSV"),
        ("figures/", "the pictures of this page"),
    )
