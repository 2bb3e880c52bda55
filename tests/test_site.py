"""The report: what its pages say comes from executed notebooks and kept tables, and nothing in it is dead or from a network."""

import base64
import json
import re
import shutil
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from nbformat import v4

from docs import site, site_content, site_pages
from saliency_lib import paths
from saliency_lib import notebook as report
from saliency_lib import statistics
from workflow import plans

PLANS = {
    "digits": {
        "title": "Some digits",
        "parameters": "params/embedded.yaml",
        "sweep": {"model": ["cnn"]},
        "notebooks": {
            "01_train": {},
            "02_explain": {},
            "03_allegiance": {},
            "03_deletion": {},
            "04_active_gradients": {},
            "04_score_matching": {},
            "05_leaderboard": {},
            "05_released_against_corrected": {},
        },
    },
    "speed": {"title": "Speed", "parameters": "params/benchmarks.yaml", "notebooks": {"05_benchmarks": {}}},
}
LEFT_OUT = {"03_deletion", "04_score_matching", "05_benchmarks"}
FOLDER = "outputs/score/a-b-c"


class Artefact:
    """What a figure says it was drawn from."""

    def __init__(self):
        self.folder = paths.ROOT / FOLDER
        self.provenance = {"digest": "0123456789abcdef" * 4}


def verdicts_of(gain):
    """The table of the claims of PAG, all of which come out if the gain is large, and none if it is negative."""
    claimed, draws = report.claimed("active_gradients"), np.random.default_rng(0)
    level = {"gradient": 2, "active_gradient": 1, "inactive_gradient": 1, "positive_gradient": 0, "negative_gradient": 0}
    sides = {(row.quantity, name) for row in claimed.itertuples() for name in (row.higher, row.lower)}
    return statistics.claim_verdicts(claimed, {side: gain * level[side[1]] + draws.normal(size=30) / 10 for side in sorted(sides)})


def both_ways():
    claimed = report.claimed("released_code")
    words = {
        "released": "+0.100 [+0.050, +0.150]",
        "so": "reproduced",
        "corrected": "-0.200 [-0.250, -0.150]",
        "now": "not reproduced",
    }
    return claimed[["id", "where", "statement"]].assign(**words)


def execute(step, monkeypatch):
    """Write what an execution of a notebook leaves: outputs, a figure and a table kept by the real `Run`."""
    shown = []
    monkeypatch.setattr(report, "display", shown.append)
    run = report.Run(step.notebook, [])
    run.show(Figure((2, 1)), f'What {step.notebook} shows: 5 < 7 & "more" |map|.', [Artefact()], "figure")
    picture, caption = shown
    image = v4.new_output("display_data", {"image/png": base64.b64encode(picture.data).decode()})
    said = v4.new_output("display_data", {"text/markdown": caption.data})
    table = v4.new_output("execute_result", {"text/html": report.table(pd.DataFrame({"a": [1.0], "b" * 300: [2.0]})).data})
    colophon = v4.new_output("execute_result", {"text/markdown": "| artefact | made |\n|---|---|\n| `x` | today |"})
    cells = [
        v4.new_markdown_cell(
            f"# {step.notebook[:2]} · {step.notebook}: is it so?\n\n$x_1$, [maps](02_explain.ipynb), [no](03_sanity.ipynb)"
        ),
        v4.new_code_cell("1", execution_count=1, outputs=[image, said], metadata={"tags": ["headline"]}),
        v4.new_markdown_cell("## Numbers"),
        v4.new_code_cell("2", execution_count=2, outputs=[table], metadata={"tags": ["table"]}),
        v4.new_code_cell("3", execution_count=3, outputs=[colophon]),
    ]
    kept = {"04_active_gradients": lambda: verdicts_of(0.5), "05_released_against_corrected": both_ways}
    if step.notebook in kept:
        kept_as = run.keep("verdicts", kept[step.notebook](), [Artefact()])
        told = v4.new_output("execute_result", {"text/markdown": kept_as.data})
        cells.append(v4.new_code_cell("4", execution_count=4, outputs=[told]))
    step.output.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), step.output)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a site made from a few made-up executed notebooks; what is not in LEFT_OUT was run."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "params" / "plans").mkdir(parents=True)
    for name, content in PLANS.items():
        (folder / "params" / "plans" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "PARAMS", folder / "params")
        patch.setattr(paths, "OUTPUTS", folder / "outputs")
        patch.setattr(plans, "RUNS", folder / "outputs" / "runs")
        patch.setattr(site, "SITE", folder / "outputs" / "report")
        for step in (step for plan in PLANS for step in plans.steps(plan)):
            if step.notebook not in LEFT_OUT:
                execute(step, patch)
        site.build()
        yield folder / "outputs" / "report" / "html"


