"""What the report shows: the five papers, the executed notebooks with their figures, the claims with what was found."""

import base64
import csv
import hashlib
import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import nbformat

from saliency_lib import paths
from workflow import plans

NOT_RUN = "not run"


@dataclass(frozen=True)
class Paper:
    """One of the five papers, and where in the compendium it is dealt with."""

    name: str  # as in the column `paper` of data/reported/claims.csv; its notebook is 04_<name>
    short: str
    authors: str
    year: str
    title: str
    venue: str
    link: str
    brings: str
    stages: tuple[str, ...]  # the notebooks of the earlier stages whose trainings, maps and metrics its claims are about


PAPERS = (
    Paper(
        "active_gradients",
        "Active gradients",
        "Llorente, Boal, Sánchez-Úbeda",
        "2023",
        "A matter of attitude: focusing on positive and active gradients to boost saliency maps",
        "arXiv:2309.12913",
        "https://arxiv.org/abs/2309.12913",
        "Maps from the signs of gradients across classes.",
        ("01_train", "02_explain", "03_allegiance"),
    ),
    Paper(
        "guided_nonlinearity",
        "Guided non-linearity",
        "Kwon, Koo, Cho",
        "2020",
        "Improving explainability of integrated gradients with guided non-linearity",
        "International Conference on Pattern Recognition (ICPR), pages 385-391",
        "https://aurora.ajou.ac.kr/handle/2018.oak/36581",
        "A backward rule inside integrated gradients.",
        ("01_train", "02_explain", "03_deletion", "03_insertion", "03_sanity"),
    ),
    Paper(
        "guided_training",
        "Guided training",
        "Ismail, Corrada Bravo, Feizi",
        "2021",
        "Improving deep learning interpretability by saliency guided training",
        "arXiv:2111.14338",
        "https://arxiv.org/abs/2111.14338",
        "Training with masked inputs, for images and time series.",
        ("01_train", "02_explain", "03_masked_accuracy", "03_time_series"),
    ),
    Paper(
        "saliency_benchmark",
        "Saliency benchmark",
        "Parola et al.",
        "",
        "saliency-benchmark",
        "repository with stored results, to which no paper is attached",
        "https://github.com/MarcoParola/saliency-benchmark",
        "Grad-CAM, RISE, SIDU and LIME by deletion and insertion.",
        ("01_train", "02_explain", "03_deletion", "03_insertion"),
    ),
    Paper(
        "score_matching",
        "Score matching",
        "Srinivas, Fleuret",
        "2021",
        "Rethinking the role of gradient-based attribution methods for model interpretability",
        "arXiv:2006.09128",
        "https://arxiv.org/abs/2006.09128",
        "Regularisers that make a classifier a better density of its data.",
        ("01_train", "02_explain", "03_pixel_perturbation", "03_sample_quality", "03_shift_invariance"),
    ),
)
RELEASED = "released_code"  # in place of a paper's name: the conclusions that defects of released codes could change
RELEASED_NOTEBOOK = "05_released_against_corrected"


@dataclass(frozen=True)
class Picture:
    """A figure of an executed notebook: its PNG, and what is known of how it was made."""

    file: str
    png: bytes
    caption: str
    command: str
    headline: bool
    origin: dict | None  # the JSON file that `Run.show` keeps beside it


@dataclass(frozen=True)
class Page:
    """One executed notebook: its place in the site and what the chapters show of it."""

    step: plans.Step
    title: str
    pictures: tuple[Picture, ...] = ()
    tables: str = ""  # its outputs tagged `table`, HTML
    kept: dict[str, Path] = field(default_factory=dict)  # the tables that it kept in outputs/tables/, by name

    @property
    def document(self) -> str:
        """The page's path in the site, without its ending."""
        return f"{self.step.plan}/{self.step.combination}/{self.step.notebook}"

    @property
    def url(self) -> str:
        """The page's address, relative to the start page."""
        return f"{quote(self.document)}.html"

    @property
    def setting(self) -> str:
        """The plan's title and the swept parameters, to tell two runs of one notebook apart."""
        title = plans.read(self.step.plan)["title"]
        return title if self.step.combination == "run" else f"{title}, {self.step.combination}"


@dataclass(frozen=True)
class Finding:
    """What we found of a claim, from a kept table; `way` is empty but where the same was asked twice."""

    verdict: str
    ours: str = ""
    images: str = ""
    way: str = ""
    command: str = ""  # that makes it, where it is missing
    origin: dict | None = None  # the JSON file of the table that it was read from


