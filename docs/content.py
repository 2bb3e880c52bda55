"""Read executed notebooks, kept tables and papers.yaml into plain data for the templates."""

import base64
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from saliency_lib import paths
from saliency_lib.artefacts import tables
from saliency_lib.core.seals import unsealed
from saliency_lib.notebook.blessed import EQUIVALENT, Blessed
from workflow import collect, plans

NOT_RUN = "not run"
RELEASED = "released_code"  # in the column `paper` of claims.csv: conclusions that defects of released codes could change
SITE = yaml.safe_load((paths.ROOT / "docs" / "site.yaml").read_text())
PAPERS = yaml.safe_load((paths.ROOT / "docs" / "papers.yaml").read_text())
CHAPTERS = {one["key"]: one | {"notebooks": f"04_{one['key']}", "claims": one["key"]} for one in PAPERS} | SITE["chapters"]


@dataclass(frozen=True)
class Page:
    """An executed notebook.

    Args:
        figures: what the notebook says of each figure (`caption`, `command`), the bytes of its `png` and their name in the site
            (`picture`), whether it is the `headline`, and the JSON file beside it (`origin`, None if another run replaced it).
        numbers: its outputs tagged `table`, HTML.
        kept: the tables that it kept in outputs/tables/, by name.
    """

    step: plans.Step
    title: str
    figures: list[dict[str, Any]]
    numbers: str
    kept: dict[str, Path]

    @property
    def document(self) -> str:
        """The page's path in the site, without ending."""
        return f"{self.step.plan}/{self.step.combination}/{self.step.notebook}"

    @property
    def setting(self) -> str:
        """The plan's title and the swept parameters, which tell two runs of one notebook apart."""
        words = [f"{'network' if name == 'model' else name.replace('_', ' ')} {value}" for name, value in self.step.swept.items()]
        scale = [] if self.step.scale == "embedded" else [f"at the {self.step.scale}'s scale"]
        return ", ".join([plans.read(self.step.plan).title, *words, *scale])


@dataclass(frozen=True)
class Verdicts:
    """The claims of a paper with what one run found, or with what is to be run.

    Args:
        claims: the rows of data/reported/claims.csv, each with `findings`: per way of asking, `ours` and `verdict`; and with
            `trainings` (how many agree) and `measured_on`, empty if the table does not say.
        setting: what was measured on what.
        origin: the JSON file of the table of verdicts; None if there is no table.
        command: the shell command that makes the table; empty if there is one.
        measured: whether the table is one of data/measured/.
    """

    paper: str
    claims: list[dict[str, Any]]
    setting: str = ""
    origin: dict[str, Any] | None = None
    command: str = ""
    measured: bool = False

    @property
    def ways(self) -> list[str]:
        """How each claim was tested: once, with an empty name, or as released and corrected."""
        return list(self.claims[0]["findings"])

    def words(self, way: str) -> list[str]:
        """Return the verdicts of one way, one per claim."""
        return [claim["findings"][way]["verdict"] for claim in self.claims]


@dataclass(frozen=True)
class Measured:
    """A table of data/measured/ that a notebook kept: its rows as text, and its JSON file."""

    name: str
    rows: list[dict[str, str]]
    origin: dict[str, Any]

    @property
    def notebook(self) -> str:
        """The notebook that kept it; empty if another program did."""
        program, source, *_ = shlex.split(self.origin["command"])
        return Path(source).stem if program == "papermill" else ""

    @property
    def setting(self) -> str:
        """On what it was measured, and what differs from the notebook's defaults in the training and the fill."""
        known, usual = self.origin["parameters"], plans.defaults(self.notebook)
        changed = [name for name in ("scale", "recipe", "fill") if name in known and known[name] != usual.get(name)]
        named = [f"{name} {known[name]}" for name in changed]
        return ", ".join([known["dataset"], known.get("model") or known["models"], f"{known['images']} images", *named])

    @property
    def older(self) -> bool:
        """Whether the notebook has got or lost parameters since it made the table, except those that change roundings alone."""
        return bool((set(self.origin["parameters"]) ^ set(plans.defaults(self.notebook))) - {*EQUIVALENT})


