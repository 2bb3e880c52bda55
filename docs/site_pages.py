"""The text of the report's pages: what was read from executed notebooks, written as Markdown with tables in HTML."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

from docs import site_content
from docs.site_content import (
    NOT_RUN,
    PAPERS,
    RELEASED,
    RELEASED_NOTEBOOK,
    Claim,
    Finding,
    Measured,
    Page,
    Paper,
    Picture,
    command_for,
    command_of,
    notebook_of,
)
from workflow import plans

MARKS = {"reproduced": "✓", "not reproduced": "✗", "not tested at this scale": "–", NOT_RUN: "○"}
CHAPTERS = {paper.name: paper.short for paper in PAPERS} | {
    "released_against_corrected": "Released against corrected",
    "leaderboard": "Leaderboard",
    "gallery": "Gallery",
    "benchmarks": "Benchmarks",
    "metrics": "Metrics",
    "measured": "Measured once",
    "cite": "How to cite",
    "plans": "Plans",
}


def chapter_of(notebook: str) -> str:
    """The chapter below which a notebook's pages stand in the sidebar."""
    stage, name = notebook.split("_", 1)
    by_stage = {"02": "gallery", "03": "metrics"}
    return name if stage in ("04", "05") and name in CHAPTERS else by_stage.get(stage, "plans")


def start(claims: Sequence[Claim], pages: Sequence[Page], missing: Sequence[plans.Step], tables: Sequence[Measured] = ()) -> str:
    """The start page.

    Args:
        claims: all of data/reported/claims.csv.
        pages: every executed notebook.
        missing: what the plans have and was not run.
        tables: what was measured once.
    """
    lines = [
        "# The saliency compendium",
        "",
        "Five papers on saliency maps, implemented as one system: trained, explained and measured on the same images, and",
        "asked whether what they claim comes out. Every number and figure on these pages was made by the notebook that it",
        "links to, and the command that repeats it stands beside it.",
        "",
        "## Verdicts",
        "",
        _counts(claims, tables),
        "",
        "**Ours** is the mean difference between the two sides of a claim over the same images, above 0 where it points the way",
        "that is claimed, with its 95 % bootstrap interval; **n** is the number of images or samples. A claim is *reproduced*",
        "where the interval lies above 0 and Wilcoxon's test, after Holm over the paper's claims, gives p < 0.05. A verdict",
        "speaks of the images and the network that it was measured on, and of no others.",
        "",
        verdicts(claims, pages, "", anchors=False, titles=True),
        "",
        "## The papers",
        "",
        _cards(claims, pages),
        "",
    ]
    for chapter, notebook in (("leaderboard", "05_leaderboard"), ("gallery", "02_explain")):
        lines += [f"## {CHAPTERS[chapter]}", ""]
        found = _headline(pages, notebook)
        lines += [figure(*found), ""] if found else [f"Not run yet: `{command_for(notebook)}`.", ""]
        lines += [f"More in the chapter [{CHAPTERS[chapter]}]({chapter}.md).", ""]
    rows = []
    for plan, scale in _batches(pages, missing):
        ran = sum((page.step.plan, page.step.scale) == (plan, scale) for page in pages)
        left = sum((step.plan, step.scale) == (plan, scale) for step in missing)
        link = f'<a href="plans.html#plan-{quote(plan)}">{escape(plans.read(plan)["title"])}</a>'
        if ran or scale == "embedded":
            rows.append((link + _at(scale), f"{ran} of {ran + left}", _code(command_of(plan, scale))))
    lines += ["## What was run", "", table(("plan", "notebooks run", "command"), rows), ""]
    entries = [f"{title} <{name}>" for name, title in CHAPTERS.items()]
    return "\n".join([*lines, "```{toctree}", ":hidden:", ":titlesonly:", "", *entries, "```", ""])


