"""Write the figures of an experiment."""

from __future__ import annotations

import pandas as pd

from shapeguide.report.theme import as_png, themed
from shapeguide.storage.whole import written_whole
from shapeguide.studies.systems.folder import ResultFiles
from shapeguide.studies.systems.severity_figure import has_severities, severities_figure
from shapeguide.studies.systems.systems_figure import systems_figure

MOST_SYSTEMS = 40


def write_figures(files: ResultFiles, summary: pd.DataFrame) -> None:
    """Write the figures of each structure, for light and for dark pages.

    A second one where degraded images of several severities were tested; none of more systems than
    anybody would read.
    """
    for structure, rows in summary.groupby("structure", sort=False):
        weights = rows["weights"].iloc[0]
        chosen = rows[rows["weights"] == weights]
        drawn = {}
        if chosen["system"].nunique() <= MOST_SYSTEMS:
            drawn[str(structure)] = systems_figure
        if has_severities(chosen):
            drawn[f"{structure}_severities"] = severities_figure
        for name, draw in drawn.items():
            for suffix, theme in themed():
                with written_whole(files.figure(f"{name}{suffix}.png")) as temporary:
                    temporary.write_bytes(as_png(draw(chosen, theme)))
