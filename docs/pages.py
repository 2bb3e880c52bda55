"""Render the templates: the pages of the site, the results page and README's table of papers."""

import re
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from types import ModuleType
from typing import Any

import jinja2
import yaml

import saliency_lib as sl
from docs import content
from docs.content import PAPERS, RELEASED, RELEASED_NOTEBOOK, Figure, Page
from saliency_lib import paths
from saliency_lib.artefacts import tables
from saliency_lib.core.registry import Registry
from workflow import plans
from workflow.plans import Step

MARKS = {"reproduced": "✓", "not reproduced": "✗", sl.statistics.UNTESTED: "–", content.NOT_RUN: "○"}
CHAPTERS = {paper["key"]: paper["short"] for paper in PAPERS} | {
    "released_against_corrected": "Released against corrected",
    "leaderboard": "Leaderboard",
    "gallery": "Gallery",
    "benchmarks": "Benchmarks",
    "metrics": "Metrics",
    "measured": "Measured once",
    "cite": "How to cite",
    "plans": "Plans",
}
TABLES = {
    "METHODS": "Attribution methods: `(model, images, targets=None, **options) -> maps`, images (B, C, H, W), maps (B, H, W).",
    "METRICS": "Metrics of maps: `(model, images, maps, targets=None, **options) -> Curve`, one curve and one area per image.",
    "OBJECTIVES": "Training objectives: `(model, images, labels, **options) -> loss`.",
    "DATASETS": "Data sets: `(split='test', *, start, stop, stride, size, download) -> Images`.",
    "MODELS": "Networks: `(classes=10, channels, pretrained=False, **options) -> nn.Module` that maps pixels to logits.",
}
PUBLIC = {  # the packages whose public names have a page besides the tables
    "artefacts": "Train, explain, score",
    "attribution": "Attribution",
    "evaluation": "Evaluation",
    "data": "Data",
    "networks": "Networks",
    "statistics": "Statistics",
    "figures": "Figures",
    "notebook": "Notebooks",
}


def environment() -> jinja2.Environment:
    """Return the environment of the templates, with the filters that they use."""
    result = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.ROOT / "docs" / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    result.filters |= {
        "plain": lambda text: re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", str(text)),
        "code": lambda text: f"`` {text} ``" if "`" in text else f"`{text}`",
        "slug": lambda text: re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"),
        "rounded": lambda cell: f"{float(cell):.3f}" if re.fullmatch(r"-?\d+\.\d{6}", cell) else cell,
        "person": lambda author: author.get("name") or f"{author['family-names']}, {author['given-names']}",
        "tex": lambda text: re.sub(r"([&%#])", r"\\\1", str(text)),
        "groups": _groups,
    }
    result.globals |= {"cite": citation, "command_of": content.command_of, "command_for": content.command_for}
    result.globals |= {"papers": PAPERS, "chapters": CHAPTERS, "marks": MARKS}
    return result


def _groups(steps: Iterable[Step]) -> list[tuple[tuple[str, str], list[Step]]]:
    """Return the steps per plan and scale, by name."""
    key = lambda step: (step.plan, step.scale)  # noqa: E731
    return [(place, list(own)) for place, own in groupby(sorted(steps, key=key), key)]


def citation(paper: dict[str, Any], short: bool = False) -> str:
    """Return the citation of a paper with its link, Markdown; the short one has no venue."""
    authors = ", ".join(paper["authors"]) + (" et al." if paper.get("others") else "")
    who = f"{authors} {paper.get('year', '')}".strip()
    if short:
        return f"{who}, [{paper['title']}]({paper['link']})"
    return f"{who.removesuffix('.')}. *{paper['title']}*. [{paper['venue']}]({paper['link']})."


def chapter_of(notebook: str) -> str:
    """Return the chapter below which a notebook's pages are listed in the sidebar."""
    stage, name = notebook.split("_", 1)
    by_stage = {"02": "gallery", "03": "metrics"}
    return name if stage in ("04", "05") and name in CHAPTERS else by_stage.get(stage, "plans")