@pytest.fixture
def pages(built):
    return [site_content.read(step, site_content.origins()) for step in site_content.steps() if step.output.is_file()]


VOID = {"img", "br", "link", "meta", "input", "hr", "source", "wbr", "col", "area", "base", "embed", "track", "param"}


class Walker(HTMLParser):
    """What a page has: ids, references by tag, images, headings and tables of its article with what is around them."""

    def __init__(self, file):
        super().__init__()
        self.ids, self.references, self.images, self.headings, self.tables, self.language, self.open = (
            set(),
            [],
            [],
            [],
            [],
            None,
            [],
        )
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        self.references += [(tag, found.get("rel"), found[name]) for name in ("href", "src", "data-src") if found.get(name)]
        if tag == "html":
            self.language = found.get("lang")
        if tag == "img":
            self.images.append(found)
        inside = [classes for name, classes in self.open]
        if any(name == "article" for name, _ in self.open):
            if re.fullmatch(r"h[1-6]", tag):
                self.headings.append(int(tag[1]))
            if tag == "table":
                self.tables.append(any({"scrolled", "cell_output"} & set(classes.split()) for classes in inside))
        if tag not in VOID:
            self.open.append((tag, found.get("class") or ""))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass


@pytest.fixture(scope="module")
def walked(built):
    """Per page of the site what it has."""
    return {file: Walker(file) for file in sorted(built.rglob("*.html")) if "_static" not in file.parts}


def row_of(text, claim):
    """The cells of a claim's row in a page, without tags."""
    row = next(
        row for row in re.findall(r"<tr role=\"row\".*?</tr>", text, re.DOTALL) if re.search(rf">{re.escape(claim)}<", row)
    )
    return [unescape(re.sub(r"<.*?>", " ", cell)).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]


def words(file):
    """What a page says, without tags."""
    return unescape(re.sub(r"<.*?>", "", file.read_text()))


def test_every_claim_has_a_row_and_a_link_to_its_place_in_its_chapter(built):
    text = (built / "index.html").read_text()
    claimed = pd.read_csv(report.REPORTED / "claims.csv")
    assert len(claimed) == 30
    for claim in claimed.itertuples():
        cells = row_of(text, claim.id)
        assert cells[1:4] == [claim.statement, claim.where, claim.reported]
        chapter = "released_against_corrected" if claim.paper == "released_code" else claim.paper
        anchor = re.search(rf'href="{chapter}.html#([^"]+)">{re.escape(claim.id)}<', text)[1]
        assert f'<tr role="row" id="{anchor}">' in (built / f"{chapter}.html").read_text()


def test_the_verdict_table_says_what_the_kept_table_says(built):
    text = (built / "index.html").read_text()
    kept = verdicts_of(0.5)
    assert set(kept["verdict"]) == {"reproduced"}
    for name, row in zip(report.claimed("active_gradients")["id"], kept.itertuples(), strict=True):
        assert row_of(text, name)[4:] == [row.ours, row.images, "✓  reproduced"]
    assert row_of(text, "SGT: signed ranking")[4:] == [
        "as released   +0.100 [+0.050, +0.150]   corrected   -0.200 [-0.250, -0.150]",
        "200",
        "as released    ✓  reproduced   corrected    ✗  not reproduced",
    ]


