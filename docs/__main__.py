"""Make the site in outputs/report/html: `python -m docs`. Write the results page: `python -m docs results`."""

import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from sphinx.cmd.build import build_main

from docs import boards, content, pages
from docs.content import Page
from saliency_lib import paths
from saliency_lib.core.files import locked
from workflow import plans

DOCS = paths.ROOT / "docs"
SITE = paths.OUTPUTS / "report"


def build() -> Path:
    """Make the site from the notebooks in outputs/runs/ and return its start page.

    The new site replaces the last one as a whole. If it cannot be made, the last one stays.

    Raises:
        FileNotFoundError: nothing has been run yet.
        ValueError: a notebook was not run to its end, or a table that it kept was changed.
        RuntimeError: Sphinx reported errors or warnings.
    """
    steps = content.steps()
    run = [content.read(step) for step in steps if step.output.is_file()]
    if not run:
        raise FileNotFoundError(f"there are no executed notebooks in {paths.relative(plans.RUNS)}; run `make reproduce` first")
    SITE.mkdir(parents=True, exist_ok=True)
    target = SITE / "html"
    with locked(SITE.parent / ".locks" / "report", "the site"), _draft(target) as place:
        source, draft = place / "source", place / "html"
        write(run, [step for step in steps if not step.output.is_file()], source)
        sphinx(source, draft)
        if target.exists():
            target.rename(place / "before")
        draft.rename(target)
    return target / "index.html"


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """While active, the site is made in the folder that is given; what killed builds left is cleared away before."""
    for left in SITE.glob(".draft-*"):
        if not target.exists() and (left / "before").is_dir():  # killed after the last site had made way for the new one
            (left / "before").rename(target)
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=SITE, prefix=".draft-") as place:
        yield Path(place)


def write(run: list[Page], missing: list[plans.Step], source: Path) -> None:
    """Write everything that Sphinx makes the site from."""
    (source / "pictures").mkdir(parents=True)
    (source / "api").mkdir()
    shutil.copytree(DOCS / "guide", source / "guide")
    told = re.sub(r"\(\.\./data/measured/\w+\.csv\)", "(measured.md)", (DOCS / "results.md").read_text())
    (source / "results.md").write_text(linked(told, run))
    for name, text in pages.render(run, missing).items():
        (source / name).write_text(text)
    for page in run:
        target = source / f"{page.document}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(readable(page, run), target)
        for figure in page.figures:
            (source / "pictures" / figure["picture"]).write_bytes(figure["png"])


def readable(page: Page, run: list[Page]) -> nbformat.NotebookNode:
    """Return an executed notebook with code folded, links to other pages, and nothing that asks a network for scripts."""
    notebook = nbformat.read(page.step.output, as_version=4)
    notebook.metadata.pop("widgets", None)  # the state of progress bars
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, run, page)
        if cell.cell_type == "code":
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
            captions = [
                content.told_of(output).get("caption") for output in cell.outputs if "image/png" in output.get("data", {})
            ]
            if captions:
                cell.metadata["mystnb"] = {"image": {"alt": captions[0] or page.title}}
    return notebook


def linked(text: str, run: list[Page], page: Page | None = None) -> str:
    """Return Markdown whose links to notebooks lead to their runs, of the same combination if there is one.

    What was not run is left as words without a link.
    """

    def link(found: re.Match) -> str:
        runs = [other for other in run if other.step.notebook == found[2]]
        near = [other for other in runs if page and other.step.output.parent == page.step.output.parent]
        return f"[{found[1]}](/{(near or runs)[0].document}.ipynb)" if runs else found[1]

    return re.sub(r"\[([^\]]*)\]\((?:\.\./notebooks/)?(\w+)\.ipynb\)", link, text)


def _is_progress(output: nbformat.NotebookNode) -> bool:
    return output.output_type == "stream" or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def sphinx(source: Path, target: Path) -> None:
    """Make the HTML pages of a source folder, and the library that one of them uses.

    Raises:
        RuntimeError: Sphinx reported errors or warnings.
    """
    warnings = SITE / "warnings.txt"
    places = ["-c", DOCS, "-d", source.parent / "doctrees", "-w", warnings, source, target]
    if build_main(["--quiet", "--no-color", "--fail-on-warning", *map(str, places)]):
        raise RuntimeError(f"the site has errors, see {paths.relative(warnings)}:\n{warnings.read_text()[:2000]}")
    (target / "_static" / "datatables.js").write_text(boards.datatables())


def main(arguments: list[str]) -> int:
    """Make the site, or write the results page."""
    try:
        if arguments == ["results"]:
            made = DOCS / "results.md"
            made.write_text(pages.results())
        else:
            made = build()
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        print(f"docs: {error}", file=sys.stderr)
        return 1
    print(f"wrote {paths.relative(made)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
