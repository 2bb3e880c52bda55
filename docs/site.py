"""The report: a browsable HTML site made from the executed notebooks, without running them again."""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
import yaml

from docs import site_content, site_pages
from docs.site_content import PAPERS, RELEASED_NOTEBOOK, Page
from saliency_lib import paths
from workflow import plans

SITE = paths.OUTPUTS / "report"
LONG = ("gallery", "metrics", "measured", "plans")  # pages with a table of contents at the right; others use its room


def build() -> Path:
    """Make the site in outputs/report/ from the notebooks in outputs/runs/ and return its start page.

    Raises:
        FileNotFoundError: nothing has been run yet.
        ValueError: a notebook was not run to its end, or a table that it kept was changed.
        RuntimeError: the site could not be made; the message has Sphinx's warnings.
    """
    steps = site_content.steps()
    origins = site_content.origins()
    pages = [site_content.read(step, origins) for step in steps if step.output.is_file()]
    missing = [step for step in steps if not step.output.is_file()]
    if not pages:
        raise FileNotFoundError(f"there are no executed notebooks in {paths.relative(plans.RUNS)}; run `make reproduce` first")
    SITE.mkdir(parents=True, exist_ok=True)
    target = SITE / "html"
    with tempfile.TemporaryDirectory(dir=SITE, prefix=".draft-") as place:
        source, draft = Path(place) / "source", Path(place) / "html"
        _write(pages, missing, source)
        _sphinx(source, draft)
        if target.exists():
            target.rename(Path(place) / "before")
        draft.rename(target)  # so that what stands there is whole, also where this was killed
    return target / "index.html"


def _write(pages: list[Page], missing: list[plans.Step], source: Path) -> None:
    """Write everything that Sphinx makes the site from."""
    (source / "extra" / "pictures").mkdir(parents=True)
    for page in pages:
        _copy(page, pages, source)
    for name, text in _chapters(pages, missing).items():
        (source / f"{name}.md").write_text(
            text if name in LONG else f"---\nhtml_theme.sidebar_secondary.remove: true\n---\n{text}"
        )
    (source / "style.css").write_text(STYLE)


def _chapters(pages: list[Page], missing: list[plans.Step]) -> dict[str, str]:
    """The text of every page that is not a notebook, by its name."""
    claims, tables = site_content.claims(pages), site_content.measured()
    metrics = sorted({step.notebook for step in [*missing, *(page.step for page in pages)] if step.notebook.startswith("03_")})
    cff = (paths.ROOT / "CITATION.cff").read_text()
    plain = {
        "leaderboard": ("All methods by the metrics, on the same images.", ["05_leaderboard"]),
        "gallery": ("What each method marks; `random` and `edges` are controls that know nothing of the model.", ["02_explain"]),
        "benchmarks": ("Speed and memory of each engine beside other packages.", ["05_benchmarks"]),
        "metrics": ("One section a metric: which methods beat a random order of the pixels, and the image's edges.", metrics),
    }
    return {
        "index": site_pages.start(claims, pages, missing, tables),
        **{paper.name: site_pages.paper_chapter(paper, claims, pages, missing, tables) for paper in PAPERS},
        site_pages.chapter_of(RELEASED_NOTEBOOK): site_pages.released_chapter(claims, pages, missing),
        **{name: site_pages.plain_chapter(name, *about, pages, missing) for name, about in plain.items()},
        "measured": site_pages.measured_chapter(tables, pages),
        "cite": site_pages.cite_chapter(yaml.safe_load(cff), cff),
        "plans": site_pages.plans_chapter(pages, missing),
    }


def _copy(page: Page, pages: list[Page], source: Path) -> None:
    """Write an executed notebook and its figures into the source, without what a reader without a network cannot use."""
    notebook = nbformat.read(page.step.output, as_version=4)
    notebook.metadata.pop("widgets", None)  # the state of progress bars, which would ask for scripts from a network
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[([^\]]*)\]\((\w+)\.ipynb\)", lambda found: _linked(found, page, pages), cell.source)
        if cell.cell_type == "code":
            cell.metadata["tags"] = [*site_content.tags(cell), "hide-input"]
            cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
            for _, caption, _ in site_content.figures(cell):
                cell.metadata["mystnb"] = {"image": {"alt": caption}}
    target = source / f"{page.document}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
    for picture in page.pictures:
        (source / "extra" / "pictures" / picture.file).write_bytes(picture.png)


def _linked(found: re.Match, page: Page, pages: list[Page]) -> str:
    """A link to another notebook: to its run in the same combination, else to any run, else the words without a link."""
    runs = [other for other in pages if other.step.notebook == found[2]]
    near = [other for other in runs if other.step.output.parent == page.step.output.parent]
    return f"[{found[1]}](/{(near or runs)[0].document}.ipynb)" if runs else found[1]


def _is_progress(output: nbformat.NotebookNode) -> bool:
    return output.output_type == "stream" or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