def test_another_kept_table_is_another_verdict(pages, monkeypatch):
    file = next(page for page in pages if page.step.notebook == "04_active_gradients").kept["verdicts"]
    before = {part: part.read_text() for part in (file, file.with_suffix(".json"))}
    try:
        report.Run("04_active_gradients", []).keep("verdicts", verdicts_of(-0.5))
        found = site_content.claims(pages)
        text = site_pages.verdicts(found, pages, "", anchors=False)
        assert row_of(text, "PAG-1")[-1] == "✗  not reproduced"
        assert site_pages.tally([claim for claim in found if claim.paper == "active_gradients"]) == "Claims: 5 not reproduced."
    finally:
        for part, content in before.items():
            part.write_text(content)
    assert row_of(site_pages.verdicts(site_content.claims(pages), pages, "", anchors=False), "PAG-1")[-1] == "✓  reproduced"


def test_what_was_measured_once_is_shown_with_its_command_and_digests(built):
    sections = (built / "measured.html").read_text().split("<article")[1].split("<h2>")[1:]
    names = [file.stem for file in sorted((paths.ROOT / "data" / "measured").glob("*.csv")) if file.stem != "benchmarks"]
    parts = dict(zip(names, sections, strict=True))
    assert len(parts) >= 10
    for name, part in parts.items():
        file = paths.ROOT / "data" / "measured" / f"{name}.csv"
        table, origin = pd.read_csv(file), json.loads(file.with_suffix(".json").read_text())
        assert part.startswith(name.replace("_", " ")) and part.count("<tr>") == len(table) + 1
        assert f"<dt>command</dt><dd><code>{escape(origin['command'])}</code></dd>" in part
        assert f"{escape(origin['requires'][0]['folder'])}</code> digest {origin['requires'][0]['digest'][:12]}" in part
    black = pd.read_csv(paths.ROOT / "data" / "measured" / "cifar10_black_allegiance.csv").iloc[0]
    assert f"<td>{black['method']}</td><td>{black['mean']:.3f}</td>" in parts["cifar10_black_allegiance"]
    assert "cifar10, cnn, 10000 images, scale paper; kept by <a href=" in parts["cifar10_black_allegiance"]


def test_a_measured_table_that_was_changed_by_hand_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "measured"
    shutil.copytree(paths.ROOT / "data" / "measured", folder)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert len(site_content.measured()) >= 10
    file = folder / "cifar10_black_allegiance.csv"
    file.write_text(file.read_text().replace("0.1", "0.0"))
    with pytest.raises(ValueError, match=r"cifar10_black_allegiance\.csv was changed after it was kept; run `papermill"):
        site_content.measured()


def test_verdicts_measured_once_stand_in_their_papers_chapter(pages, built):
    told = report.claimed("active_gradients")
    said = {"ours": "+0.5 [+0.4, +0.6]", "images": "10000", "verdict": "reproduced"}
    rows = [{"claim": text} | said for text in told["statement"]]
    origin = {"command": "papermill notebooks/04_active_gradients.ipynb out.ipynb", "requires": []}
    origin["parameters"] = {"dataset": "cifar10", "model": "cnn", "images": 10000}
    tables = [site_content.Measured("cifar10_active_gradients_verdicts", rows, origin)]
    (paper,) = [one for one in site_content.PAPERS if one.name == "active_gradients"]
    text = site_pages.paper_chapter(paper, site_content.claims(pages), pages, [], tables)
    section = text.split("### cifar10, cnn, 10000 images ([measured once](measured.md))")[1].split("##")[0]
    assert "Claims: 5 reproduced." in section and section.count("10000</div>") == 5
    assert not site_content.claims_measured(tables, "guided_nonlinearity")
    ((_, found),) = site_content.claims_measured([replace(tables[0], rows=rows[1:])], "active_gradients")
    assert [claim.findings[0].verdict for claim in found] == ["not run", *["reproduced"] * 4]


