"""The drawings of the paper's networks say what the networks are."""

from __future__ import annotations

from pathlib import Path

import drawings
from shapeguide.training.settings.presets import preset


def test_the_shape_network_is_drawn_layer_by_layer_as_the_preset_builds_it() -> None:
    channels = preset("paper").shape.channels
    first, *levels, signature = drawings.shape_layers()
    assert first.spatial_shape == (256, 128, 256)
    assert [layer.channels for layer in levels] == list(channels)
    lengths = [layer.spatial_shape[0] for layer in levels]
    assert lengths == [256 // 2**level for level in range(1, 1 + len(channels))]
    assert (signature.channels, signature.spatial_shape) == (1, levels[-1].spatial_shape)


def test_the_segmenter_goes_down_and_up_by_the_channels_of_the_preset() -> None:
    channels = preset("paper").segmentation.channels
    down, (*rising, head) = drawings.segmenter_layers()
    assert [layer.channels for layer in down] == list(channels)
    assert [layer.channels for layer in rising] == list(reversed(channels[:-1]))
    assert (head.channels, head.spatial_shape) == (2, (256, 128, 256))


def test_both_figures_are_written_for_light_and_dark_pages(tmp_path: Path) -> None:
    drawings.main(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        f"paper_{name}{theme}.png" for name in ("shape_network", "whole") for theme in ("", "-dark")
    }
