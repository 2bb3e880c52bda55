"""Sphinx configuration of the site; `python -m docs` writes the pages and calls Sphinx."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

from docs import pages

project = html_title = "The saliency compendium"
author = copyright = "the saliency compendium's authors"
language = "en"
extensions = ["myst_nb", "sphinx_design", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
suppress_warnings = ["mystnb.unknown_mime_type"]
smartquotes = False

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_js_files = ["wide.js"]
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "collapse_navbar": True,
}
html_context = {"default_mode": "auto"}
html_math_renderer = "mathml"
html_copy_source = html_use_index = html_show_sourcelink = False

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # the default knows no tables, which colophons are
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "dollarmath"]

templates_path = [str(Path(__file__).parent / "templates")]  # autosummary takes others for folders of the source
default_role = "literal"
add_module_names = False
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
autosummary_context = {"facts": pages.facts()}
autosummary_ignore_module_all = False
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source", "Differs"]


def _readable(app: Any, what: str, name: str, entry: Any, options: Any, lines: list[str]) -> None:
    """Make Source and Differs sections and indented formulas literal; escape what is markup elsewhere: |map|, *args, name_."""
    text, *rest = re.split(r"(?:^|\s)(Source|Differs): ", "\n".join(lines))
    for section, told in zip(rest[::2], rest[1::2], strict=True):
        text += f"\n\n{section}:\n    {' '.join(told.split())}"
    parts = re.split(r"(`[^`]*`|\n\n {4}(?:.+\n?)+)", text)
    parts[::2] = [re.sub(r"[*|]|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    parts[1::2] = [part if part.startswith("`") else f"\n\n::{part}" for part in parts[1::2]]
    lines[:] = "".join(parts).split("\n")


def _mathml(display: str) -> tuple[Callable[..., None], None]:
    def visit(translator: Any, node: Any) -> None:
        translator.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit, None


WIDE = re.compile(
    r"<h[1-6]>(?P<heading>.*?)<a class=\"headerlink\"|(?P<table><div class=\"pst-scrollable-table-container\")>"
    r"|(?P<figure><a class=\"reference (?:in|ex)ternal image-reference\".*?</a>)",
    re.DOTALL,
)


def _regions(app: Any, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Make what may be wider than a phone a region with a name, which a keyboard reaches and scrolls: tables and figures."""
    heading, number = context.get("title", ""), 0

    def named(found: re.Match) -> str:
        nonlocal heading, number
        if found["heading"] is not None:
            heading = found["heading"]
            return found[0]
        number += 1
        words = " ".join(re.sub(r"<.*?>", "", heading).replace('"', "&quot;").split())
        facts = f'role="region" tabindex="0" aria-label="{"Table" if found["table"] else "Figure"} {number}: {words}"'
        return f"{found['table']} {facts}>" if found["table"] else f'<div class="scrolls" {facts}>{found["figure"]}</div>'

    if "body" in context:
        context["body"] = WIDE.sub(named, context["body"])


def setup(app: Any) -> None:
    """Draw formulas as MathML, which needs neither a script nor a network; prepare docstrings; name regions that scroll."""
    app.add_html_math_renderer("mathml", _mathml("inline"), _mathml("block"))
    app.connect("autodoc-process-docstring", _readable, priority=400)
    app.connect("html-page-context", _regions)
