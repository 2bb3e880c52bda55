"""Metrics of maps, each from (model, images, maps, targets) to a Curve. Importing this package fills METRICS."""

# ruff: noqa: I001
from saliency_lib.evaluation.table import METRICS, Metric
from saliency_lib.evaluation import (
    deletion,
    insertion,
    road,
    fidelity,
    localisation,
    allegiance,
    masked_accuracy,
    pixel_perturbation,
    sanity,
)

__all__ = [
    "METRICS",
    "Metric",
    "allegiance",
    "deletion",
    "fidelity",
    "insertion",
    "localisation",
    "masked_accuracy",
    "pixel_perturbation",
    "road",
    "sanity",
]
