"""Leave in an executed notebook what its reader needs: no progress bars, nothing of when and where it ran."""

import sys
from pathlib import Path

import nbformat

from saliency_lib.notebook.blessed import Blessed, finding

FINDING = "run.finding()"
MARKDOWN = "<IPython.core.display.Markdown object>"
OF_RUNS = ("papermill", "language_info", "execution", "widgets")  # keys of metadata


def tidy(file: Path) -> None:
    """Drop from an executed notebook, which is replaced, the progress bars and the metadata of its run."""
    notebook = nbformat.read(file, as_version=4)
    for part in (notebook, *notebook.cells):
        part.metadata = {key: value for key, value in part.metadata.items() if key not in OF_RUNS}
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if "%|" not in output.get("data", {}).get("text/plain", "")]
        if cell.source == FINDING:  # of this run, which the notebook did not know when it began
            text = finding(Blessed.of(file.stem).tables)
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/markdown": text, "text/plain": MARKDOWN})]
    nbformat.write(notebook, file)


if __name__ == "__main__":
    tidy(Path(sys.argv[1]))
