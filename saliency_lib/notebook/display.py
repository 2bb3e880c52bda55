"""How a notebook shows tables: a few digits, intervals in one column, settings with their source."""

from collections.abc import Mapping

import pandas as pd
from IPython.display import HTML, Markdown

from saliency_lib import statistics
from saliency_lib.artefacts.recipes import recipes
from saliency_lib.artefacts.specs import Training
from saliency_lib.artefacts.tables import claimed, gathered, measured, reported
from saliency_lib.core.markup import plain
from saliency_lib.core.options import no_such
from saliency_lib.notebook.blessed import Blessed
from saliency_lib.statistics import labelled

__all__ = [
    "answer",
    "claimed",
    "findings",
    "gathered",
    "measured",
    "reported",
    "row",
    "rows",
    "settings",
    "stored",
    "table",
    "with_intervals",
]


def table(frame: pd.DataFrame) -> HTML:
    """Return a table as a notebook shows it: full headers, numbers with three digits, nothing for a missing value, no index."""
    return HTML(labelled(frame).to_html(index=False, float_format=lambda number: f"{number:.3f}", na_rep="", border=0))


def with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with each quantity and its bounds (`x`, `x_low`, `x_high`) in one column, `0.123 [0.100, 0.150]`."""
    shown = pd.DataFrame()
    for name in frame.columns:
        if f"{name}_low" in frame:
            bounds = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
            shown[name] = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in bounds]
        elif not name.endswith(("_low", "_high")):
            shown[name] = frame[name]
    return shown


def findings(frame: pd.DataFrame) -> Markdown:
    """Return one sentence per claim of a table of verdicts, as a list."""
    return Markdown("\n".join(f"- {plain(sentence)}" for sentence in statistics.findings(frame)))


def answer(*sentences: str) -> Markdown:
    """Return sentences that were made from numbers, as the answer to a question."""
    return Markdown(f"**Answer.** {plain(' '.join(sentences))}")


def row(values: Mapping[str, float | str]) -> pd.DataFrame:
    """Return a table of one row, one column per name."""
    return pd.DataFrame([values])


def rows(values: Mapping[str, Mapping[str, float]], name: str) -> pd.DataFrame:
    """Return a table of one row per key, which is in the column `name`, and one column per inner key."""
    return pd.DataFrame([{name: key} | dict(inner) for key, inner in values.items()])


def stored(notebook: str, table: str) -> pd.DataFrame:
    """Return a table of the stored run of another notebook, without the columns that are never compared.

    Raises:
        ValueError: the notebook has no such table.
        FileNotFoundError: there is no such notebook.
    """
    tables = Blessed.of(notebook).tables
    if table not in tables:
        raise no_such(f"table of {notebook}", table, tables)
    return pd.DataFrame(tables[table].columns)


def settings(training: Training) -> HTML:
    """Return a table of the settings that a training's recipe gives, and their source."""
    source = recipes()[str(training.recipe)].get(training.scale, {}).get("source", "")
    known = {name: value for name, value in training.settings.items() if value is not None}
    values = {"recipe": training.recipe, "scale": training.scale, **known, "source": source}
    return HTML(pd.DataFrame(list(values.items()), columns=["setting", "value"]).to_html(index=False, border=0))