def paper_chapter(
    paper: Paper, claims: Sequence[Claim], pages: Sequence[Page], missing: Sequence[plans.Step], tables: Sequence[Measured]
) -> str:
    """A paper's chapter: citation, claims with verdicts, also those measured once, the figure, the notebooks."""
    notebook = f"04_{paper.name}"
    own = [claim for claim in claims if claim.paper == paper.name]
    lines = [f"# {paper.title[0].upper()}{paper.title[1:]}", "", citation(paper), "", paper.brings, ""]
    lines += ["## Claims", "", tally(own), "", verdicts(own, pages, "", anchors=True), ""]
    found = [page for page in pages if page.step.notebook == notebook]
    for page in found[1:]:
        again = [claim for claim in site_content.claims([page]) if claim.paper == paper.name]
        lines += [f"### {page.setting}", "", verdicts(again, pages, "", anchors=False), ""]
    for setting, again in site_content.claims_measured(tables, paper.name):
        heading = f"### {setting} ([measured once](measured.md))"
        lines += [heading, "", tally(again), "", verdicts(again, pages, "", anchors=False), ""]
    lines += ["## The figure", ""]
    for page in found:
        lines += [f"### {page.setting}", ""] if len(found) > 1 else []
        lines += _shown(page)
    if not found:
        lines += [f"Not run yet: `{command_for(notebook)}`.", ""]
    lines += ["## Notebooks", "", "Every formula, every line of code and every other figure and table:", ""]
    lines += [_entry(page) for name in (*paper.stages, notebook) for page in _used(name, notebook, pages, missing)]
    own_plans = {step.plan for step in missing if step.notebook == notebook}
    left = [step for step in missing if step.plan in own_plans]
    return "\n".join([*lines, "", *_missing(left, (notebook, *paper.stages)), *_below(paper.name, pages)])


def _used(name: str, notebook: str, pages: Sequence[Page], missing: Sequence[plans.Step]) -> list[Page]:
    """The runs of a notebook that a paper's notebook builds on: of its plans and of those beside; else every run."""
    steps = [step for step in [*(page.step for page in pages), *missing] if step.notebook == notebook]
    near = {plan for step in steps for plan in (step.plan, *step.beside)}
    runs = [page for page in pages if page.step.notebook == name]
    return [page for page in runs if page.step.plan in near] or runs


def released_chapter(claims: Sequence[Claim], pages: Sequence[Page], missing: Sequence[plans.Step]) -> str:
    """The chapter on the defects of released codes."""
    own = [claim for claim in claims if claim.paper == RELEASED]
    run = [claim for claim in own if NOT_RUN not in {finding.verdict for finding in claim.findings}]
    changed = sum(len({finding.verdict for finding in claim.findings}) > 1 for claim in run)
    lines = [
        "# Released against corrected",
        "",
        "The released codes depart from their papers in places. Each departure is kept as a variant, and a conclusion that it",
        "could change is asked twice: as released, and corrected, with everything else the same.",
        "",
        "## Conclusions",
        "",
        f"The verdict changes with the correction for {changed} of {len(run)}." if run else "They were not run here.",
        "",
        verdicts(own, pages, "", anchors=True),
        "",
    ]
    return "\n".join([*lines, *_runs(pages, (RELEASED_NOTEBOOK,), missing, "released_against_corrected")])


def plain_chapter(name: str, intro: str, notebooks: Sequence[str], pages: Sequence[Page], missing: Sequence[plans.Step]) -> str:
    """A chapter that shows the runs of some notebooks, one section a run; of the gallery every figure."""
    return "\n".join([f"# {CHAPTERS[name]}", "", intro, "", *_runs(pages, notebooks, missing, name, whole=name == "gallery")])