def render(pages: Sequence[Page], missing: Sequence[Step]) -> dict[str, str]:
    """Return the text of every page that is not a notebook, by its file in the site's source."""
    kept = content.measured()
    everything = [*(page.step for page in pages), *missing]
    cff = (paths.ROOT / "CITATION.cff").read_text()

    def headline(notebook: str) -> tuple[Figure, Page] | None:
        """Return the headline figure of a notebook's run, on photographs if there is one."""
        runs = sorted((page for page in pages if page.step.notebook == notebook), key=lambda page: page.step.plan != "photos")
        return next(((figure, page) for page in runs for figure in page.figures if figure.headline), None)

    def built_on(paper: dict[str, Any]) -> list[Page]:
        """Return the runs that a paper's notebook builds on, from its plans and those beside them, and its own."""
        own = content.notebook_of(paper["key"])
        near = {plan for step in everything if step.notebook == own for plan in (step.plan, *step.beside)}
        runs = [[page for page in pages if page.step.notebook == name] for name in (*paper["stages"], own)]
        return [page for some in runs for page in ([page for page in some if page.step.plan in near] or some)]

    def left_of(paper: dict[str, Any]) -> list[Step]:
        """Return what was not run in the plans of a paper, of its notebook and those it builds on."""
        own = content.notebook_of(paper["key"])
        near = {step.plan for step in missing if step.notebook == own}
        return [step for step in missing if step.plan in near and step.notebook in (own, *paper["stages"])]

    templates = environment()
    templates.tests["ran"] = lambda step: step not in missing
    templates.globals |= {
        "pages": pages,
        "missing": missing,
        "steps": everything,
        "measured": kept,
        "verdicts": {paper: content.verdicts(paper, pages, kept) for paper in (*(paper["key"] for paper in PAPERS), RELEASED)},
        "names": {paper["key"]: paper["short"] for paper in PAPERS} | {RELEASED: "Released codes"},
        "about": {paper["key"]: citation(paper) for paper in PAPERS} | {RELEASED: "Conclusions that a defect could change."},
        "chapters_of": {paper["key"]: paper["key"] for paper in PAPERS} | {RELEASED: chapter_of(RELEASED_NOTEBOOK)},
        "titles": {plan: plans.read(plan).title for plan in plans.names()},
        "of_chapter": lambda chapter: [page for page in pages if chapter_of(page.step.notebook) == chapter],
        "run_of": lambda notebook: next((page for page in pages if page.step.notebook == notebook), None),
        "headline": headline,
        "built_on": built_on,
        "left_of": left_of,
    }
    by_chapter = {
        "released_against_corrected": [RELEASED_NOTEBOOK],
        "leaderboard": ["05_leaderboard"],
        "gallery": ["02_explain"],
        "benchmarks": ["05_benchmarks"],
        "metrics": sorted({step.notebook for step in everything if step.notebook.startswith("03_")}),
    }
    groups = api()
    texts = {f"{paper['key']}.md": templates.get_template("paper.md").render(paper=paper) for paper in PAPERS}
    for name, notebooks in by_chapter.items():
        template = templates.select_template([f"{name}.md", "chapter.md"])
        texts[f"{name}.md"] = template.render(name=name, notebooks=notebooks)
    for name in ("index", "measured", "plans"):
        texts[f"{name}.md"] = templates.get_template(f"{name}.md").render()
    texts["cite.md"] = templates.get_template("cite.md").render(cff=yaml.safe_load(cff), cff_source=cff.strip())
    texts["api/index.rst"] = templates.get_template("api_index.rst").render(groups=groups)
    texts |= {f"api/{group['name']}.rst": templates.get_template("api_group.rst").render(group=group) for group in groups}
    return texts


def results() -> str:
    """Return the results page: the stored runs of the notebooks and the tables of data/measured/, in words and numbers."""
    side_by_side = sl.statistics.side_by_side(tables.measured("digits_claims")[0])
    wins = (
        side_by_side[side_by_side["claim"].str.startswith("gnl_")].set_index("metric").drop(columns="claim").ne("no").sum(axis=1)
    )

    def reported(paper: str, quantity: str, **where: str) -> str:
        """Return the number that a paper reports, or a dash."""
        rows = tables.reported(paper)[1].query("quantity == @quantity")
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return f"{rows['value'].item():g}" if len(rows) else "–"

    templates = environment()
    templates.tests["ending"] = str.endswith
    templates.globals |= {
        "blessed": content.blessed,
        "network": lambda notebook: plans.defaults(notebook)["model"],
        "table": lambda name: tables.measured(name)[0].to_dict("records"),
        "measured": content.measured(),
        "reported": reported,
        "side_by_side": side_by_side.to_dict("records"),
        "gnl_wins": wins.to_dict().get,
        "largest": lambda rows: max(abs(float(row["ours"].split()[0])) for row in rows),
    }
    return templates.get_template("results.md").render()


def facts() -> dict[str, dict[str, str]]:
    """Return the table, the name and the facts of each registered function, by the path that imports it."""
    found = {}
    for table in TABLES:
        for entry in getattr(sl, table).values():
            if getattr(sys.modules[entry.__module__], entry.__qualname__, None) is entry.function:
                found[f"{entry.__module__}.{entry.__qualname__}"] = {"table": table, **entry.row}
    return found


def api() -> list[dict[str, Any]]:
    """Return the groups of the API reference: the tables, then the public names by package."""
    known = facts()
    groups = []
    for table, about in TABLES.items():
        own = {path: fact["name"] for path, fact in known.items() if fact["table"] == table}
        others = [name for name in getattr(sl, table) if name not in own.values()]
        groups.append({"name": table.lower(), "title": table, "about": about, "paths": list(own), "others": others})
    public: dict[str, list[str]] = {package: [] for package in PUBLIC}
    for name in sl.__all__:
        value = getattr(sl, name)
        if name in PUBLIC:
            own = {one: getattr(value, one) for one in dir(value) if not one.startswith("_")}
            ours = [one for one, it in own.items() if callable(it) and it.__module__.startswith("saliency_lib.")]
            public[name] += [f"saliency_lib.{name}.{one}" for one in ours]
        elif not isinstance(value, (ModuleType, Registry)):
            public[value.__module__.split(".")[1]].append(f"saliency_lib.{name}")
    rest = [
        {"name": name, "title": PUBLIC[name], "about": "", "paths": sorted(own), "others": []} for name, own in public.items()
    ]
    return [*groups, *rest]
