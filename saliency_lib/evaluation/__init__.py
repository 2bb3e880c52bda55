"""Metrics of maps, each from (model, images, maps, targets) to a Curve. Importing this package fills METRICS."""

# ruff: noqa: F401, I001
from saliency_lib.evaluation.table import METRICS, Metric
from saliency_lib.evaluation import deletion, insertion, road, fidelity
from saliency_lib.evaluation import localisation, tokens
from saliency_lib.evaluation import allegiance, masked_accuracy, pixel_perturbation
from saliency_lib.evaluation import concentration, differences, information, rationales, regions, sensitivity, single_deletion
from saliency_lib.evaluation import sanity
from saliency_lib.core.plugins import accept_plugins

__all__ = ["METRICS", "Metric"]

accept_plugins(METRICS)