def measured_chapter(tables: Sequence[Measured], pages: Sequence[Page]) -> str:
    """What takes hours and was measured once: one section a table, with its command and its provenance."""
    lines = [
        f"# {CHAPTERS['measured']}",
        "",
        "What the README tells of more images and larger networks than `make reproduce` has time for, and of its leaderboard:",
        "measured once, kept in `data/measured/` with the commands and digests below. `make measured` makes it anew. Numbers are",
        "rounded here.",
        "",
    ]
    for one in tables:
        page = next((page for page in pages if page.step.notebook == one.notebook), None)
        source = f'<a href="{page.url}">{escape(page.title)}</a>' if page else f"<code>{escape(one.notebook)}</code>"
        cells = [[_rounded(cell) for cell in row.values()] for row in one.rows]
        lines += [f"## {one.name.replace('_', ' ')}", "", f"<p>{escape(one.setting)}; kept by {source}. {one.note}</p>", ""]
        shown = table([escape(name.replace("_", " ")) for name in one.rows[0]], cells)
        folded = f'<details class="numbers"><summary>The {len(cells)} rows</summary>{shown}</details>'
        lines += [folded if len(cells) > 30 else shown, "", provenance(one.origin), ""]
    return "\n".join(lines)


def _rounded(cell: str) -> str:
    """A cell of a kept table, numbers with three decimals."""
    return f"{float(cell):.3f}" if re.fullmatch(r"-?\d+\.\d{6}", cell) else escape(cell)


def plans_chapter(pages: Sequence[Page], missing: Sequence[plans.Step]) -> str:
    """Each plan with its command and the notebooks that it ran."""
    lines = [
        "# Plans",
        "",
        "A plan names notebooks and their parameters. `make reproduce` runs the small plans; each runs alone, too.",
        "",
    ]
    for plan, scale in _batches(pages, missing):
        ran = [page for page in pages if (page.step.plan, page.step.scale) == (plan, scale)]
        left = [step.notebook for step in missing if (step.plan, step.scale) == (plan, scale)]
        lines += [f"(plan-{plan})="] if scale == "embedded" else []
        lines += [f"## {plans.read(plan)['title']}{_at(scale)}", "", f"`{command_of(plan, scale)}`", ""]
        lines += [_entry(page) for page in ran]
        lines += ["", f"Not run: {', '.join(f'`{one}`' for one in dict.fromkeys(left))}.", ""] if left else [""]
    return "\n".join([*lines, *_below("plans", pages)])


def cite_chapter(cff: dict, source: str) -> str:
    """How to cite, from the content of CITATION.cff and its text."""
    lines = ["# How to cite", "", cff.get("message", ""), "", "## The compendium", ""]
    facts = [_names(cff), f"*{cff['title']}*", f"version {cff['version']}" if "version" in cff else "", _year(cff)]
    lines += [f"{', '.join(fact for fact in facts if fact)}.", "", "```bibtex", bibtex(cff), "```", ""]
    lines += ["The file `CITATION.cff`:", "", "```yaml", source.strip(), "```", "", "## The papers", ""]
    return "\n".join([*lines, *(f"- {citation(paper)}" for paper in PAPERS), ""])


def bibtex(cff: dict) -> str:
    """The BibTeX entry of a CITATION.cff."""
    names = " and ".join(f"{{{author['name']}}}" if "name" in author else _person(author) for author in cff["authors"])
    facts = {"author": names, "title": f"{{{cff['title']}}}", "year": _year(cff), "version": cff.get("version")}
    facts |= {"doi": cff.get("doi"), "url": cff.get("url") or cff.get("repository-code"), "note": f"Licence: {cff['license']}"}
    known = {name: re.sub(r"([&%#])", r"\\\1", str(value)) for name, value in facts.items() if value}
    fields = [f"  {name:<7} = {{{value}}}," for name, value in known.items()]
    return "\n".join(["@software{saliency_compendium,", *fields, "}"])


def _names(cff: dict) -> str:
    return ", ".join(author.get("name") or _person(author) for author in cff["authors"])


def _person(author: dict) -> str:
    return f"{author['family-names']}, {author['given-names']}"


def _year(cff: dict) -> str:
    return str(cff.get("date-released", ""))[:4]


