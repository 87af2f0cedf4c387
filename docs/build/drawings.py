"""Draw the networks of the paper's figures 1 and 2 as this package builds them.

    python docs/build/drawings.py --out docs/images

Every box is a layer that a forward pass went through, with the shape that came out of it, so a
drawing cannot say other than the code. Nothing is computed: the pass runs without memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from shapeguide.models.segmenter import build_segmenter
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.models.unet import UNet
from shapeguide.report.theme import Theme, new_figure, write_themed
from shapeguide.training.settings.presets import preset

PAPER_SHAPE = (256, 128, 256)
"""The published crop along R, A, S."""
SPACING_MM = (1.0, 1.0, 1.0)
HALF_WIDTH = 0.8
RAISED = 1.5


@dataclass(frozen=True)
class Layer:
    """A layer that a pass went through."""

    name: str
    channels: int
    spatial_shape: tuple[int, ...]

    @property
    def told(self) -> str:
        """Its name and what comes out of it."""
        size = "x".join(map(str, self.spatial_shape))
        return f"{self.name}\n{self.channels} x {size}"


def main(out: Path = Path("docs/images")) -> None:
    """Draw both networks of the preset `paper`.

    Args:
        out: Folder of the pictures.
    """
    write_themed(out, "paper_shape_network.png", shape_network_figure)
    write_themed(out, "paper_whole.png", whole_figure)


def shape_layers() -> list[Layer]:
    """What a mask goes through in the shape network of the preset `paper`."""
    settings = preset("paper").shape
    with torch.device("meta"):
        network = ShapeNetwork(["structure"], channels=settings.channels, pose=settings.pose)
        masks = torch.zeros(1, 1, *PAPER_SHAPE)
    convolutions = {
        module: f"convolution {'x'.join(map(str, module.kernel_size))}, stride {module.stride[0]}"
        for module in network.modules()
        if isinstance(module, nn.Conv3d)
    }
    with _Watched(convolutions) as found:
        network(masks, spacing_mm=SPACING_MM)
    return [Layer("label map", 1, PAPER_SHAPE), *found.layers]


def segmenter_layers() -> tuple[list[Layer], list[Layer]]:
    """Levels on the way down and up of the segmenter of the preset `paper`; the head comes last."""
    settings = preset("paper").segmentation
    with torch.device("meta"):
        network = build_segmenter("unet3d", settings.channels, classes=2)
        images = torch.zeros(1, 1, *PAPER_SHAPE)
    if not isinstance(network, UNet):
        raise TypeError(f"the paper's segmenter is a U-Net, found {type(network).__name__}")
    down = dict.fromkeys(network.encoders, "two convolutions")
    up = {**dict.fromkeys(network.decoders, "two convolutions"), network.head: "class scores"}
    with _Watched({**down, **up}) as found:
        network(images)
    return found.layers[: len(down)], found.layers[len(down) :]


class _Watched:
    """Notes what comes out of some modules while it is open."""

    def __init__(self, named: Mapping[Any, str]) -> None:
        self.layers: list[Layer] = []
        self._handles = [
            module.register_forward_hook(self._hook(name)) for module, name in named.items()
        ]

    def _hook(self, name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def note(module: nn.Module, _: object, made: torch.Tensor) -> None:
            self.layers.append(Layer(name, made.shape[1], tuple(made.shape[2:])))

        return note

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def shape_network_figure(theme: Theme) -> Figure:
    """The shape network: figure 1."""
    layers = shape_layers()
    figure, axes = _canvas(2.1 * len(layers), 1.9, theme)
    for place, layer in enumerate(layers):
        colour = theme.colour(0) if place in (0, len(layers) - 1) else theme.colour(2)
        _box(axes, place * 2.0, 0.0, layer.told, colour, theme)
        if place:
            _arrow(axes, (place - 1) * 2.0, 0.0, place * 2.0, 0.0, theme)
    last = (len(layers) - 1) * 2.0
    axes.text(last, -0.75, "shape signature", ha="center", color=theme.ink, fontsize=9)
    axes.set_xlim(-1.1, last + 1.1)
    axes.set_ylim(-1.0, 0.8)
    return figure


def whole_figure(theme: Theme) -> Figure:
    """The segmenter and the frozen shape network that compares its prediction: figure 2."""
    down, up = segmenter_layers()
    *rising, head = up
    levels = len(down)
    figure, axes = _canvas(13.0, 1.75 * levels + 0.6, theme)
    for level, layer in enumerate(down):
        _box(axes, 0.7 * level, -RAISED * level, layer.told, theme.colour(0), theme)
        if level:
            start = (0.7 * (level - 1), -RAISED * (level - 1))
            _arrow(axes, *start, 0.7 * level, -RAISED * level, theme)
    right = 0.7 * 2 * (levels - 1) + 2.4
    for step, layer in enumerate(rising):
        level = levels - 2 - step
        x, y = right - 0.7 * level, -RAISED * level
        _box(axes, x, y, layer.told, theme.colour(0), theme)
        before = (right - 0.7 * (level + 1), -RAISED * (level + 1))
        start = (0.7 * (levels - 1), -RAISED * (levels - 1)) if step == 0 else before
        _arrow(axes, *start, x, y, theme)
        _arrow(axes, 0.7 * level, y, x, y, theme, dashed=True)
    _box(axes, right + 2.0, 0.0, f"{head.told}\n= prediction", theme.colour(1), theme)
    _arrow(axes, right, 0.0, right + 2.0, 0.0, theme)
    _compare(axes, right + 2.0, theme)
    axes.set_xlim(-1.0, right + 7.6)
    axes.set_ylim(-RAISED * (levels - 1) - 0.8, 0.9)
    return figure


def _compare(axes: Axes, x: float, theme: Theme) -> None:
    """Prediction and reference, each through the frozen shape network, and both losses."""
    signature = shape_layers()[-1]
    low = -2 * RAISED
    _box(axes, x, low, "reference", theme.colour(1), theme)
    for y in (0.0, low):
        told = f"g, frozen\n{signature.channels} x {'x'.join(map(str, signature.spatial_shape))}"
        _box(axes, x + 2.3, y, told, theme.colour(2), theme)
        _arrow(axes, x, y, x + 2.3, y, theme)
    _box(axes, x + 4.6, low / 2, "shape loss\nx alpha, capped", theme.colour(3), theme)
    for y in (0.0, low):
        _arrow(axes, x + 2.3, y, x + 4.6, low / 2, theme)
    _box(axes, x, low / 2, "Dice loss", theme.colour(3), theme)
    for y in (0.0, low):
        _arrow(axes, x, y, x, low / 2, theme)


def _canvas(width: float, height: float, theme: Theme) -> tuple[Figure, Axes]:
    figure = new_figure(width, height, theme)
    axes = figure.add_subplot()
    axes.axis("off")
    return figure, axes


def _box(axes: Axes, x: float, y: float, text: str, colour: str, theme: Theme) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x - HALF_WIDTH, y - 0.34), 2 * HALF_WIDTH, 0.68, boxstyle="round,pad=0.03",
            facecolor=theme.paper, edgecolor=colour, linewidth=1.6, zorder=2,
        )
    )  # fmt: skip
    axes.text(x, y, text, ha="center", va="center", fontsize=7, color=theme.ink, zorder=3)


def _arrow(
    axes: Axes, x: float, y: float, to_x: float, to_y: float, theme: Theme, *, dashed: bool = False
) -> None:
    """From one box to another, the head half-way; what is copied across is dotted."""
    style = ("dotted", 1.2) if dashed else ("solid", 1.4)
    axes.plot(
        [x, to_x], [y, to_y], linestyle=style[0], linewidth=style[1], color=theme.faint, zorder=1
    )
    middle = ((x + to_x) / 2, (y + to_y) / 2)
    before = (middle[0] - 0.01 * (to_x - x), middle[1] - 0.01 * (to_y - y))
    arrow = {"arrowstyle": "-|>", "color": theme.faint, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", middle, before, arrowprops=arrow)


if __name__ == "__main__":
    tyro.cli(main)