def test_a_measured_table_tells_its_training_and_whether_its_command_still_makes_it():
    tables = {one.name: one for one in site_content.measured()}
    assert tables["cifar10_black_allegiance"].setting == "cifar10, cnn, 10000 images, scale paper"
    assert tables["cifar10_white_allegiance"].setting == "cifar10, cnn, 10000 images, scale paper, fill white"
    assert tables["cifar10_active_gradients_verdicts"].setting == "cifar10, cnn, 10000 images"
    assert not tables["cifar10_black_allegiance"].note
    origin = tables["cifar10_black_allegiance"].origin
    older = site_content.Measured("older", [], origin | {"parameters": origin["parameters"] | {"gone": 1}})
    assert older.note.endswith(f"its command belongs to the commit {origin['commit'][:12]}.")


def test_a_table_that_was_changed_by_hand_is_refused(pages):
    file = next(page for page in pages if page.step.notebook == "04_active_gradients").kept["verdicts"]
    before = file.read_text()
    file.write_text(before.replace("reproduced", "certain"))
    try:
        with pytest.raises(
            ValueError, match=r"verdicts\.csv was changed after it was kept; run `papermill notebooks/04_active_grad"
        ):
            site_content.claims(pages)
    finally:
        file.write_text(before)


def test_what_was_not_run_says_so_with_the_command(built, pages):
    text = unescape((built / "index.html").read_text())
    assert row_of(text, "RG-1")[4:] == ["–", "–", "○  not run"]
    step = next(step for step in plans.steps("digits") if step.notebook == "04_score_matching")
    assert f"To run it: <code>snakemake {step.output} --cores 2 --config plans=digits</code>" in text
    assert row_of(text, "SB-1")[-1] == "○  not run"  # no plan has its notebook
    assert "papermill notebooks/04_saliency_benchmark.ipynb out.ipynb" in text
    assert "snakemake --cores 2 --config plans=speed" in words(built / "benchmarks.html")
    assert "Not run: 03_deletion, 04_score_matching." in words(built / "plans.html")


def test_a_run_whose_kept_table_is_gone_counts_as_not_run_and_its_command_forces_it(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    again = [site_content.read(page.step, {}) for page in pages]
    (first,) = next(claim for claim in site_content.claims(again) if claim.id == "PAG-1").findings
    assert first.verdict == "not run" and "04_active_gradients.ipynb --force --cores 2" in first.command


def test_the_count_of_verdicts_stands_above_the_table(built):
    text = (built / "index.html").read_text()
    counts = re.search(r'<table class="plain counts">.*?</table>', text, re.DOTALL)
    assert counts.start() < text.index('<table class="verdicts"')
    rows = re.findall(r"<tr>(.*?)</tr>", counts[0])
    numbers = [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]
    assert numbers[0] == ["", "✓ reproduced", "✗ not reproduced", "– not tested at this scale", "○ not run", "all"]
    assert ["Active gradients", "5", "", "", "", "5"] in numbers and ["Score matching", "", "", "", "7", "7"] in numbers
    assert ["Released codes, corrected", "", "7", "", "", "7"] in numbers


def test_verdicts_differ_by_word_and_mark():
    words = {"reproduced", "not reproduced", statistics.UNTESTED, site_content.NOT_RUN}
    assert set(site_pages.MARKS) == words and len(set(site_pages.MARKS.values())) == 4


def test_no_link_no_anchor_and_no_image_is_dead(built, walked):
    assert len(walked) > 15
    for file, page in walked.items():
        for tag, _, target in page.references:
            parts = urlsplit(target)
            if parts.scheme or target.startswith("#pst-"):
                continue
            aim = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert aim.is_file(), f"{file.relative_to(built)}: <{tag}> leads to {target}"
            assert aim.is_relative_to(built.resolve())
            if parts.fragment and aim.suffix == ".html":
                assert unquote(parts.fragment) in walked[built / aim.relative_to(built.resolve())].ids | {""}, (
                    f"{file.name}: {target}"
                )


def test_nothing_is_asked_of_a_network_but_by_a_click(built, walked):
    for file, page in walked.items():
        for tag, rel, target in page.references:
            if urlsplit(target).scheme in ("http", "https") or target.startswith("//"):
                assert tag == "a", f"{file.name}: <{tag} rel={rel}> asks for {target}"
    for file in built.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", file.read_text()), file.name


def test_pages_are_accessible(built, walked):
    for file, page in walked.items():
        assert page.language == "en"
        said = [image.get("alt") or "" for image in page.images]
        assert all(text and not text.endswith(".png") for text in said), file.name  # Sphinx's own words are the file's name
        if file.name not in ("search.html", "genindex.html"):
            assert page.headings[0] == 1 and page.headings.count(1) == 1, file.name
            assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False)), file.name


