"""A cohort and settings with which every training of a study of systems takes a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

import shapeguide as sg
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset

CASES = 7


@pytest.fixture(scope="package")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    sg.write_cohort(folder, count=CASES, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0))
    return folder


@pytest.fixture(scope="package")
def small() -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        shape=quick.shape.changed(iterations=4, batch_size=2, quality_pairs=4, canonical_shape=8),
        restorer=quick.restorer.changed(iterations=3, channels=(4, 8), batch_size=1, caution=0.0),
        shape_loss=quick.shape_loss.changed(accept_collapsed=True),
        segmentation=quick.segmentation.changed(channels=(4, 8), batch_size=1),
        machine=quick.machine.changed(device="cpu"),
    )


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """No study draws its figures."""
    monkeypatch.setattr("shapeguide.studies.systems.study.write_figures", lambda *_: None)
