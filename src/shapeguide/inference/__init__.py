"""Prediction on exactly the grid of the input: one volume, or many files."""

from shapeguide.inference.files import (
    Failure,
    PredictionOptions,
    PredictionReport,
    predict_files,
)
from shapeguide.inference.volumes import (
    WINDOW_OVERLAP,
    label_map_from,
    predict,
    predict_probabilities,
    prepared_probabilities,
)
from shapeguide.inference.volumes_table import VOLUMES_FILE

__all__ = [
    "VOLUMES_FILE",
    "WINDOW_OVERLAP",
    "Failure",
    "PredictionOptions",
    "PredictionReport",
    "label_map_from",
    "predict",
    "predict_files",
    "predict_probabilities",
    "prepared_probabilities",
]