def read(step: plans.Step) -> Page:
    """Read the title, the figures, the numbers and the kept tables of an executed notebook.

    Raises:
        ValueError: the notebook was not run to its end, or one of its cells failed.
    """
    notebook = nbformat.read(step.output, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [(output, cell.metadata.get("tags", [])) for cell in code for output in cell.outputs]
    if any(cell.execution_count is None for cell in code) or any(output.output_type == "error" for output, _ in outputs):
        raise ValueError(
            f"{paths.relative(step.output)} was not run to its end; wait for it if it is being run; "
            f"else delete it and run `{command_of(step.plan, step.scale)}`"
        )
    title = next(line[2:] for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("# "))
    numbers = "".join(output.get("data", {}).get("text/html", "") for output, own in outputs if "table" in own)
    figures, kept = [], {}
    for output, own in outputs:
        facts = told_of(output)
        if "file" in facts:
            png = base64.b64decode(output["data"]["image/png"])
            picture = f"{step.plan}-{step.combination}-{step.notebook}-{len(figures)}.png"
            known = {"picture": picture, "png": png, "headline": "headline" in own, "origin": _origin(facts["file"], png)}
            figures.append(facts | known)
        if "table" in facts:
            kept[Path(facts["table"]).name] = paths.inside(paths.OUTPUTS / "tables", f"{facts['table']}.csv")
    return Page(step, title, figures, numbers, kept)


def told_of(output: nbformat.NotebookNode) -> dict[str, str]:
    """Return what a notebook says of an output: `caption`, `command`, `file` of a figure; `table`, `command` of a kept table."""
    return dict(output.get("metadata", {}).get("compendium", {}))


def _origin(name: str, png: bytes) -> dict[str, Any] | None:
    """Return the JSON file beside a figure in outputs/figures/; None if it is of another picture, or was changed."""
    kept = paths.inside(paths.OUTPUTS / "figures", name)
    file = kept.with_name("provenance.json" if kept.name == "figure" else f"{kept.name}.json")
    try:
        origin = unsealed(file.read_text())
    except (OSError, ValueError):
        return None
    return origin if origin.get("sha256") == hashlib.sha256(png).hexdigest() else None


def steps() -> list[plans.Step]:
    """Return every step of every plan at every scale that it has."""
    return [step for plan in plans.names() for scale in plans.scales(plan) for step in plans.steps(plan, scale)]


def measured() -> list[Measured]:
    """Return the tables of data/measured/ that a notebook kept, by name, without ranks by image, which are for scripts.

    Raises:
        ValueError: a table was changed after it was kept.
    """
    files = sorted(file for file in (paths.ROOT / "data" / "measured").glob("*.csv") if not file.stem.endswith("_ranks"))
    return [table for table in (Measured(file.stem, *tables.read_rows(file)) for file in files) if table.notebook]


def asked(*plan_names: str) -> list[dict[str, Any]]:
    """Return what plans keep in data/measured/, whether it is measured yet or not.

    Returns:
        per name that the tables get: its `name`, `networks`, `dataset`, `scale` and number of `images`; the `title` of its plan,
        the `command` that measures it and the `hours` that the plan takes on two cores; and `tables`, the rows of each table by
        its own name, empty if there is none yet.
    """
    found = []
    for plan in plan_names:
        for name, step in collect.kept(plan).items():
            files = sorted((paths.ROOT / "data" / "measured").glob(f"{name}_*.csv"))
            own = {file.stem.removeprefix(f"{name}_"): tables.measured(file.stem)[0].to_dict("records") for file in files}
            facts = {key: step.in_full[key] for key in ("dataset", "scale", "images")}
            facts["networks"] = step.in_full.get("models", step.in_full.get("model")).split()
            how = {"command": f"make measured MEASURED={plan}", "hours": plans.read(plan).hours, "title": plans.read(plan).title}
            found.append({"name": name, **facts, **how, "tables": own})
    return found


def verdicts(paper: str, pages: Sequence[Page], kept: Sequence[Measured]) -> list[Verdicts]:
    """Return the verdicts on a paper's claims: of every run of its notebook, and of every table measured once.

    The first is that of the first run. If there is no such run, it says which command makes it.

    Raises:
        ValueError: a kept table was changed.
    """
    notebook = notebook_of(paper)
    found = []
    for page in (page for page in pages if page.step.notebook == notebook):
        file = page.kept.get("verdicts")
        if file and file.is_file() and file.with_suffix(".json").is_file():
            found.append(_verdicts(paper, page.setting, *tables.read_rows(file)))
    once = [one for one in kept if one.notebook == notebook and one.name.endswith("_verdicts")]
    return [
        *(found or [_verdicts(paper, "", [], None, command=command_for(notebook))]),
        *(_verdicts(paper, one.setting, one.rows, one.origin, measured=True) for one in once),
    ]


def _verdicts(paper: str, setting: str, rows: list[dict[str, str]], origin: dict[str, Any] | None, **facts: Any) -> Verdicts:
    """Join the claims of a paper with the rows of a table of verdicts; a claim without a row was not run.

    A table that was measured before claims had their present wording has them in the same order.
    """
    twice = {"as released": ("released", "so"), "corrected": ("corrected", "now")}
    columns = twice if paper == RELEASED else {"": ("ours", "verdict")}
    name, known = "id" if paper == RELEASED else "claim", tables.claimed(paper).to_dict("records")
    named = [claim["id" if paper == RELEASED else "statement"] for claim in known]
    older = facts.get("measured") and len(rows) == len(known) and not {row[name] for row in rows} & set(named)
    by_name = dict(zip(named, rows, strict=True)) if older else {row[name]: row for row in rows}
    images = origin["parameters"].get("images", "") if origin else ""
    claims = []
    for claim, text in zip(known, named, strict=True):
        row = by_name.get(text, {})
        findings = {way: {"ours": row.get(ours, ""), "verdict": row.get(word, NOT_RUN)} for way, (ours, word) in columns.items()}
        told = {"trainings": row.get("seeds", ""), "measured_on": row.get("setting", "")}
        claims.append(claim | told | {"images": row.get("images", images if row else ""), "findings": findings})
    return Verdicts(paper, claims, setting, origin, **facts)


def blessed(notebook: str, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table of a notebook's stored run; none if the notebook has no such table."""
    tables_of = Blessed.of(notebook).tables
    columns = tables_of[table].columns if table in tables_of else {}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def notebook_of(paper: str) -> str:
    """Return the notebook that tests a paper's claims or, for `released_code`, those of released codes."""
    return next(facts["notebooks"] for facts in CHAPTERS.values() if facts.get("claims") == paper)


def chapter_of(notebook: str) -> str:
    """Return the chapter below which the runs of a notebook are listed."""
    found = (name for name, facts in CHAPTERS.items() if "notebooks" in facts and notebook.startswith(facts["notebooks"]))
    return next(found, "plans")


def command_of(plan: str, scale: str = "embedded") -> str:
    """Return the shell command that runs a plan."""
    return f"snakemake --cores 2 --config plans={plan}{'' if scale == 'embedded' else f' scale={scale}'}"


def command_for(notebook: str) -> str:
    """Return the shell command that makes the results of a notebook, in the plan of its name or else the first that has it."""
    own = sorted((step for step in steps() if step.notebook == notebook), key=lambda step: step.plan != notebook[3:])
    step = next(iter(own), None)
    if step is None:
        return f"papermill notebooks/{notebook}.ipynb out.ipynb"
    again = " --force" if step.output.is_file() else ""
    return command_of(step.plan, step.scale).replace(" --cores", f" {paths.relative(step.output)}{again} --cores", 1)
