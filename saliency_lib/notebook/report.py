"""What a notebook says of itself: checked parameters, figures with their command, tables, the colophon."""

import hashlib
import io
import json
import re
import shlex
import time
from collections.abc import Iterable, Mapping

import pandas as pd
from IPython.display import HTML, Image, Markdown, display
from matplotlib.figure import Figure

from saliency_lib import paths
from saliency_lib.artefacts import store
from saliency_lib.artefacts.specs import Training, recipes
from saliency_lib.artefacts.store import Artefact
from saliency_lib.core.files import explain_disk_errors, replace_file
from saliency_lib.core.registry import no_such

REPORTED = paths.ROOT / "data" / "reported"


class Run:
    """One execution of a notebook: its parameters, checked, and the command that repeats it.

    Args:
        notebook: its file's name without the ending, for instance "03_deletion".
        namespace: the notebook's `globals()`, right after its parameters were set.

    Raises:
        ValueError: a parameter was passed that the notebook does not declare, or one of another type.
    """

    def __init__(self, notebook: str, namespace: Mapping[str, object]):
        self.notebook = notebook
        self._begun = time.perf_counter()
        self._blessed = json.loads((paths.NOTEBOOKS / "blessed" / f"{notebook}.json").read_text())
        self._defaults = self._blessed["parameters"]
        if "run" not in namespace:  # the first time, when nothing but parameters has been assigned
            for name, value in namespace.items():
                if name not in self._defaults and not name.startswith("_") and isinstance(value, (str, int, float)):
                    raise no_such(f"parameter of {notebook}", name, self._defaults)
        self.parameters = {name: namespace[name] for name in self._defaults}
        for name, value in self.parameters.items():
            self._check_type(name, value)

    def _check_type(self, name: str, value: object) -> None:
        wanted = self._defaults[name]
        if not (type(value) is type(wanted) or wanted is None or (type(wanted) is float and type(value) is int)):
            kind = type(wanted).__name__
            raise ValueError(f"parameter {name} of {self.notebook} must be {kind} like {wanted!r}, got {value!r}")

    @property
    def _changed(self) -> dict[str, object]:
        return {name: value for name, value in self.parameters.items() if value != self._defaults[name]}

    @property
    def command(self) -> str:
        """The shell command that runs the notebook again with these parameters."""
        words = [f"-p {name} {shlex.quote(str(value))}" for name, value in self._changed.items()]
        return " ".join([f"papermill notebooks/{self.notebook}.ipynb out.ipynb", *words])

    def show(self, figure: Figure, caption: str, requires: Iterable[Artefact] = (), name: str = "figure", dpi: int = 160) -> None:
        """Display a figure with its caption, and keep it as PNG and PDF in outputs/figures/ with its provenance.

        Args:
            caption: what is seen, with units and the number of images.
            requires: the artefacts that the figure is drawn from.
            name: of the files, for a second figure of a notebook.
            dpi: pixels per inch of the PNG; photographs take the more space the finer they are.
        """
        needs = [{"folder": paths.relative(item.folder), "digest": item.provenance["digest"]} for item in requires]
        folder = paths.OUTPUTS / "figures" / self._slug()
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=dpi)
        origin = {"caption": caption, "command": self.command, "sha256": hashlib.sha256(png.getvalue()).hexdigest()}
        origin |= {"requires": needs, **store.surroundings()}
        with explain_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / f"{name}.png", lambda file: file.write_bytes(png.getvalue()))
            replace_file(folder / f"{name}.pdf", lambda file: figure.savefig(file, format="pdf"))
            replace_file(
                folder / ("provenance.json" if name == "figure" else f"{name}.json"),
                lambda file: file.write_text(json.dumps(origin, indent=1) + "\n"),
            )
        width = round(figure.get_figwidth() * 100)
        display(Image(png.getvalue(), width=width, alt=caption))
        display(Markdown(f"*{caption}* `{self.command}`"))

    def keep(self, name: str, frame: pd.DataFrame, requires: Iterable[Artefact] = ()) -> Markdown:
        """Keep a table as CSV in outputs/tables/, beside it a JSON file that says what it was made from and how.

        Args:
            name: of the file.
            requires: the artefacts that the table was made from.
        """
        needs = [{"folder": paths.relative(item.folder), "digest": item.provenance["digest"]} for item in requires]
        file = paths.inside(paths.OUTPUTS / "tables" / self._slug(), f"{name}.csv")
        content = frame.to_csv(index=False, float_format="%.6f")
        origin = {"command": self.command, "sha256": hashlib.sha256(content.encode()).hexdigest(), "parameters": self.parameters}
        origin |= {"requires": needs, **store.surroundings()}
        with explain_disk_errors(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, lambda draft: draft.write_text(content))
            replace_file(file.with_suffix(".json"), lambda draft: draft.write_text(json.dumps(origin, indent=1) + "\n"))
        return Markdown(f"Kept as `{paths.relative(file)}`")

    def _slug(self) -> str:
        words = [str(self.parameters[name]) for name in ("dataset", "model") if name in self.parameters]
        changed = [
            f"{name}={value}".replace(" ", "+") for name, value in self._changed.items() if name not in ("dataset", "model")
        ]
        slug = re.sub(r"[^\w.,=+-]+", "_", "-".join([self.notebook, *words, *changed]))
        if len(slug) > 120:  # a file's name has its limits, and what is cut off must not make two runs one
            slug = f"{slug[:111]}-{hashlib.sha256(slug.encode()).hexdigest()[:8]}"
        return paths.inside(paths.OUTPUTS / "figures", slug).name

    def colophon(self, artefacts: Iterable[Artefact] = ()) -> Markdown:
        """Where the numbers above come from: artefacts, commit, versions, device, seconds."""
        state = store.surroundings()
        lines = [f"| `{paths.relative(item.folder)}` | {_made(item)} |" for item in artefacts]
        commit = f"{state['commit'][:12]}{' with changes' if state['dirty'] else ''}" if state["commit"] else "not a checkout"
        versions = ", ".join(f"{name} {number}" for name, number in state["versions"].items() if number)
        return Markdown(
            "\n".join(
                [
                    "| artefact | made |",
                    "|---|---|",
                    *lines,
                    "",
                    f"Commit {commit}; Python {state['python']}; {versions}; this notebook took "
                    f"{time.perf_counter() - self._begun:.0f} s. Again: `{self.command}`",
                ]
            )
        )