@dataclass(frozen=True)
class Claim:
    """A row of data/reported/claims.csv with what we found."""

    id: str
    paper: str
    statement: str
    where: str
    reported: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Measured:
    """A table of data/measured/: its rows as they were written, and what its JSON file says of where it comes from."""

    name: str
    rows: list[dict[str, str]]
    origin: dict

    @property
    def notebook(self) -> str:
        """The notebook that kept it; empty where another program did."""
        found = re.match(r"papermill notebooks/(\w+)\.ipynb ", self.origin["command"])
        return found[1] if found else ""

    @property
    def setting(self) -> str:
        """On what it was measured, and what of the training and the fill is not the notebook's default."""
        known, usual = self.origin["parameters"], plans.defaults(self.notebook)
        changed = [name for name in ("scale", "recipe", "fill") if name in known and known[name] != usual.get(name)]
        named = [f"{name} {known[name]}" for name in changed]
        return ", ".join([known["dataset"], known["model"], f"{known['images']} images", *named])

    @property
    def note(self) -> str:
        """What must be known of its command; empty where it makes the table again."""
        if set(self.origin["parameters"]) == set(plans.defaults(self.notebook)):
            return ""
        return f"The notebook had other parameters then; its command belongs to the commit {self.origin['commit'][:12]}."


def read(step: plans.Step, origins: dict[tuple[str, str], dict]) -> Page:
    """Title, figures, headline tables and kept tables of an executed notebook.

    Args:
        origins: what is known of figures, as `origins` gives it.

    Raises:
        ValueError: the notebook was not run to its end, or a cell of it failed.
    """
    notebook = nbformat.read(step.output, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    unfinished = any(cell.execution_count is None for cell in code)
    if unfinished or any(output.output_type == "error" for cell in code for output in cell.outputs):
        name = paths.relative(step.output)
        remedy = f"wait for it if it is being run; else delete it and run `{command_of(step.plan, step.scale)}`"
        raise ValueError(f"{name} was not run to its end; {remedy}")
    title = next(line[2:] for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("# "))
    tables = [output.get("data", {}).get("text/html", "") for cell in code if "table" in tags(cell) for output in cell.outputs]
    shown = [(figure, "headline" in tags(cell)) for cell in code for figure in figures(cell)]
    pictures = tuple(
        Picture(f"{step.plan}-{step.combination}-{step.notebook}-{number}.png", *figure, headline, _origin(figure, origins))
        for number, (figure, headline) in enumerate(shown)
    )
    return Page(step, title, pictures, "".join(tables), _kept(code))


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def figures(cell: nbformat.NotebookNode) -> list[tuple[bytes, str, str]]:
    """The figures of a cell: PNG, caption and command, which follow it as `Run.show` displays them."""
    said = [output.get("data", {}) for output in cell.get("outputs", [])]
    found = []
    for data, after in itertools.zip_longest(said, said[1:], fillvalue={}):
        if "image/png" in data:
            parts = re.fullmatch(r"\*(.*)\* `(.*)`", after.get("text/markdown", ""), re.DOTALL)
            found.append(
                (base64.b64decode(data["image/png"]), *(parts.groups() if parts else ("A figure without a caption", "")))
            )
    return found


def origins() -> dict[tuple[str, str], dict]:
    """What `Run.show` kept of each figure in outputs/figures/, by the digest of its PNG and its command."""
    found = [json.loads(file.read_text()) for file in sorted((paths.OUTPUTS / "figures").glob("*/*.json"))]
    return {(one["sha256"], one["command"]): one for one in found if "sha256" in one}


def _origin(figure: tuple[bytes, str, str], origins: dict[tuple[str, str], dict]) -> dict | None:
    """What was kept of this very picture; None where another run has taken its place since."""
    png, _, command = figure
    return origins.get((hashlib.sha256(png).hexdigest(), command))


def _kept(code: list[nbformat.NotebookNode]) -> dict[str, Path]:
    """The tables in outputs/tables/ that a notebook says it kept, by name."""
    said = [output.get("data", {}).get("text/markdown", "") for cell in code for output in cell.outputs]
    found = [parts for text in said if (parts := re.fullmatch(r"Kept as `.*?([^/`]+)/([^/`]+)\.csv`", text))]
    return {parts[2]: paths.inside(paths.OUTPUTS / "tables", f"{parts[1]}/{parts[2]}.csv") for parts in found}


def kept(file: Path) -> tuple[list[dict[str, str]], dict]:
    """The rows of a kept table, as they were written, and what its JSON file says of where it comes from.

    Raises:
        ValueError: the table is not the one that the JSON file speaks of.
    """
    origin = json.loads(file.with_suffix(".json").read_text())
    if hashlib.sha256(file.read_bytes()).hexdigest() != origin["sha256"]:
        raise ValueError(f"{paths.relative(file)} was changed after it was kept; run `{origin['command']}` again")
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream)), origin


