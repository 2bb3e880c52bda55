"""Texts that name methods, metrics and options, as the parameters of notebooks do."""

from typing import Any

import yaml

from saliency_lib.artefacts.specification import check_options
from saliency_lib.attribution.table import METHODS
from saliency_lib.evaluation.table import METRICS


def method_names(text: str) -> list[str]:
    """Return the methods that a text names, separated by spaces; `all` names every method, family by family.

    Raises:
        ValueError: the text names no method, or one that is not registered.
    """
    names = list(METHODS) if text.strip() == "all" else text.split()
    if not names:
        raise ValueError("no method is named; name some, separated by spaces, or write all")
    return [METHODS[name].name for name in names]


def metric_names(text: str) -> list[str]:
    """Return the metrics that a text names, separated by spaces.

    Raises:
        ValueError: the text names no metric, or one that is not registered.
    """
    names = text.split()
    if not names:
        raise ValueError(f"no metric is named; name some of {', '.join(METRICS)}, separated by spaces")
    return [METRICS[name].name for name in names]


def mapping(text: str) -> dict[str, Any]:
    """Return the mapping that a text writes as YAML, for instance `{epochs: 2, learning_rate: 0.01}`; empty for no text.

    Raises:
        ValueError: the text is not a YAML mapping.
    """
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{text!r} is not a mapping; write one like {{epochs: 2}}")
    return content


def options_by_method(text: str) -> dict[str, dict[str, Any]]:
    """Return the options that a text gives to methods as YAML, for instance `{rise: {masks: 500}, sidu: {sigma: 1}}`.

    Raises:
        ValueError: the text is not a YAML mapping of mappings, or names an unknown method or option.
    """
    content = mapping(text)
    for method, options in content.items():
        if not isinstance(options, dict):
            raise ValueError(f"options must map methods to their options, like {{rise: {{masks: 500}}}}, got {text!r}")
        check_options(METHODS, method, options)
    return content