def _made(item: Artefact) -> str:
    origin, facts = item.provenance, item.facts
    return f"{origin['created'][:10]} on {facts['device']} in {facts['seconds']:.1f} s, digest {origin['digest'][:8]}"


def table(frame: pd.DataFrame) -> HTML:
    """A table as it is shown in a notebook: numbers with three digits, nothing where there is none, no index."""
    return HTML(frame.to_html(index=False, float_format=lambda number: f"{number:.3f}", na_rep="", border=0))


def with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with each quantity and its bounds (`x`, `x_low`, `x_high`) in one column, `0.123 [0.100, 0.150]`."""
    shown = pd.DataFrame()
    for name in frame.columns:
        if f"{name}_low" in frame:
            bounds = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
            shown[name] = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in bounds]
        elif not name.endswith(("_low", "_high")):
            shown[name] = frame[name]
    return shown


def row(values: Mapping[str, float | str]) -> pd.DataFrame:
    """A table of one row, one column a name."""
    return pd.DataFrame([values])


def rows(values: Mapping[str, Mapping[str, float]], name: str) -> pd.DataFrame:
    """A table of one row a key, which stands in the column `name`, and one column an inner key."""
    return pd.DataFrame([{name: key} | dict(inner) for key, inner in values.items()])


def measured(name: str) -> tuple[pd.DataFrame, dict]:
    """A table of data/measured/ and what its JSON file says of where it comes from.

    Raises:
        ValueError: the table is not the one that the JSON file speaks of.
    """
    file = paths.ROOT / "data" / "measured" / f"{name}.csv"
    origin = json.loads(file.with_suffix(".json").read_text())
    if hashlib.sha256(file.read_bytes()).hexdigest() != origin["sha256"]:
        raise ValueError(f"{paths.relative(file)} was changed after it was measured; run `{origin['command']}` again")
    return pd.read_csv(file), origin


def claimed(paper: str) -> pd.DataFrame:
    """What a paper claims, one row a claim, see `claims.verdicts`; of `released_code`, what its defects are asked.

    Raises:
        ValueError: no such paper.
    """
    table = pd.read_csv(REPORTED / "claims.csv")
    if paper not in set(table["paper"]):
        raise no_such("paper", paper, set(table["paper"]))
    return table[table["paper"] == paper].reset_index(drop=True)


def reported(paper: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a paper claims, and every number that it reports, from data/reported/.

    Raises:
        ValueError: no such paper.
    """
    return claimed(paper), pd.read_csv(REPORTED / f"{paper}.csv")


def settings(training: Training) -> HTML:
    """The settings that a training's recipe comes to, with their source."""
    source = recipes()[training.recipe].get(training.scale, {}).get("source", "")
    known = {name: value for name, value in training.settings.items() if value is not None}
    values = {"recipe": training.recipe, "scale": training.scale, **known, "source": source}
    return HTML(pd.DataFrame(list(values.items()), columns=["setting", "value"]).to_html(index=False, border=0))
