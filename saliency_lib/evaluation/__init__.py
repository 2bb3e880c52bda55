"""Metrics: each maps (model, images, maps, targets) to a Curve. Importing this fills METRICS."""

from saliency_lib.evaluation import curves, fidelity, localisation, papers, sanity  # noqa: F401