def citation(paper: Paper) -> str:
    """A paper's full citation with its link, Markdown."""
    return f"{_by(paper).removesuffix('.')}. *{paper.title}*. [{paper.venue}]({paper.link})."


def verdicts(claims: Sequence[Claim], pages: Sequence[Page], root: str, *, anchors: bool, titles: bool = False) -> str:
    """The table of claims: one part a paper, one row a claim, HTML.

    Args:
        root: the way to the start page's folder, empty or ending in a slash.
        anchors: whether the rows have ids, to which rows without them link.
        titles: whether each part begins with its paper and what it was measured on.
    """
    defects = [claim.paper == RELEASED for claim in claims]
    place = "the defect" if all(defects) else f"where in the paper{' (released codes: the defect)' if any(defects) else ''}"
    heads = ("claim", place, "reported", "ours [95 % interval]", "n", "verdict")
    columns = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in ("", *heads))
    parts = [f'<thead role="rowgroup"><tr role="row">{columns}</tr></thead>']
    for name in dict.fromkeys(claim.paper for claim in claims):
        rows = [_row(claim, root, anchors) for claim in claims if claim.paper == name]
        title = _part(name, pages, root, len(heads) + 1) if titles else ""
        origin = next((one.origin for claim in claims if claim.paper == name for one in claim.findings if one.origin), None)
        asked = dict.fromkeys(one.command for claim in claims if claim.paper == name for one in claim.findings if one.command)
        texts = [f"To run it: {_code(command)}" for command in asked] + ([provenance(origin)] if origin else [])
        rows += [f'<tr role="row"><td role="cell" colspan="7" class="run">{text}</td></tr>' for text in texts]
        parts.append(f'<tbody role="rowgroup">{title}{"".join(rows)}</tbody>')
    return _scrolled(f'<table class="verdicts" role="table">{"".join(parts)}</table>')


def _part(name: str, pages: Sequence[Page], root: str, columns: int) -> str:
    """The line above a paper's claims: its name, and on what was measured."""
    notebook = notebook_of(name)
    chapter = chapter_of(notebook)
    page = next((page for page in pages if page.step.notebook == notebook), None)
    place = f' <a class="quiet" href="{root}{page.url}">{escape(page.setting)}</a>' if page else ""
    link = f'<a href="{root}{chapter}.html">{escape(CHAPTERS[chapter])}</a>{_who(name)}'
    return f'<tr class="part" role="row"><th scope="rowgroup" role="rowheader" colspan="{columns}">{link}{place}</th></tr>'


def _who(name: str) -> str:
    paper = next((paper for paper in PAPERS if paper.name == name), None)
    return f" · {escape(_by(paper))}" if paper else " · conclusions that a defect could change"


def _by(paper: Paper) -> str:
    return " ".join(filter(None, (paper.authors, paper.year)))


def _row(claim: Claim, root: str, anchors: bool) -> str:
    place = f"claim-{re.sub(r'[^a-z0-9]+', '-', claim.id.lower()).strip('-')}"
    chapter = chapter_of(RELEASED_NOTEBOOK) if claim.paper == RELEASED else claim.paper
    name = escape(claim.id) if anchors else f'<a href="{root}{chapter}.html#{place}">{escape(claim.id)}</a>'
    ours = [_way(one) + _number(one.ours) for one in claim.findings]
    cells = {
        "claim": escape(claim.statement),
        "the defect" if claim.paper == RELEASED else "where": escape(claim.where),
        "reported": escape(claim.reported),
        "ours": "<br>".join(ours),
        "n": escape(" / ".join(dict.fromkeys(one.images for one in claim.findings if one.images))) or "–",
        "verdict": "<br>".join(_way(one) + _verdict(one.verdict) for one in claim.findings),
    }
    body = "".join(f'<td role="cell" data-label="{label}"><div>{text}</div></td>' for label, text in cells.items())
    anchor = f' id="{place}"' if anchors else ""
    return f'<tr role="row"{anchor}><th scope="row" role="rowheader">{name}</th>{body}</tr>'


