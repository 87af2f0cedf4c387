"""How figures look: colours for light and dark pages, and what every axis has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from shapeguide.storage.whole import written_whole

DOTS_PER_INCH = 150


@dataclass(frozen=True)
class Theme:
    """Colours of one background."""

    name: str
    paper: str
    """Background."""
    ink: str
    """Text and main lines."""
    faint: str
    """Second-rate text and axis lines."""
    grid: str
    methods: tuple[str, ...]
    """Colours of the compared methods, in their order; told apart by colour-blind readers too."""
    reference: str

    def colour(self, index: int) -> str:
        """Colour of the method at a place in the order; they repeat beyond the last."""
        return self.methods[index % len(self.methods)]


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    ink="#1d2733",
    faint="#6b7785",
    grid="#e3e8ee",
    methods=("#2f7fc1", "#e0662a", "#3a9d6e", "#8b62b8", "#b8891f", "#c2497a", "#5d6b7a"),
    reference="#1d2733",
)
DARK = Theme(
    name="dark",
    paper="#151b23",
    ink="#e8edf3",
    faint="#93a0ae",
    grid="#2b3542",
    methods=("#5eb1f0", "#ff8f52", "#5fce99", "#b99ae6", "#e3b94e", "#f07fae", "#a3b1c2"),
    reference="#ffffff",
)
THEMES = (LIGHT, DARK)


def new_figure(width: float, height: float, theme: Theme) -> Figure:
    """An empty figure of that size in inches, outside any global state of matplotlib."""
    figure = Figure(
        figsize=(width, height),
        dpi=DOTS_PER_INCH,
        facecolor=theme.paper,
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.07),
    )
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, theme: Theme, *, title: str = "") -> None:
    """Give axes the quiet look that all charts share."""
    axes.set_facecolor(theme.paper)
    axes.grid(visible=True, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.grid)
    axes.tick_params(colors=theme.faint, labelsize=8.5, length=0)
    axes.xaxis.label.set_color(theme.faint)
    axes.yaxis.label.set_color(theme.faint)
    axes.set_title(title, loc="left", fontsize=10.5, color=theme.ink, fontweight="bold", pad=9)


def style_legend(axes: Axes, theme: Theme) -> None:
    """Show a legend without a frame, if any line has a name."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=theme.ink, handlelength=1.4)


def few_ticks(axes: Axes) -> None:
    """So few numbers along a narrow panel that they do not run into each other or the next one."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, prune="both"))


def as_png(figure: Figure, *, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    """The figure as the bytes of a PNG file."""
    return _saved(figure, format="png", dpi=dots_per_inch)


def as_jpeg(figure: Figure) -> bytes:
    """The figure as the bytes of a JPEG file: for photographs and scans, a fraction of a PNG."""
    return _saved(figure, format="jpeg", pil_kwargs={"quality": 88})


def write_picture(path: Path, content: bytes) -> None:
    """Write the bytes of a picture, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_themed(folder: Path, name: str, draw: Callable[[Theme], Figure]) -> None:
    """Write a figure for light and for dark pages, as `name.png` and `name-dark.png`."""
    stem, _, suffix = name.rpartition(".")
    for ending, theme in themed():
        write_picture(folder / f"{stem}{ending}.{suffix}", as_png(draw(theme)))


def _saved(figure: Figure, **options: Any) -> bytes:
    """The bytes of a picture file; every text is shown as it is written, dollar signs too."""
    buffer = BytesIO()
    with rc_context({"text.parse_math": False}):
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        figure.savefig(buffer, facecolor=figure.get_facecolor(), **options)
    return buffer.getvalue()


def themed() -> Iterator[tuple[str, Theme]]:
    """The themes with the suffix that file names carry for them: none for the light one."""
    for theme in THEMES:
        yield ("" if theme is LIGHT else f"-{theme.name}"), theme
