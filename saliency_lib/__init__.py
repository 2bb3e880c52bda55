"""The saliency compendium: train, explain, measure and draw five saliency-map papers as one system.

`import saliency_lib as sl` loads nothing heavy; each name below is imported when it is first used.
"""

import importlib

_HOMES = {
    "registry": ("METHODS", "METRICS", "OBJECTIVES", "DATASETS", "MODELS"),
    "specs": (
        "Training",
        "Explanation",
        "Score",
        "Samples",
        "from_dict",
        "mapping",
        "method_names",
        "metric_names",
        "options_by_method",
        "recipes",
    ),
    "pipeline": ("train", "explain", "score", "score_all", "sample", "predict", "join", "build", "data", "images_of", "device"),
    "adapters": ("compute", "explain_func", "LogProbabilities", "Shifted"),
    "evaluation.curves": ("Curve", "Imputed", "perturbation_curve", "tied"),
    "evaluation.samples": ("activation_maximisation", "density_ratio"),
    "evaluation.sanity": ("rank_correlation",),
    "attribution.gradients": ("gradient_maps",),
    "attribution.integrated": ("completeness_error",),
    "rules": ("guided",),
    "store": ("find",),
}
_MODULES = ("paths", "plots", "report", "claims", "ranking", "store", "specs", "pipeline", "training", "explorer")
_NAMES = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_MODULES, *_NAMES]
__version__ = "0.1.0"


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"saliency_lib has no {name!r}; it has {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