def _number(text: str) -> str:
    return f'<span class="number">{escape(text) or "–"}</span>'


def _way(finding: Finding) -> str:
    return f'<span class="way">{escape(finding.way)}</span> ' if finding.way else ""


def _verdict(word: str) -> str:
    kind = word.replace(" ", "-")
    return f'<span class="verdict {kind}"><span aria-hidden="true">{MARKS.get(word, "·")}</span> {escape(word)}</span>'


def _counts(claims: Sequence[Claim], tables: Sequence[Measured]) -> str:
    """Per paper how many claims have which verdict; conclusions asked twice and claims measured once have rows of their own."""

    def counted(label: str, findings: Sequence[Finding]) -> tuple[str, ...]:
        words = [finding.verdict for finding in findings]
        return (label, *(str(words.count(word)) if words.count(word) else "" for word in MARKS), str(len(words)))

    rows = []
    for name in dict.fromkeys(claim.paper for claim in claims):
        own = [claim for claim in claims if claim.paper == name]
        chapter = chapter_of(RELEASED_NOTEBOOK) if name == RELEASED else name
        for way in dict.fromkeys(finding.way for claim in own for finding in claim.findings):
            found = [finding for claim in own for finding in claim.findings if finding.way == way]
            label = f'<a href="{chapter}.html">{escape(CHAPTERS[chapter] if name != RELEASED else "Released codes")}</a>'
            rows.append(counted(f"{label}{', ' + escape(way) if way else ''}", found))
        for setting, again in site_content.claims_measured(tables, name):
            label = f'<span class="quiet">measured once: {escape(setting)}</span>'
            rows.append(counted(label, [finding for claim in again for finding in claim.findings]))
    return table(("", *(f"{mark} {word}" for word, mark in MARKS.items()), "all"), rows, "counts")


def tally(claims: Sequence[Claim]) -> str:
    """How many claims have which verdict, in a line."""
    words = [finding.verdict for claim in claims for finding in claim.findings]
    return f"Claims: {', '.join(f'{words.count(word)} {word}' for word in MARKS if word in words)}."


def _cards(claims: Sequence[Claim], pages: Sequence[Page]) -> str:
    """A link to each paper's chapter, with its headline figure."""
    cards = []
    for paper in PAPERS:
        found = _headline(pages, f"04_{paper.name}")
        picture = f'<img src="pictures/{quote(found[0].file)}" alt="{escape(found[0].caption)}" loading="lazy">' if found else ""
        counted = tally([claim for claim in claims if claim.paper == paper.name])
        text = f"<strong>{escape(paper.short)}</strong><span>{escape(paper.brings)}</span><span>{counted}</span>"
        cards.append(f'<a class="paper" href="{paper.name}.html">{picture}{text}</a>')
    return f'<div class="papers">{"".join(cards)}</div>'


def _headline(pages: Sequence[Page], notebook: str) -> tuple[Picture, Page] | None:
    """The headline figure of a notebook's run, on photographs where there is one."""
    runs = sorted((page for page in pages if page.step.notebook == notebook), key=lambda page: page.step.plan != "photos")
    return next(((picture, page) for page in runs for picture in page.pictures if picture.headline), None)


def figure(picture: Picture, page: Page) -> str:
    """A figure with its caption, its command, a link to its notebook and its provenance, HTML."""
    source = f"pictures/{quote(picture.file)}"
    image = f'<a href="{source}"><img src="{source}" alt="{escape(picture.caption)}" loading="lazy"></a>'
    caption = f'{escape(picture.caption)} From <a href="{page.url}">{escape(page.title)}</a>.'
    if picture.command:
        caption += f"<br>{_code(picture.command)}"
    return f'<figure class="shown">{image}<figcaption>{caption}</figcaption>{provenance(picture.origin)}</figure>'