def test_every_table_scrolls_by_itself(walked):
    assert sum(len(page.tables) for page in walked.values()) > 10
    for file, page in walked.items():
        assert all(page.tables), file.name
    assert ".scrolled, div.cell_output { overflow-x: auto; }" in site.STYLE


def test_a_figure_has_its_command_its_notebook_and_its_provenance(built):
    text = (built / "active_gradients.html").read_text()
    figure = unescape(re.search(r'<figure class="shown">.*?</figure>', text, re.DOTALL)[0])
    assert 'What 04_active_gradients shows: 5 < 7 & "more" |map|.' in figure
    assert "<code>papermill notebooks/04_active_gradients.ipynb out.ipynb</code>" in figure
    assert 'href="digits/model-cnn/04_active_gradients.html"' in figure
    folded = figure[figure.index("<details") :]
    assert f"<code>{FOLDER}</code> digest 0123456789ab" in folded and "Python 3." in folded and "<dt>commit</dt>" in folded
    assert "No provenance" not in text


def test_a_figure_that_another_run_has_replaced_in_the_store_has_not_its_provenance(pages):
    page = next(page for page in pages if page.step.notebook == "02_explain")
    assert page.pictures[0].origin["requires"][0]["digest"] == Artefact().provenance["digest"]
    file = next((paths.OUTPUTS / "figures").glob("02_explain*/provenance.json"))
    before = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(before) | {"sha256": "0" * 64, "commit": "of another picture"}))
        assert site_content.read(page.step, site_content.origins()).pictures[0].origin is None
    finally:
        file.write_text(before)


def test_a_report_that_could_not_be_made_leaves_the_last_one(pages, built, monkeypatch):
    def killed(source, target):
        target.mkdir()
        (target / "index.html").write_text("half")
        raise RuntimeError("the report has errors")

    before = (built / "index.html").read_text()
    monkeypatch.setattr(site, "_sphinx", killed)
    with pytest.raises(RuntimeError, match="has errors"):
        site.build()
    assert (built / "index.html").read_text() == before and (built / "gallery.html").is_file()
    assert [file.name for file in sorted(built.parent.iterdir())] == ["html", "warnings.txt"]


def test_verdicts_have_the_provenance_of_their_table(built):
    for page, notebook in (("active_gradients", "04_active_gradients"), ("released_against_corrected", "05_released_against")):
        table = re.search(r'<table class="verdicts".*?</table>', (built / f"{page}.html").read_text(), re.DOTALL)[0]
        (shown,) = re.findall(r'<details class="provenance">.*?</details>', table, re.DOTALL)
        assert f"<dt>command</dt><dd><code>papermill notebooks/{notebook}" in shown and f"{FOLDER}</code> digest 0123" in shown
    start = (built / "index.html").read_text().split('<table class="verdicts"')[1].split("</table>")[0]
    assert start.count('<details class="provenance">') == 2


