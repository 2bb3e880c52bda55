"""One execution of a notebook: its parameters, its figures and tables with their command, and the blessed run."""

import hashlib
import io
import json
import os
import re
import shlex
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Image, Markdown, display
from matplotlib.figure import Figure
from PIL import Image as Picture

from saliency_lib import paths
from saliency_lib.artefacts import store, tables
from saliency_lib.artefacts.provenance import Artefact
from saliency_lib.core.files import explain_disk_errors, replace_file
from saliency_lib.core.markup import code, plain
from saliency_lib.core.options import no_such
from saliency_lib.core.seals import sealed
from saliency_lib.notebook import blessed
from saliency_lib.notebook.blessed import Blessed, Table
from saliency_lib.notebook.display import table

BLESS = "SALIENCY_BLESS"  # the environment variable with which a run writes the blessed data


class Run:
    """One execution of a notebook: checks its parameters, keeps its figures and tables, compares it with the blessed run.

    Args:
        notebook: its file's name without the ending, for instance "03_deletion".
        namespace: the notebook's `globals()`, right after its parameters were set.

    Raises:
        ValueError: a parameter is not among the defaults, is missing, or is of another type.
        FileNotFoundError: the notebook has no blessed data.
    """

    def __init__(self, notebook: str, namespace: Mapping[str, object]):
        self.notebook = notebook
        self._begun = time.perf_counter()
        self._file = paths.NOTEBOOKS / "blessed" / f"{notebook}.json"
        self._tables: dict[str, Table] = {}
        literals = {
            name: value
            for name, value in namespace.items()
            if not name.startswith("_") and (value is None or isinstance(value, (str, int, float)))
        }
        if os.environ.get(BLESS):
            self._blessed = Blessed(literals, {})
        elif self._file.is_file():
            self._blessed = Blessed.read(self._file)
        else:
            raise FileNotFoundError(
                f"notebook {notebook} has no defaults: {paths.relative(self._file)} is missing; `make bless` writes it"
            )
        self._defaults = self._blessed.parameters
        if "run" not in namespace:  # when the cell runs again, the notebook has assigned other names too
            for name in literals:
                if name not in self._defaults:
                    raise no_such(f"parameter of {notebook}", name, self._defaults)
        for name in self._defaults:
            if name not in namespace:
                raise ValueError(f"parameter {name} of {notebook} is missing; set it in the cell of parameters, {name} = ...")
            self._check_type(name, namespace[name])
        self.parameters: dict[str, Any] = {name: namespace[name] for name in self._defaults}

    def _check_type(self, name: str, value: object) -> None:
        wanted = self._defaults[name]
        kinds = (str, type(None)) if wanted is None else (float, int) if type(wanted) is float else (type(wanted),)
        if type(value) not in kinds:
            words = "str or None" if wanted is None else f"{kinds[0].__name__} like {wanted!r}"
            raise ValueError(f"parameter {name} of {self.notebook} must be {words}, got {value!r}")

    @property
    def _changed(self) -> dict[str, object]:
        return {name: value for name, value in self.parameters.items() if value != self._defaults[name]}

    @property
    def _other(self) -> dict[str, object]:
        """The parameters with which the run cannot be compared with the stored one."""
        return {name: value for name, value in self._changed.items() if name not in blessed.EQUIVALENT}

    def finding(self) -> Markdown:
        """Say at the beginning what the stored run found. A run with other parameters answers where it computes the claims."""
        if os.environ.get(BLESS) or not self._other:  # while it is blessed there is none yet: `workflow.tidy` writes it
            return Markdown(blessed.finding(self._blessed.tables) if self._blessed.tables else "")
        return Markdown("There is no stored run with these parameters. The verdicts stand below, where they are computed.")

    @property
    def command(self) -> str:
        """The shell command that runs the notebook again with these parameters."""
        words = [f"-p {name} {shlex.quote(str(value))}" for name, value in self._changed.items()]
        return " ".join([f"papermill notebooks/{self.notebook}.ipynb out.ipynb", *words])

    def show(self, figure: Figure, caption: str, requires: Iterable[Artefact] = (), name: str = "figure", dpi: int = 160) -> None:
        """Display a figure with its caption, and keep it as PNG and PDF in outputs/figures/ with its provenance.

        Args:
            caption: what the figure shows, with units and the number of images.
            requires: the artefacts that the figure is drawn from.
            name: of the files, for a second figure of a notebook.
            dpi: pixels per inch of the PNG; photographs need more space the finer they are.
        """
        folder = paths.OUTPUTS / "figures" / self._slug()
        png = _png(figure, dpi)
        origin = {"caption": caption, "command": self.command, "sha256": hashlib.sha256(png).hexdigest()}
        text = json.dumps(sealed(origin | self._made_from(requires)), indent=1) + "\n"
        with explain_disk_errors(folder):
            paths.made(folder)
            replace_file(folder / f"{name}.png", lambda file: file.write_bytes(png))
            replace_file(folder / f"{name}.pdf", lambda file: figure.savefig(file, format="pdf"))
            origin_file = folder / ("provenance.json" if name == "figure" else f"{name}.json")
            replace_file(origin_file, lambda file: file.write_text(text))
        facts = {"caption": caption, "command": self.command, "file": f"{folder.name}/{name}"}
        width = round(figure.get_figwidth() * 100)
        display(Image(png, width=width, alt=caption), metadata={"compendium": facts})
        display(Markdown(f"*{plain(caption)}* {code(self.command)}"))

    def keep(self, name: str, frame: pd.DataFrame, requires: Iterable[Artefact] = (), float_format: str = "%.6f") -> None:
        """Keep a table as CSV in outputs/tables/, beside it a JSON file that says what it was made from and how.

        Args:
            name: of the file.
            requires: the artefacts that the table was made from.
            float_format: how numbers with a fraction are written.
        """
        file = paths.inside(paths.OUTPUTS / "tables" / self._slug(), f"{name}.csv")
        origin = {"command": self.command, "parameters": self.parameters, **self._made_from(requires)}
        tables.keep(file, frame, origin, float_format)
        facts = {"table": f"{file.parent.name}/{name}", "command": self.command}
        display(Markdown(f"Kept as {code(paths.relative(file))}"), metadata={"compendium": facts})

    @staticmethod
    def _made_from(requires: Iterable[Artefact]) -> dict[str, Any]:
        needs = [{"folder": paths.relative(item.folder), "digest": item.provenance["digest"]} for item in requires]
        return {"requires": needs, **store.surroundings()}

    def _slug(self) -> str:
        words = [str(self.parameters[name]) for name in ("dataset", "model") if name in self.parameters]
        changed = [
            f"{name}={value}".replace(" ", "+") for name, value in self._changed.items() if name not in ("dataset", "model")
        ]
        slug = re.sub(r"[^\w.,=+-]+", "_", "-".join([self.notebook, *words, *changed]))
        if len(slug) > 120:  # file names have a largest length, and what is cut off must not make two runs one
            slug = f"{slug[:111]}-{hashlib.sha256(slug.encode()).hexdigest()[:8]}"
        return paths.inside(paths.OUTPUTS / "figures", slug).name

    def table(self, frame: pd.DataFrame, name: str, *, most: int | None = None, **comparison: Any) -> HTML:
        """Return a table as a notebook shows it, and remember it for the comparison with the blessed run.

        Args:
            name: of the table, one per notebook.
            most: rows that are shown; left out, all.
            comparison: options of `remember`.
        """
        self.remember(frame, name, **comparison)
        return table(frame.head(most or len(frame)))

    def remember(
        self, frame: pd.DataFrame, name: str, *, images: int | None = None, line: float = 0.0, uncompared: Iterable[str] = ()
    ) -> None:
        """Remember a table for the comparison with the blessed run.

        A number may differ by .01 or by 1.5 images, whichever is more; a number above 1 by that share of its size.

        Args:
            name: of the table, one per notebook.
            images: over which the numbers are means; left out, the least of the column `images`, or the parameter `images`.
            line: the value that decides the verdicts of the table, see `blessed.Table`.
            uncompared: columns that are not compared, for instance because a tie decides them.
        """
        counted = pd.to_numeric(frame["images"], errors="coerce").min() if "images" in frame else self.parameters.get("images")
        self._tables[name] = Table.of(frame, blessed.tolerance(images or counted), line, uncompared)

    def agreement(self) -> Markdown:
        """Say whether the tables agree with those of the blessed run, or write them if SALIENCY_BLESS is set."""
        changed = self._other
        if changed:
            words = ", ".join(f"{name}={value}" for name, value in changed.items())
            differs = "differs" if len(changed) == 1 else "differ"
            return Markdown(f"Not compared: {plain(words)} {differs} from the blessed run.")
        if os.environ.get(BLESS):
            self._blessed = Blessed(self._defaults, self._tables)
            self._blessed.write(self._file)
        found = blessed.differences(self._tables, self._blessed.tables)
        return Markdown(blessed.summary(self._blessed.tables, found))

    def colophon(self, artefacts: Iterable[Artefact] = ()) -> Markdown:
        """Return where the numbers come from: artefacts, commit, versions, device, seconds."""
        state = store.surroundings()
        lines = [f"| {code(paths.relative(item.folder), cell=True)} | {plain(_made(item))} |" for item in artefacts]
        commit = f"{state['commit'][:12]}{' with changes' if state['dirty'] else ''}" if state["commit"] else "not a checkout"
        versions = ", ".join(f"{name} {number}" for name, number in state["versions"].items() if number)
        seconds = time.perf_counter() - self._begun
        words = f"Commit {commit}; Python {state['python']}; {versions}; this notebook took {seconds:.0f} s."
        return Markdown(
            "\n".join(["| artefact | made |", "|---|---|", *lines, "", f"{plain(words)} Again: {code(self.command)}"])
        )


def _png(figure: Figure, dpi: int) -> bytes:
    """Return a figure as PNG; one of lines and words with a palette, so that it takes a third.

    The palette has the colours rounded to multiples of 5, by two levels of 255 at most. A picture that has more than 256 of them
    then is kept as it is.
    """
    content, small = io.BytesIO(), io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    levels = np.asarray(Picture.open(content).convert("RGB"))
    picture = Picture.fromarray(((levels.astype(int) + 2) // 5 * 5).astype(np.uint8))
    if picture.getcolors(256) is None:
        return content.getvalue()
    picture.quantize(256, dither=Picture.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def _made(item: Artefact) -> str:
    origin, facts = item.provenance, item.facts
    engine = f" by {facts['engine']}" if facts.get("engine", "eager") != "eager" else ""
    return f"{origin['created'][:10]} on {facts['device']}{engine} in {facts['seconds']:.1f} s, digest {origin['digest'][:8]}"
