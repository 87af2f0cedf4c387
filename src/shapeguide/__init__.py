"""Shape-guided segmentation of anatomical structures in 3D scans.

The names below are the public ones. Each is loaded when it is first used, so that importing the
package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shapeguide.data.dataset import read_dataset
    from shapeguide.data.layouts import describe
    from shapeguide.data.nifti import read_label_map, read_volume, write_label_map, write_volume
    from shapeguide.data.synthetic import write_cohort
    from shapeguide.errors import ShapeguideError
    from shapeguide.geometry.grid import Grid
    from shapeguide.geometry.volume import LabelMap, Structure, Volume
    from shapeguide.inference.prediction import predict, predict_volume
    from shapeguide.inference.prediction_files import PredictionOptions, predict_files
    from shapeguide.inference.run import TrainedRun, load_run
    from shapeguide.inference.usual import calibrate_restorer
    from shapeguide.losses import ShapeLoss
    from shapeguide.metrics.scores import score
    from shapeguide.models.autoencoder_model import load_autoencoder
    from shapeguide.models.finder_model import load_finder
    from shapeguide.models.restoration import restore
    from shapeguide.models.restorer_model import load_restorer
    from shapeguide.models.segmenter import load_segmenter
    from shapeguide.models.shape_model import load_shape_network
    from shapeguide.studies.demo import demo
    from shapeguide.training.settings.groups import TrainSettings
    from shapeguide.training.settings.presets import preset
    from shapeguide.training.stages.autoencoder import train_autoencoder
    from shapeguide.training.stages.finder import train_finder
    from shapeguide.training.stages.restorer import train_restorer
    from shapeguide.training.stages.segmentation import train_segmenter
    from shapeguide.training.stages.shape import train_shape
    from shapeguide.workflows.evaluation import evaluate
    from shapeguide.workflows.held_out import held_out_cases
    from shapeguide.workflows.planning import plan
    from shapeguide.workflows.train import train
    from shapeguide.workflows.training_plan import TrainingPlan

    __version__: str

__all__ = [
    "Grid",
    "LabelMap",
    "PredictionOptions",
    "ShapeLoss",
    "ShapeguideError",
    "Structure",
    "TrainSettings",
    "TrainedRun",
    "TrainingPlan",
    "Volume",
    "__version__",
    "calibrate_restorer",
    "demo",
    "describe",
    "evaluate",
    "held_out_cases",
    "load_autoencoder",
    "load_finder",
    "load_restorer",
    "load_run",
    "load_segmenter",
    "load_shape_network",
    "plan",
    "predict",
    "predict_files",
    "predict_volume",
    "preset",
    "read_dataset",
    "read_label_map",
    "read_volume",
    "restore",
    "score",
    "train",
    "train_autoencoder",
    "train_finder",
    "train_restorer",
    "train_segmenter",
    "train_shape",
    "write_cohort",
    "write_label_map",
    "write_volume",
]

_HOMES = {
    "data.dataset": ("read_dataset",),
    "data.layouts": ("describe",),
    "data.nifti": ("read_label_map", "read_volume", "write_label_map", "write_volume"),
    "data.synthetic": ("write_cohort",),
    "errors": ("ShapeguideError",),
    "workflows.evaluation": ("evaluate",),
    "studies.demo": ("demo",),
    "geometry.grid": ("Grid",),
    "geometry.volume": ("LabelMap", "Structure", "Volume"),
    "inference.prediction": ("predict", "predict_volume"),
    "inference.prediction_files": ("PredictionOptions", "predict_files"),
    "inference.run": ("TrainedRun", "load_run"),
    "inference.usual": ("calibrate_restorer",),
    "losses": ("ShapeLoss",),
    "metrics.scores": ("score",),
    "models.autoencoder_model": ("load_autoencoder",),
    "models.finder_model": ("load_finder",),
    "models.restoration": ("restore",),
    "models.restorer_model": ("load_restorer",),
    "models.segmenter": ("load_segmenter",),
    "models.shape_model": ("load_shape_network",),
    "training.stages.autoencoder": ("train_autoencoder",),
    "training.settings.groups": ("TrainSettings",),
    "training.settings.presets": ("preset",),
    "training.stages.finder": ("train_finder",),
    "training.stages.restorer": ("train_restorer",),
    "training.stages.segmentation": ("train_segmenter",),
    "training.stages.shape": ("train_shape",),
    "workflows.held_out": ("held_out_cases",),
    "workflows.planning": ("plan",),
    "workflows.train": ("train",),
    "workflows.training_plan": ("TrainingPlan",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # so that a type checker knows the names above and no others

    def __getattr__(name: str) -> object:
        if name == "__version__":
            value = import_module("importlib.metadata").version("shapeguide")
        elif name in _HOME_OF:
            value = getattr(import_module(f"shapeguide.{_HOME_OF[name]}"), name)
        else:
            raise AttributeError(f"module 'shapeguide' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