def test_a_figure_whose_provenance_is_gone_says_so(pages):
    (page,) = [site_content.read(page.step, {}) for page in pages if page.step.notebook == "02_explain"]
    assert "No provenance of this figure is kept" in site_pages.figure(page.pictures[0], page)


def test_the_sidebar_has_the_chapters_in_order_and_notebooks_below_theirs(built):
    def entries(page):
        sidebar = re.search(r'<nav class="bd-links.*?</nav>', (built / f"{page}.html").read_text(), re.DOTALL)[0]
        return re.findall(r'class="toctree-l(\d)[^"]*">.*?<a[^>]*href="([^"]*)"', sidebar)

    chapters = [name for level, name in entries("index") if level == "1"]
    assert chapters == [f"{name}.html" for name in site_pages.CHAPTERS]
    assert chapters[5:] == [
        f"{name}.html"
        for name in ("released_against_corrected", "leaderboard", "gallery", "benchmarks", "metrics", "measured", "cite", "plans")
    ]
    homes = {"active_gradients": "04_active_gradients", "gallery": "02_explain", "metrics": "03_allegiance", "plans": "01_train"}
    levels = entries("index")
    for chapter, notebook in homes.items():
        place = levels.index(("1", f"{chapter}.html"))
        assert [level for level, _ in [*levels[place + 1 :], ("1", ""), ("1", "")]][:2] == ["2", "1"]
        assert levels[place + 1] == ("2", f"digits/model-cnn/{notebook}.html")


def test_a_link_to_a_notebook_that_was_not_run_is_words(built):
    text = (built / "digits" / "model-cnn" / "04_active_gradients.html").read_text()
    assert re.search(r'<a [^>]*href="02_explain.html"[^>]*>', text) and "03_sanity" not in text


def test_a_colophon_is_a_table(built):
    text = (built / "digits" / "model-cnn" / "01_train.html").read_text()
    assert "| artefact |" not in text and re.search(r"<th[^>]*><p>artefact</p></th>", text)


def test_the_citation_is_that_of_the_citation_file(built):
    cff = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    text = words(built / "cite.html").replace("’", "'")
    for fact in (cff["title"], f"version {cff['version']}", cff["authors"][0]["name"]):
        assert fact in text
    assert f"title   = {{{{{cff['title']}}}}}," in text and f"version = {{{cff['version']}}}," in text
    assert all(paper.title in text for paper in site_content.PAPERS) and len(site_content.PAPERS) == 5


def test_bibtex_is_made_from_whatever_the_citation_file_says():
    people = [{"family-names": "Doe", "given-names": "Jo"}, {"name": "A & B"}]
    cff = {"authors": people, "title": "T", "license": "MIT", "date-released": "2031-02-03", "doi": "10.1/x", "version": "2"}
    assert site_pages.bibtex(cff).splitlines() == [
        "@software{saliency_compendium,",
        "  author  = {Doe, Jo and {A \\& B}},",
        "  title   = {{T}},",
        "  year    = {2031},",
        "  version = {2},",
        "  doi     = {10.1/x},",
        "  note    = {Licence: MIT},",
        "}",
    ]


def test_pages_of_notebooks_that_are_gone_are_gone(built):
    assert not list(built.rglob("03_deletion.html")) and list(built.rglob("03_allegiance.html"))


def test_every_paper_with_claims_has_a_chapter():
    claimed = set(pd.read_csv(report.REPORTED / "claims.csv")["paper"])
    assert claimed == {paper.name for paper in site_content.PAPERS} | {site_content.RELEASED}
    known = {file.stem for file in paths.NOTEBOOKS.glob("*.ipynb")}
    assert {site_content.notebook_of(name) for name in claimed} | {
        one for paper in site_content.PAPERS for one in paper.stages
    } <= known
