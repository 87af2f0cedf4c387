from __future__ import annotations

import pytest

from shapeguide.errors import ConfigError
from shapeguide.training.settings.base import affordable, build
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import PRESETS, preset, resolve


def test_paper_preset_is_the_published_schedule() -> None:
    paper = preset("paper")
    assert paper.shape.iterations == 200
    assert (paper.segmentation.dice_iterations, paper.segmentation.guided_iterations) == (800, 400)
    assert paper.segmentation.batch_size == paper.shape.batch_size == 1
    assert paper.segmentation.learning_rate == paper.shape.learning_rate == 1e-4
    assert (paper.shape_loss.alpha, paper.shape_loss.cap) == (0.1, 1.0)
    assert (paper.shape_loss.cap_form, paper.shape_loss.distance) == ("hard", "raw")
    assert paper.shape.objective == "pairwise"
    assert (paper.warp.rotation_deg, paper.warp.scale) == (8.0, (0.85, 1.15))
    assert paper.warp.centre == "object"
    assert paper.segmentation.validation_cases == 0


def test_default_preset_trains_as_many_iterations_as_the_paper() -> None:
    assert preset("default").segmentation.iterations == preset("paper").segmentation.iterations


def test_presets_survive_a_round_trip_through_json() -> None:
    for settings in PRESETS.values():
        assert TrainSettings.model_validate_json(settings.model_dump_json()) == settings


def test_settings_name_the_value_that_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="seed"):
        preset("default").changed(seed=-1)
    with pytest.raises(ConfigError, match=r"warp.*two ordered positive"):
        build(TrainSettings, {"warp": {"scale": (1.2, 0.8)}})
    with pytest.raises(ConfigError, match="wrong"):
        build(TrainSettings, {"wrong": 1})
    with pytest.raises(ConfigError, match="at least 1"):
        build(TrainSettings, {"segmentation": {"dice_iterations": 0, "guided_iterations": 0}})


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="default, paper, quick"):
        resolve("fast")


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        preset("default").seed = 3


@pytest.mark.parametrize(
    ("shape", "cases", "segmenter", "elastic_mm"),
    [
        ((48, 64, 48), 3, "unet3d", 1.5),
        ((64, 64, 64), 2, "unet3d", 1.5),
        ((64, 64, 72), 2, "unet3d_blocks", 3.0),
        ((96, 96, 80), 1, "unet3d_blocks", 3.0),
    ],
)
def test_what_is_not_given_suits_the_size_of_windows(
    shape: tuple[int, int, int],
    cases: int,
    segmenter: str,
    elastic_mm: float,
) -> None:
    suited = TrainSettings().segmentation.suited(shape)
    assert (suited.batch_size, suited.segmenter) == (cases, segmenter)
    assert suited.elastic_mm == elastic_mm
    small = segmenter == "unet3d"
    iterations = suited.dice_iterations, suited.guided_iterations
    assert iterations == ((800, 400) if small else (1600, 800))
    lasting = TrainSettings().segmentation.with_iterations_for(shape)
    assert lasting.iterations == suited.iterations == sum(iterations)


def test_what_is_given_stays_whatever_the_size() -> None:
    asked = TrainSettings().segmentation.changed(
        segmenter="vnet", channels=(4, 8), batch_size=2, elastic_mm=0.0, dice_iterations=7
    )
    for edge in (8, 128):
        suited = asked.suited((edge, edge, edge))
        assert (suited.segmenter, suited.batch_size) == ("vnet", 2)
        assert (suited.elastic_mm, suited.dice_iterations) == (0.0, 7)
    narrow = asked.changed(segmenter="auto", channels=(8,)).suited((128, 128, 128))
    assert narrow.segmenter == "unet3d"


@pytest.mark.parametrize(
    ("asked", "each", "fewest", "taken"),
    [(8, 100, 1, 8), (8, 500, 1, 2), (8, 5000, 1, 1), (8, 5000, 4, 4), (2, 5000, 4, 2)],
)
def test_batches_hold_fewer_cases_where_they_are_large(
    asked: int, each: int, fewest: int, taken: int
) -> None:
    assert affordable(asked, each=each, most=1000, fewest=fewest) == taken
