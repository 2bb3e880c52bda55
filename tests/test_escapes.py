"""Names are data: a folder, a class or a parameter that is written like HTML, Markdown or a formula is shown as it is written."""

import io
import re
from html import unescape

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from markdown_it.renderer import RendererHTML
from matplotlib.figure import Figure
from matplotlib.text import Text
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

import saliency_lib as sl
from docs import pages
from saliency_lib import figures, paths
from saliency_lib.core import markup
from saliency_lib.notebook import blessed
from saliency_lib.notebook import run as runs
from saliency_lib.notebook.blessed import Table

EVIL = "<img src=x onerror=alert(1)>"
NAMES = [
    EVIL,
    "`" + EVIL + "`",
    "``" + EVIL,
    "[x](javascript:alert(1))",
    "![x](http://x)",
    "a | b *c* $d$ \\",
    "&lt;b&gt;",
    "$x^$",
    "_x_ __y__",
    "[x]{onclick=alert(1)} [x]{.hidden} [^x]",
    "~~x~~",
    "- # > 1.",
]


def rendered(text):
    """Markdown as the site renders it."""
    config = MdParserConfig(enable_extensions={"dollarmath", "amsmath", "attrs_inline", "colon_fence"})
    return create_md_parser(config, RendererHTML).render(text)


def words(html):
    """The text that a browser shows."""
    return unescape(re.sub(r"<[^>]*>", "", html)).strip()


def assert_shows(markdown, *names):
    html = rendered(markdown)
    assert not re.search(r"<(?!/?(p|em|code|ul|li|table|thead|tbody|tr|th|td)>)", html), html
    for name in names:
        assert name in words(html), (name, html)


@pytest.mark.parametrize("name", NAMES)
def test_text_and_code_show_a_name_as_it_is_written(name):
    assert_shows(f"before *{markup.plain(name)}* after", name)
    assert_shows(f"before {markup.code(name)} after", name)
    assert_shows(f"| a | b |\n|---|---|\n| {markup.code(name, cell=True)} | {markup.plain(name)} |", name)
    environment = pages.environment()
    for filter in ("plain", "code"):
        assert_shows(environment.from_string(f"x {{{{ name | {filter} }}}} y").render(name=name), name)


CHARACTERS = st.text("ab1 _*`[](){}<>|$\\&;:#~!-+=.'\"^%@/\n\r\t\f\u2028", min_size=1, max_size=9)


@hypothesis.settings(max_examples=300)
@hypothesis.given(name=CHARACTERS)
def test_any_text_is_shown_as_it_is_written(name):
    written = " ".join(name.split())
    for markdown in (
        f"before {markup.plain(name)} after",
        f"- {markup.plain(name)} after",
        f"before {markup.code(name)} after",
        f"| a | b |\n|---|---|\n| {markup.code(name, cell=True)} | {markup.plain(name)} after |",
    ):
        html = rendered(markdown)
        assert not re.search(r"<(?!/?(p|code|ul|li|table|thead|tbody|tr|th|td)>)", html), (markdown, html)
        assert written in " ".join(words(html).split()), (markdown, html)


class Artefact:
    def __init__(self, name):
        self.folder = paths.OUTPUTS / "training" / name
        self.provenance = {"digest": "01234567" * 8, "created": "2026-01-01T00:00:00", "facts": {}}
        self.facts = {"device": EVIL, "seconds": 1.0}


@pytest.fixture
def shown(monkeypatch):
    """What is displayed as Markdown."""
    found = []
    monkeypatch.setattr(runs, "display", lambda thing, metadata=None: found.append(thing))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_names_as_they_are_written(name, shown, outputs):
    run = runs.Run("03_deletion", sl_defaults() | {"dataset": name})
    run.show(Figure((1, 1)), f"Deletion on 100 {name} images.", [])
    run.keep("areas", pd.DataFrame({"a": [1]}))
    _, caption, kept = shown
    assert_shows(caption.data, name)
    assert_shows(kept.data)
    assert_shows(run.agreement().data, name)
    assert_shows(run.colophon([Artefact(name)]).data, name, EVIL)
    assert rendered(run.colophon([Artefact(name)]).data).count("<td>") == 2


def sl_defaults():
    return blessed.Blessed.of("03_deletion").parameters


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_sentences_show_names_as_they_are_written(name):
    frame = pd.DataFrame({"method": [name], name: [1.0]})
    html = sl.notebook.table(frame).data
    assert "<img" not in html
    one, other = ({"t": Table(0.1, {"method": [name, "b"], "area": [area, 0.0]})} for area in (0.0, 1.0))
    assert_shows(blessed.summary(other, blessed.differences(one, other)), name)


@pytest.mark.parametrize("name", ["$x^$", "a $ b", "$5 and $6", "\\$", "$\\frac{$"])
def test_a_name_with_dollars_is_drawn_as_it_is_written(name):
    noise = np.random.default_rng(0).random
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "test_accuracy": [0.3, 0.6]})
    areas = {name: {name: noise(20), "edges": noise(20)}}
    ranks = sl.statistics.mean_ranks({"deletion": {name: noise(40), "b": noise(40), "c": noise(40)}}, {"deletion": True})
    right = {name: np.ones(2, bool)}
    drawn = [
        figures.gallery(noise((2, 3, 8, 8)), {name: noise((2, 8, 8))}, [name, name]),
        figures.mean_curves(np.linspace(0, 1, 4), {name: noise((9, 4))}, changed=name, score=name, lower_is_better=True),
        figures.panels(np.linspace(0, 1, 4), {name: {name: noise((9, 4))}}, changed=name, score=name),
        figures.training_history(history, noise((2, 1, 8, 8)), [name, name], np.ones(2), np.ones(2, bool)),
        figures.sample_quality(
            {name: noise((2, 1, 8, 8))}, np.arange(2), [name, name], right, np.arange(3), {name: noise((6, 3))}
        ),
        figures.intervals(areas, {name: False}),
        figures.intervals_by_training({name: {name: {"standard": noise(5), name: noise(5)}}}),
        figures.critical_difference_diagram({name: ranks}, 1.0),
        figures.heatmap(pd.DataFrame({name: [1.0]}, index=[name]), name),
    ]
    for figure in drawn:
        figure.set_layout_engine("none")
        figure.draw_without_rendering()  # a formula that cannot be read would fail
        texts = [text for text in figure.findobj(Text) if "$" in text.get_text()]
        assert texts and not any(text.get_parse_math() for text in texts)


def test_the_powers_of_ten_of_a_logarithmic_axis_are_still_formulas():
    @figures.style.styled
    def drawn():
        figure = Figure()
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.plot([1, 1000], [0, 1])
        return figure

    figure = drawn()
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    powers = [label for label in figure.axes[0].get_xticklabels() if "mathdefault" in label.get_text()]
    assert powers and all(label.get_parse_math() for label in powers)


def test_no_template_writes_a_value_of_a_run_unescaped():
    """The values that a notebook, a folder or a stored file names; the others are texts of the project, or numbers."""
    named = r"(shown|origin|one|finding|claim)\.(caption|command|folder|commit|digest|ours|images|trainings|measured_on|python)\b"
    templates = {file.name: file.read_text() for file in (paths.ROOT / "docs" / "templates").glob("*.md")}
    written = [(name, inside) for name, text in templates.items() for inside in re.findall(r"\{\{(.*?)\}\}", text)]
    values = [(name, inside) for name, inside in written if re.search(named, inside)]
    assert len(values) >= 10
    assert not [one for one in values if not re.search(r"\|\s*(tojson|plain|code|length)", one[1])]
