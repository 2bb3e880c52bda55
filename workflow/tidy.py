"""Leave in an executed notebook what its reader needs: no progress bars, nothing of when and where it ran."""

import sys
from pathlib import Path

import nbformat

OF_RUNS = ("papermill", "language_info", "execution", "widgets")  # keys of metadata


def tidy(file: Path) -> None:
    """Drop from an executed notebook, which is replaced, the progress bars and the metadata of its run."""
    notebook = nbformat.read(file, as_version=4)
    for part in (notebook, *notebook.cells):
        part.metadata = {key: value for key, value in part.metadata.items() if key not in OF_RUNS}
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if "%|" not in output.get("data", {}).get("text/plain", "")]
    nbformat.write(notebook, file)


if __name__ == "__main__":
    tidy(Path(sys.argv[1]))
