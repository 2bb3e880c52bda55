"""The report: a browsable HTML site made from the executed notebooks, without running them again."""

import base64
import html
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

from saliency_lib import paths, plans

SITE = paths.OUTPUTS / "report"
STAGES = {"01": "Training", "02": "Maps", "03": "Metrics", "04": "Papers", "05": "Across papers"}


@dataclass(frozen=True)
class Page:
    """One executed notebook: what the start page shows of it."""

    file: Path
    title: str
    figure: bytes | None
    caption: str
    table: str


def read(file: Path) -> Page:
    """Title, headline figure with its caption, and headline table of an executed notebook.

    Raises:
        ValueError: the notebook was not run to its end, or a cell of it failed.
    """
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    unfinished = any(cell.execution_count is None for cell in code)
    if unfinished or any(output.output_type == "error" for cell in code for output in cell.outputs):
        name = paths.relative(file)
        raise ValueError(f"{name} was not run to its end; delete it and run `make reproduce` again")
    title = next(line[2:] for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("# "))
    headline = [output.get("data", {}) for cell in _tagged(code, "headline") for output in cell.outputs]
    picture = next((data["image/png"] for data in headline if "image/png" in data), None)
    caption = next((data["text/markdown"] for data in headline if "text/markdown" in data), "")
    tables = [output.get("data", {}).get("text/html", "") for cell in _tagged(code, "table") for output in cell.outputs]
    return Page(file, title, base64.b64decode(picture) if picture else None, caption, "".join(tables))


def _tagged(cells: list, tag: str) -> list:
    return [cell for cell in cells if tag in cell.metadata.get("tags", [])]


def build() -> Path:
    """Make the site in outputs/report/ from the notebooks in outputs/runs/ and return its start page.

    Raises:
        FileNotFoundError: nothing has been run yet.
        ValueError: a notebook was not run to its end.
        RuntimeError: the site could not be made; the message has Sphinx's warnings.
    """
    chosen = [plan for plan in plans.names() if (plans.RUNS / plan).is_dir()]
    if not chosen:
        raise FileNotFoundError(f"there are no executed notebooks in {paths.relative(plans.RUNS)}; run `make reproduce` first")
    source = SITE / "source"
    shutil.rmtree(source, ignore_errors=True)
    (source / "pictures").mkdir(parents=True)
    chapters = {plan: _chapter(plan, source) for plan in chosen}
    (source / "index.md").write_text(_start(chapters))
    (source / "style.css").write_text(STYLE)
    _sphinx(source, SITE / "html")
    return SITE / "html" / "index.html"


def _chapter(plan: str, source: Path) -> list[tuple[str, Page]]:
    """Copy a plan's executed notebooks into the source and return (document, page) of each."""
    documents = []
    for step in plans.steps(plan):
        if not step.output.is_file():
            continue
        page = read(step.output)
        document = f"{plan}/{step.combination}/{step.notebook}"
        notebook = nbformat.read(step.output, as_version=4)
        notebook.metadata.pop("widgets", None)  # the state of progress bars, which would ask for scripts from a network
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
                cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
        target = source / f"{document}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        if page.figure:
            (source / "pictures" / f"{document.replace('/', '-')}.png").write_bytes(page.figure)
        documents.append((document, page))
    return documents


def _is_progress(output: nbformat.NotebookNode) -> bool:
    return output.output_type == "stream" or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def _start(chapters: dict[str, list[tuple[str, Page]]]) -> str:
    """The start page: per plan the headline pictures and tables with links to the notebooks."""
    lines = [
        "# The saliency compendium",
        "",
        "Saliency maps of five papers, trained, explained and measured as one system. Every figure and number on these pages",
        "was made by the notebook that it links to; the command that repeats it stands under each figure.",
        "",
    ]
    for plan, documents in chapters.items():
        content = plans.read(plan)
        lines += [f"## {content['title']}", "", f"Plan `{plan}`: `snakemake --cores 2 --config plans={plan}`", ""]
        for document, page in documents:
            lines += [f"### [{page.title}]({document}.ipynb)", ""]
            if page.figure:
                picture = f"pictures/{document.replace('/', '-')}.png"
                alt = html.escape(page.caption.split("*")[1] if "*" in page.caption else page.title, quote=True)
                lines += [f"```{{image}} {picture}", f":alt: {alt}", f":target: {document}.html", "```", "", page.caption, ""]
            if page.table and document.rsplit("/", 1)[1] != "02_explain":
                lines += ['<div class="scrolled">', page.table, "</div>", ""]
    for plan, documents in chapters.items():
        title = plans.read(plan)["title"]
        lines += ["```{toctree}", ":hidden:", f":caption: {title}", "", *(document for document, _ in documents), "```", ""]
    return "\n".join(lines)


STYLE = """
.scrolled, div.cell_output { overflow-x: auto; }
table.dataframe { border-collapse: collapse; font-size: 0.85rem; margin: 0.5rem 0 1.5rem; }
table.dataframe th, table.dataframe td { padding: 0.2rem 0.8rem; text-align: left; border-bottom: 1px solid #ddd; }
math[display=block] { overflow-x: auto; padding: 0.4rem 0; }
img { max-width: 100%; height: auto; }
"""


def _sphinx(source: Path, target: Path) -> None:
    from sphinx.application import Sphinx  # slow to import, and wanted here alone

    settings = {
        "project": "The saliency compendium",
        "copyright": "the saliency compendium's authors",
        "extensions": ["myst_nb", "saliency_lib.site"],
        "html_theme": "sphinx_book_theme",
        "html_title": "The saliency compendium",
        "html_static_path": [str(source / "style.css")],
        "html_css_files": ["style.css"],
        "html_theme_options": {"use_download_button": False, "use_fullscreen_button": False, "navbar_persistent": []},
        "html_math_renderer": "mathml",
        "html_copy_source": False,
        "html_show_sourcelink": False,
        "nb_execution_mode": "off",
        "nb_merge_streams": True,
        "myst_enable_extensions": ["dollarmath", "amsmath"],
        "suppress_warnings": ["mystnb.unknown_mime_type"],
    }
    warnings = SITE / "warnings.txt"
    with warnings.open("w") as stream:
        app = Sphinx(source, None, target, SITE / "doctrees", "html", settings, status=None, warning=stream, freshenv=True)
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