def measured() -> list[Measured]:
    """The tables of data/measured/ that a notebook kept, by name.

    Raises:
        ValueError: a kept table was changed.
    """
    tables = [Measured(file.stem, *kept(file)) for file in sorted((paths.ROOT / "data" / "measured").glob("*.csv"))]
    return [table for table in tables if table.notebook]


def claims(pages: list[Page]) -> list[Claim]:
    """All rows of data/reported/claims.csv, each with what the first run of its notebook found.

    Raises:
        ValueError: a kept table was changed.
    """
    rows = _claimed()
    notebooks = {row["paper"]: notebook_of(row["paper"]) for row in rows}
    runs = {name: next((page for page in pages if page.step.notebook == notebook), None) for name, notebook in notebooks.items()}
    result = []
    for row in rows:
        page = runs[row["paper"]]
        findings = _of_run(row, page) or (Finding(NOT_RUN, command=command_for(notebooks[row["paper"]])),)
        result.append(_claim(row, findings))
    return result


def claims_measured(tables: list[Measured], paper: str) -> list[tuple[str, list[Claim]]]:
    """On what a paper's claims were measured once, and what was found, for each kept table of its verdicts."""
    own = [one for one in tables if one.notebook == notebook_of(paper) and one.name.endswith("_verdicts")]
    rows = [row for row in _claimed() if row["paper"] == paper]
    unknown = (Finding(NOT_RUN),)  # a claim that the table does not have
    return [(one.setting, [_claim(row, _findings(row, one.rows, one.origin) or unknown) for row in rows]) for one in own]


def _claimed() -> list[dict[str, str]]:
    with (paths.ROOT / "data" / "reported" / "claims.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _claim(row: dict[str, str], findings: tuple[Finding, ...]) -> Claim:
    return Claim(row["id"], row["paper"], row["statement"], row["where"], row["reported"], findings)


def _of_run(row: dict[str, str], page: Page | None) -> tuple[Finding, ...]:
    """What the table `verdicts` that the run kept says of a claim; nothing where there is no such table or row."""
    file = page.kept.get("verdicts") if page else None
    if file is None or not file.is_file() or not file.with_suffix(".json").is_file():
        return ()
    return _findings(row, *kept(file))


def _findings(row: dict[str, str], table: list[dict[str, str]], origin: dict) -> tuple[Finding, ...]:
    """What a kept table of verdicts says of a claim; nothing where there is no such row."""
    name, key = (row["id"], "id") if row["paper"] == RELEASED else (row["statement"], "claim")
    found = next((one for one in table if one[key] == name), None)
    if found is None:
        return ()
    if row["paper"] != RELEASED:
        return (Finding(found["verdict"], found["ours"], found["images"], origin=origin),)
    images = str(origin["parameters"].get("images", ""))
    ways = {"as released": ("so", "released"), "corrected": ("now", "corrected")}
    return tuple(Finding(found[verdict], found[ours], images, way, origin=origin) for way, (verdict, ours) in ways.items())


def notebook_of(paper: str) -> str:
    """The notebook that tests a paper's claims, or, for `released_code`, those of the released codes."""
    return RELEASED_NOTEBOOK if paper == RELEASED else f"04_{paper}"


def steps() -> list[plans.Step]:
    """Every step of every plan at every scale that it has."""
    return [step for plan in plans.names() for scale in plans.scales(plan) for step in plans.steps(plan, scale)]


def command_of(plan: str, scale: str = "embedded") -> str:
    """The shell command that runs a plan."""
    return f"snakemake --cores 2 --config plans={plan}{'' if scale == 'embedded' else f' scale={scale}'}"


def command_for(notebook: str) -> str:
    """The shell command for a notebook whose results are missing: the run of the first plan that has it, by itself."""
    step = next((step for step in steps() if step.notebook == notebook), None)
    if step is None:
        return f"papermill notebooks/{notebook}.ipynb out.ipynb"
    again = " --force" if step.output.is_file() else ""
    return command_of(step.plan, step.scale).replace(" --cores", f" {paths.relative(step.output)}{again} --cores", 1)