def provenance(origin: dict | None) -> str:
    """What a figure or a table was made from and with, folded, HTML."""
    if not origin:
        return '<p class="quiet">No provenance of this figure is kept in outputs/figures/.</p>'
    commit = escape((origin.get("commit") or "not a checkout") + (" with changes" if origin.get("dirty") else ""))
    versions = {"Python": origin.get("python")} | origin.get("versions", {})
    used = ", ".join(escape(f"{name} {number}") for name, number in versions.items() if number)
    needs = [f"<li><code>{escape(one['folder'])}</code> digest {escape(one['digest'][:12])}</li>" for one in origin["requires"]]
    made = f"<ul>{''.join(needs)}</ul>" if needs else "nothing in the store"
    rows = {"command": _code(origin["command"]), "commit": f"<code>{commit}</code>", "versions": used}
    rows[f"made from {len(needs)} artefacts" if needs else "made from"] = made
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows.items())
    return f'<details class="provenance"><summary>Provenance</summary><dl>{listed}</dl></details>'


def _runs(
    pages: Sequence[Page], notebooks: Sequence[str], missing: Sequence[plans.Step], chapter: str, *, whole: bool = False
) -> list[str]:
    lines = []
    for page in (page for name in notebooks for page in pages if page.step.notebook == name):
        lines += [
            f"## {page.setting if len(notebooks) == 1 else f'{_topic(page)} ({page.setting})'}",
            "",
            *_shown(page, whole=whole),
        ]
    return [*lines, *_missing(missing, notebooks), *_below(chapter, pages)]


def _topic(page: Page) -> str:
    return page.title.split(" · ")[-1].split(":")[0]


def _shown(page: Page, *, whole: bool = False) -> list[str]:
    """The headline figure of a run, or all its figures, and its table, folded."""
    lines = [text for picture in page.pictures if whole or picture.headline for text in (figure(picture, page), "")]
    lines += [] if lines else [f"[{page.title}]({page.document}.ipynb)", ""]
    if page.tables:
        lines += [f'<details class="numbers"><summary>The numbers</summary>{_scrolled(_flat(page.tables))}</details>', ""]
    return lines


def _entry(page: Page) -> str:
    return f"- [{page.title}]({page.document}.ipynb) ({page.setting})"


def _missing(missing: Sequence[plans.Step], notebooks: Iterable[str]) -> list[str]:
    """What was not run, with the command that runs it: one line a plan and scale."""
    left: dict[tuple[str, str], list[str]] = {}
    for step in missing:
        if step.notebook in notebooks:
            left.setdefault((step.plan, step.scale), []).append(f"`{step.notebook}`")
    if not left:
        return []
    lines = [f"- {', '.join(dict.fromkeys(names))}{_at(key[1])}: `{command_of(*key)}`" for key, names in left.items()]
    return ["Not run here:", "", *lines, ""]


def _batches(pages: Sequence[Page], missing: Sequence[plans.Step]) -> list[tuple[str, str]]:
    """Every plan with each of its scales, by name."""
    return sorted({(step.plan, step.scale) for step in [*missing, *(page.step for page in pages)]})


def _at(scale: str) -> str:
    return "" if scale == "embedded" else " at the paper's scale"


def _below(chapter: str, pages: Sequence[Page]) -> list[str]:
    """The sidebar's entries below a chapter."""
    own = [page for page in pages if chapter_of(page.step.notebook) == chapter]
    twice = {page.title for page in own if sum(other.title == page.title for other in own) > 1}
    entries = [f"{page.title} ({page.setting}) <{page.document}>" if page.title in twice else page.document for page in own]
    return ["```{toctree}", ":hidden:", ":titlesonly:", "", *entries, "```", ""] if own else []


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """An HTML table whose cells are HTML, in a container of its own that scrolls."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return _scrolled(f'<table class="plain {kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def _scrolled(text: str) -> str:
    return f'<div class="scrolled" tabindex="0">{text}</div>'


def _flat(text: str) -> str:
    """HTML without blank lines, which would end it in Markdown."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _code(command: str) -> str:
    return f"<code>{escape(command)}</code>"
