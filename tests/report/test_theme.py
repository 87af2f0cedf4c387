from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from shapeguide.report.theme import (
    LIGHT,
    as_jpeg,
    as_png,
    new_figure,
    style_axes,
    write_themed,
)

STRANGE = r"$\frac$ of {horn} \nowhere 50% _^"


@pytest.mark.parametrize("save", [as_png, as_jpeg])
def test_names_of_structures_are_shown_as_they_are_written(
    save: Callable[[Figure], bytes],
) -> None:
    figure = new_figure(6, 4, LIGHT)
    axes = figure.add_subplot()
    style_axes(axes, LIGHT, title=STRANGE)
    axes.plot([0, 1], [0, 1], label=STRANGE)
    axes.set_yticks([0, 1], [STRANGE, "$"])
    axes.set_xlabel(STRANGE)
    axes.legend()
    figure.suptitle(STRANGE)
    assert len(save(figure)) > 1000
    assert axes.get_title(loc="left") == STRANGE


def test_a_figure_is_written_for_light_and_for_dark_pages(tmp_path: Path) -> None:
    write_themed(tmp_path, "left v1.0.png", lambda theme: new_figure(1, 1, theme))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "left v1.0-dark.png",
        "left v1.0.png",
    ]
    light, dark = ((tmp_path / f"left v1.0{end}.png").read_bytes() for end in ("", "-dark"))
    assert light != dark
