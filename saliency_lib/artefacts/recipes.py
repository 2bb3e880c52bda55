"""The training recipes of params/training.yaml."""

import functools
from typing import Any, Literal, get_args

import yaml

from saliency_lib import paths
from saliency_lib.core.options import no_such
from saliency_lib.training.settings import DEFAULTS

Scale = Literal["embedded", "real", "paper"]
SCALES = get_args(Scale)


@functools.cache
def recipes() -> dict[str, dict[str, Any]]:
    """Return the training recipes of params/training.yaml by name."""
    return yaml.safe_load((paths.PARAMS / "training.yaml").read_text())


def settings_of(recipe: str, scale: str, model: str, dataset: str) -> dict[str, Any]:
    """Return the settings of a recipe at a scale, for a model and a data set.

    A setting of the first case that fits the model and the data set replaces that of the scale, which replaces that of the
    recipe, which replaces the default.

    Raises:
        ValueError: the recipe does not have this scale.
    """
    known = {"model": model, "dataset": dataset}
    whole = recipes()[recipe]
    scaled = whole.get(scale)
    if scaled is None:
        raise no_such(f"scale of recipe {recipe!r}", scale, [one for one in SCALES if whole.get(one)])
    fitting = (case for case in scaled.get("cases", []) if known | case == case | known)
    settings = DEFAULTS | whole | scaled | next(fitting, {})
    return {name: value for name, value in settings.items() if name not in (*SCALES, *known, "cases", "source")}