STYLE = """
.scrolled, div.cell_output { overflow-x: auto; }
code, code.literal span.pre { overflow-wrap: anywhere; white-space: pre-wrap; }
.prev-next-info { min-width: 0; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
math[display=block] { overflow-x: auto; padding: 0.4rem 0; }
.bd-content:not(:has(> .bd-sidebar-secondary)) > .bd-article-container { max-width: 100%; }
.quiet { color: var(--pst-color-text-muted); font-size: 0.85rem; font-weight: normal; margin-left: 0.5rem; }

table.dataframe, table.plain, table.verdicts { border-collapse: collapse; font-size: 0.85rem; margin: 0.5rem 0 1.5rem; }
table.dataframe th, table.dataframe td, table.plain th, table.plain td, table.verdicts th, table.verdicts td {
  padding: 0.3rem 0.7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--pst-color-border);
}
table.dataframe td, table.dataframe th { white-space: nowrap; }
table.counts td:not(:first-child), table.counts th:not(:first-child) { text-align: right; }
table.verdicts { width: 100%; }
table.verdicts tbody th { font-weight: normal; width: 11%; }
table.verdicts td:nth-child(2) { width: 27%; }
table.verdicts td:nth-child(3), table.verdicts td:nth-child(4) { width: 16%; }
table.verdicts tr.part th { white-space: normal; font-weight: bold; padding-top: 1.2rem; background: var(--pst-color-surface); }
.number, .verdict { white-space: nowrap; }
.verdict { font-weight: bold; }
.verdict.not-tested-at-this-scale { white-space: normal; font-weight: normal; }
.way { color: var(--pst-color-text-muted); font-size: 0.8rem; }

figure.shown { margin: 1rem 0 2rem; }
figure.shown > a { display: block; overflow-x: auto; }
figure.shown > figcaption { margin: 0.5rem 0; text-align: left; font-size: 0.9rem; font-weight: normal; }
figure.shown > figcaption { color: var(--pst-color-text-base); opacity: 1; }
figure.shown .quiet { margin: 0; }
details.provenance, details.numbers { margin: 0.3rem 0 1rem; font-size: 0.85rem; }
details.provenance ul { max-height: 14rem; overflow-y: auto; }
details.provenance li { overflow-wrap: anywhere; }
summary { cursor: pointer; }

.papers { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; margin: 1rem 0 2rem; }
a.paper { display: flex; flex-direction: column; gap: 0.3rem; padding: 0.8rem; border: 1px solid var(--pst-color-border); }
a.paper, a.paper:hover { color: var(--pst-color-text-base); text-decoration: none; font-size: 0.9rem; }
a.paper strong { color: var(--pst-color-link); }
a.paper img { height: 9rem; object-fit: contain; background: #fff; }

@media (max-width: 800px) {
  table.verdicts, table.verdicts tbody, table.verdicts tr, table.verdicts td, table.verdicts th { display: block; border: 0; }
  table.verdicts td, table.verdicts th { width: auto !important; }
  table.verdicts thead { position: absolute; left: -100vw; }
  table.verdicts tr { border-bottom: 1px solid var(--pst-color-border); padding: 0.6rem 0; }
  table.verdicts td { display: grid; grid-template-columns: 6.5rem 1fr; padding: 0.1rem 0.7rem; }
  table.verdicts td.run, table.verdicts td.run::before { display: block; content: none; }
  table.verdicts td::before { content: attr(data-label); color: var(--pst-color-text-muted); }
  .number { white-space: normal; }
  table.counts { font-size: 0.75rem; }
  table.counts th, table.counts td { padding: 0.2rem 0.3rem; }
  .bd-article h1 { font-size: 1.8rem; }
  .bd-article h2 { font-size: 1.4rem; }
  .bd-article h3 { font-size: 1.15rem; }
  figure.shown img, div.cell_output img { min-width: 38rem; }
  .prev-next-info p { font-size: 0.85rem; }
}
"""


def _sphinx(source: Path, target: Path) -> None:
    from sphinx.application import Sphinx  # slow to import, and wanted here alone
    from sphinx.util.docutils import docutils_namespace

    settings = {
        "project": "The saliency compendium",
        "author": "the saliency compendium's authors",
        "copyright": "the saliency compendium's authors",
        "language": "en",
        "extensions": ["myst_nb", "docs.site"],
        "html_theme": "sphinx_book_theme",
        "html_title": "The saliency compendium",
        "html_extra_path": [str(source / "extra")],
        "html_static_path": [str(source / "style.css")],
        "html_css_files": ["style.css"],
        "html_theme_options": {"use_download_button": False, "use_fullscreen_button": False, "navbar_persistent": []},
        "html_context": {"default_mode": "auto"},
        "html_math_renderer": "mathml",
        "html_copy_source": False,
        "html_use_index": False,
        "html_show_sourcelink": False,
        "nb_execution_mode": "off",
        "nb_merge_streams": True,
        "nb_render_markdown_format": "myst",  # the default knows no tables, which colophons are
        "myst_enable_extensions": ["dollarmath", "amsmath"],
        "suppress_warnings": ["mystnb.unknown_mime_type"],
    }
    warnings = SITE / "warnings.txt"
    with warnings.open("w") as stream, docutils_namespace():
        doctrees = source.parent / "doctrees"
        app = Sphinx(source, None, target, doctrees, "html", settings, status=None, warning=stream, freshenv=True)
        app.build()
    text = warnings.read_text()
    if app.statuscode or text:
        raise RuntimeError(f"the report has errors, see {paths.relative(warnings)}:\n{text[:2000]}")


def setup(app: object) -> dict:
    """Sphinx extension: formulas as MathML, which browsers draw without a script or a network."""
    from docutils.nodes import SkipNode
    from latex2mathml.converter import convert

    def drawn(display: str):
        def visit(translator: object, node: object) -> None:
            translator.body.append(convert(node.astext(), display=display))
            raise SkipNode

        return visit, None

    app.add_html_math_renderer("mathml", drawn("inline"), drawn("block"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main() -> int:
    """Make the site."""
    try:
        page = build()
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(f"wrote {paths.relative(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
