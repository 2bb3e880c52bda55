"""Render the templates: the pages of the site, the results page and README's table of papers."""

import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jinja2
import yaml

import saliency_lib as sl
from docs import architectures, boards, content, matrix
from docs.content import CHAPTERS, PAPERS, SITE, Page
from saliency_lib import paths
from saliency_lib.artefacts import tables
from saliency_lib.core import markup
from saliency_lib.core.registry import Registry
from workflow import plans
from workflow.plans import Step

MARKS = {
    sl.statistics.REPRODUCED: "✓",
    **dict(zip(sl.statistics.DIRECTIONS, "↑✗=?", strict=True)),
    sl.statistics.UNTESTED: "–",
    content.NOT_RUN: "○",
}


def environment() -> jinja2.Environment:
    """Return the environment of the templates, with the filters that they use."""
    folder = jinja2.FileSystemLoader(paths.ROOT / "docs" / "templates")
    result = jinja2.Environment(loader=folder, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    result.filters |= {
        "plain": lambda text: re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", markup.one_line(text)),
        "code": markup.code,
        "slug": lambda text: re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"),
        "rounded": lambda cell: f"{float(cell):.3f}" if re.fullmatch(r"-?\d+\.\d{6}", cell) else cell,
        "cost": boards.cost,
        "person": lambda author: author.get("name") or f"{author['family-names']}, {author['given-names']}",
        "tex": lambda text: re.sub(r"([&%#])", r"\\\1", str(text)),
    }
    result.tests["ending"] = str.endswith
    result.globals |= {"papers": PAPERS, "chapters": CHAPTERS, "marks": MARKS, "measured": content.measured()}
    result.globals |= {"command_of": content.command_of, "command_for": content.command_for}
    return result


def render(pages: Sequence[Page], missing: Sequence[Step]) -> dict[str, str]:
    """Return the text of every file of the site's source that is not a notebook or of one, by its name."""

    def runs_of(notebook: str) -> list[Page]:
        """Return the runs of a notebook, those on photographs first."""
        return sorted((page for page in pages if page.step.notebook == notebook), key=lambda page: page.step.plan != "photos")

    def headline(notebook: str) -> tuple[dict[str, Any], Page] | None:
        """Return the first headline figure of a notebook's runs."""
        return next(((figure, page) for page in runs_of(notebook) for figure in page.figures if figure["headline"]), None)

    templates, kept = environment(), content.measured()
    found = matrix.by_data(kept)
    steps = [*(page.step for page in pages), *missing]
    notebooks = sorted({step.notebook for step in steps})
    cff = (paths.ROOT / "CITATION.cff").read_text()
    templates.tests["ran"] = lambda step: step not in missing
    templates.globals |= {
        "pages": pages,
        "missing": missing,
        "steps": steps,
        "verdicts": {name: content.verdicts(one["claims"], pages, kept) for name, one in CHAPTERS.items() if "claims" in one},
        "titles": {plan: plans.read(plan).title for plan in plans.names()},
        "of_chapter": lambda chapter: [page for page in pages if content.chapter_of(page.step.notebook) == chapter],
        "runs_of": runs_of,
        "headline": headline,
        "cff": yaml.safe_load(cff),
        "cff_source": cff.strip(),
        "api": api(),
        "architectures": architectures.kept(),
        "boards": boards.boards(pages, kept),
        "methods": methods(),
        "metrics": sl.METRICS,
        "costs": boards.COSTS,
        "resamples": sl.statistics.RESAMPLES,
        "claims": found["claim"].nunique(),
        "answers": matrix.answers(found),
        "alternative": matrix.alternative(found),
        "sources": matrix.sources(found),
        "best": matrix.best(kept),
        "example": matrix.readme_example(),
    }
    texts = {"index.md": templates.get_template("index.md").render(), "pictures/claims.svg": matrix.draw(found)}
    for name, facts in CHAPTERS.items():
        template = templates.select_template([f"{name}.md", "paper.md" if "key" in facts else "chapter.md"])
        own = [notebook for notebook in notebooks if content.chapter_of(notebook) == name]
        texts[f"{name}.md"] = template.render(name=name, paper=facts, notebooks=own)
    texts["leaderboard.bib"] = templates.get_template("leaderboard.bib").render()
    for board in templates.globals["boards"]:
        texts |= board.files
    texts["api/index.rst"] = templates.get_template("api_index.rst").render()
    for group in api():
        texts[f"api/{group['name']}.rst"] = templates.get_template("api_group.rst").render(group=group)
    return texts


def results() -> str:
    """Return the results page: the stored runs of the notebooks and the tables of data/measured/, in words and numbers."""
    templates, board = environment(), tables.measured("digits_leaderboard")[0]
    templates.globals |= {
        "blessed": content.blessed,
        "asked": content.asked,
        "unfinished": [name for name in plans.names() if plans.read(name).hours],
        "network": lambda notebook: plans.defaults(notebook)["model"],
        "table": lambda name: tables.measured(name)[0].to_dict("records"),
        "reported": lambda paper: tables.reported(paper)[1].to_dict("records"),
        "critical": sl.statistics.critical_difference(board["method"].nunique(), int(board["images"].min())),
        "side_by_side": sl.statistics.side_by_side(tables.measured("digits_claims")[0]).to_dict("records"),
    }
    return templates.get_template("results.md").render()


def facts() -> dict[str, dict[str, str]]:
    """Return the table, the name and the facts of each registered function, by the path that imports it."""
    entries = [(table, entry) for table in SITE["tables"] for entry in getattr(sl, table).values()]
    return {
        f"{entry.__module__}.{entry.__qualname__}": {"table": table, **entry.row}
        for table, entry in entries
        if getattr(sys.modules[entry.__module__], entry.__qualname__, None) is entry.function
    }


def methods() -> dict[str, dict[str, str]]:
    """Return the facts of each attribution method and the `page` of its entry, empty if the reference lacks it, by its name."""
    known = [(path, fact) for path, fact in facts().items() if fact["table"] in ("METHODS", "PARTICULAR_METHODS")]
    there = {path for group in api() for path in group["paths"]}
    return {fact["name"]: {**fact, "page": f"api/entries/{path}.html" if path in there else ""} for path, fact in known}


def api() -> list[dict[str, Any]]:
    """Return the groups of the API reference: the tables, then the public names by package."""
    known, result = facts(), []
    for table, about in SITE["tables"].items():
        own = {path: fact["name"] for path, fact in known.items() if fact["table"] == table}
        others = [name for name in getattr(sl, table) if name not in own.values()]
        result.append({"name": table.lower(), "title": table, "about": about, "paths": list(own), "others": others})
    public: dict[str, list[str]] = {package: [] for package in SITE["packages"]}
    for name in sl.__all__:
        value = getattr(sl, name)
        if name in public:
            own = {one: getattr(value, one) for one in dir(value) if not one.startswith("_")}
            ours = [one for one, it in own.items() if callable(it) and it.__module__.startswith("saliency_lib.")]
            public[name] += [f"saliency_lib.{name}.{one}" for one in ours]
        elif not isinstance(value, (ModuleType, Registry)):
            public[value.__module__.split(".")[1]].append(f"saliency_lib.{name}")
    for name, title in SITE["packages"].items():
        result.append({"name": name, "title": title, "about": "", "paths": sorted(public[name]), "others": []})
    return result
