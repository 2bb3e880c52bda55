"""The site: its pages say what executed notebooks and kept tables say; nothing in it is dead or from a network."""

import base64
import functools
import json
import re
import shutil
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

import saliency_lib as sl
from docs import __main__ as site
from docs import content, matrix, pages
from saliency_lib import paths
from saliency_lib.artefacts import tables
from saliency_lib.core.markup import one_line
from saliency_lib.notebook import run as runs
from tests.test_boards import drawn, embedded, ranked
from workflow import plans

pytestmark = pytest.mark.slow  # one site is made for all of them

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
EVIL = "<img src=x onerror=alert(1)> `<b onclick=alert(1)>` ``` [x](javascript:alert(1)) $x$"  # as a folder may be named


class Artefact:
    """What a figure says it was drawn from."""

    def __init__(self):
        self.folder = paths.ROOT / FOLDER
        self.provenance = {"digest": "0123456789abcdef" * 4}


def verdicts_of(gain):
    """The table of the claims of PAG, in the paper's setting: all are supported if the gain is large, none if it is negative."""
    claimed, draws = tables.claimed("active_gradients"), np.random.default_rng(0)
    level = {"gradient": 2, "active_gradient": 1, "inactive_gradient": 1, "positive_gradient": 0, "negative_gradient": 0}
    sides = {(row.quantity, name) for row in claimed.itertuples() for name in (row.higher, row.lower)}
    scores = {side: gain * level[side[1]] + draws.normal(size=120) / 10 for side in sorted(sides)}
    return sl.statistics.claim_verdicts(claimed, scores, dataset="cifar10", model="cnn", as_trained=True)


def both_ways():
    claimed = tables.claimed("released_code")
    words = {
        "released": "+0.100 [+0.050, +0.150]",
        "so": "supported",
        "corrected": "-0.200 [-0.250, -0.150]",
        "now": "contradicted",
    }
    return claimed[["id", "where", "statement"]].assign(**words)


def told(patch, show):
    """Return the outputs that a call displays, as a kernel stores them."""
    outputs = []

    def display(thing, metadata=None):
        is_picture = hasattr(thing, "embed")
        data = {"image/png": base64.b64encode(thing.data).decode()} if is_picture else {"text/markdown": thing.data}
        outputs.append(v4.new_output("display_data", data, metadata=metadata or {}))

    patch.setattr(runs, "display", display)
    show()
    return outputs


def execute(step, patch):
    """Write what an execution of a notebook leaves: outputs, a figure and a table kept by the real `Run`."""
    run = runs.Run(step.notebook, plans.defaults(step.notebook))
    caption = f'What {step.notebook} shows: 5 < 7 & "more" |map| {EVIL}.'
    figure = told(patch, lambda: run.show(Figure((2, 1)), caption, [Artefact()], "figure"))
    shown = sl.notebook.table(pd.DataFrame({"a": [1.0], "b" * 300: [2.0]})).data
    table = v4.new_output("execute_result", {"text/html": shown})
    colophon = v4.new_output("execute_result", {"text/markdown": "| artefact | made |\n|---|---|\n| `x` | today |"})
    cells = [
        v4.new_markdown_cell(
            f"# {step.notebook[:2]} · {step.notebook}: is it so?\n\n$x_1$, [maps](02_explain.ipynb), [no](03_sanity.ipynb)"
        ),
        v4.new_code_cell("1", execution_count=1, outputs=figure, metadata={"tags": ["headline"]}),
        v4.new_markdown_cell("## Numbers"),
        v4.new_code_cell("2", execution_count=2, outputs=[table], metadata={"tags": ["table"]}),
        v4.new_code_cell("3", execution_count=3, outputs=[colophon]),
    ]
    kept = {
        "04_active_gradients": lambda: {"verdicts": verdicts_of(0.5)},
        "05_released_against_corrected": lambda: {"verdicts": both_ways()},
        "05_leaderboard": lambda: ranked(drawn()),
    }
    for name, frame in kept.get(step.notebook, dict)().items():
        outputs = told(patch, functools.partial(run.keep, name, frame, [Artefact()]))
        cells.append(v4.new_code_cell("4", execution_count=4, outputs=outputs))
    step.output.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), step.output)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a site made from a few made-up executed notebooks; what is not in LEFT_OUT was run."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "params" / "plans").mkdir(parents=True)
    for name, facts in PLANS.items():
        (folder / "params" / "plans" / f"{name}.yaml").write_text(yaml.safe_dump(facts))
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
def run(built):
    """What was run: every executed notebook of the site."""
    return [content.read(step) for step in content.steps() if step.output.is_file()]


def of(run, notebook):
    return next(page for page in run if page.step.notebook == notebook)


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
                self.tables.append(
                    any({"pst-scrollable-table-container", "cell_output"} & set(classes.split()) for classes in inside)
                )
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
    row = next(row for row in re.findall(r"<tr.*?</tr>", text, re.DOTALL) if re.search(rf">{re.escape(claim)}<", row))
    return [unescape(re.sub(r"<.*?>", "", cell)).strip() for cell in re.findall(r"<td>.*?</td>", row, re.DOTALL)]


def words(file):
    """What a page says, without tags."""
    return unescape(re.sub(r"<.*?>", "", file.read_text()))


def verdicts(run, paper="active_gradients", kept=()):
    return content.verdicts(paper, run, kept)[0]


def test_a_name_that_is_written_like_html_is_shown_and_not_run(built, walked):
    for file, page in walked.items():
        assert not re.search(r"<[^>]*\b(onerror|onclick)=|href=.javascript:", re.sub(r'"[^"]*"', '""', file.read_text())), (
            file.name
        )
        assert not [image for image in page.images if image.get("src") == "x" or "onerror" in image]
    assert EVIL in words(built / "active_gradients.html")


def test_every_claim_has_a_row_and_a_link_to_its_row_in_its_chapter(built):
    text = (built / "index.html").read_text()
    claimed = pd.read_csv(paths.ROOT / "data" / "reported" / "claims.csv")
    assert len(claimed) == 31
    for claim in claimed.itertuples():
        assert row_of(text, claim.id)[1:4] == [claim.statement, claim.where, claim.reported]
        chapter = "released_against_corrected" if claim.paper == "released_code" else claim.paper
        anchor = re.search(rf'href="{chapter}.html#([^"]+)">(?:<[^>]*>)*{re.escape(claim.id)}<', text)[1]
        assert f'id="{anchor}"' in (built / f"{chapter}.html").read_text()


def test_the_verdict_table_says_what_the_kept_table_says(built):
    text = (built / "index.html").read_text()
    kept = verdicts_of(0.5)
    assert set(kept["verdict"]) == {"reproduced"}
    for name, row in zip(tables.claimed("active_gradients")["id"], kept.itertuples(), strict=True):
        assert row_of(text, name)[4:] == [row.ours, "✓ reproduced", str(row.images), "–", "paper: cifar10, cnn"]
    assert row_of(text, "SGT: signed ranking")[4:] == [
        *("+0.100 [+0.050, +0.150]", "↑ supported"),
        *("-0.200 [-0.250, -0.150]", "✗ contradicted", "200"),
    ]


def test_another_kept_table_is_another_verdict(run, monkeypatch):
    file = of(run, "04_active_gradients").kept["verdicts"]
    before = {part: part.read_text() for part in (file, file.with_suffix(".json"))}
    try:
        again = runs.Run("04_active_gradients", plans.defaults("04_active_gradients"))
        told(monkeypatch, lambda: again.keep("verdicts", verdicts_of(-0.5)))
        assert verdicts(run).words("") == ["contradicted"] * 5
        assert row_of_index(run, "PAG-1").count("contradicted") == 1
    finally:
        for part, text in before.items():
            part.write_text(text)
    assert verdicts(run).words("") == ["reproduced"] * 5


def row_of_index(run, claim):
    """The Markdown of a claim's row in the start page."""
    return pages.render(run, [])["index.md"].split(f"[{claim.replace('-', chr(92) + '-')}]")[1].split("\n* -")[0]


def test_what_was_measured_once_is_shown_with_its_command_and_digests(built):
    sections = (built / "measured.html").read_text().split("<article")[1].split("<h2>")[1:]
    files = sorted((paths.ROOT / "data" / "measured").glob("*.csv"))
    files = [file for file in files if not file.stem.endswith("_ranks")]  # for the script of the leaderboard
    names = [
        file.stem for file in files if file.stem not in ("benchmarks", "rise_passes", "architectures")
    ]  # no notebook made these
    parts = dict(zip(names, sections, strict=True))
    assert len(parts) >= 10
    for name, part in parts.items():
        table, origin = tables.measured(name)
        assert part.startswith(name.replace("_", " ")) and part.count("<tr") == len(table) + 1
        said = re.sub(r"<.*?>", "", unescape(part))
        assert f"command: {origin['command']}" in said
        assert f"{origin['requires'][0]['folder']}, digest {origin['requires'][0]['digest'][:12]}" in said
    name = "cifar_resnet20_active_gradients_black"
    black = tables.measured(name)[0].iloc[0]
    row = re.sub(r"<.*?>", " ", parts[name]).split()
    assert f"{black['allegiance_black']:.3f}" in row[row.index(black["method"]) :][:6]
    assert "cifar10, cifar_resnet20, 2000 images; kept by <a" in parts[name]


def test_a_measured_table_that_was_changed_by_hand_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "measured"
    shutil.copytree(paths.ROOT / "data" / "measured", folder)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert len(content.measured()) >= 10
    file = folder / "cifar_resnet20_active_gradients_black.csv"
    file.write_text(file.read_text().replace("0.1", "0.0"))
    with pytest.raises(
        ValueError, match=r"cifar_resnet20_active_gradients_black\.csv was changed after it was made.*run `papermill"
    ):
        content.measured()


def test_verdicts_measured_once_are_shown_in_the_chapter_of_their_paper(run):
    said = {"ours": "+0.5 [+0.4, +0.6]", "p": "< 0.001", "images": "10000", "verdict": "supported"}
    rows = [{"claim": text} | said for text in tables.claimed("active_gradients")["statement"]]
    origin = {"command": "papermill notebooks/04_active_gradients.ipynb out.ipynb", "requires": []}
    origin["parameters"] = {"dataset": "cifar10", "model": "cnn", "images": 10000}
    once = content.Measured("cifar10_active_gradients_verdicts", rows, origin)
    first, second = content.verdicts("active_gradients", run, [once])
    assert not first.measured and second.measured and second.setting == "cifar10, cnn, 10000 images"
    assert second.words("") == ["supported"] * 5
    assert {claim["images"] for claim in second.claims} == {"10000"}
    assert len(content.verdicts("guided_nonlinearity", run, [once])) == 1
    short = content.Measured(once.name, rows[1:], origin)
    assert content.verdicts("active_gradients", run, [short])[1].words("") == ["not run", *["supported"] * 4]
    older = content.Measured(once.name, [row | {"claim": f"in other words {n}"} for n, row in enumerate(rows)], origin)
    assert content.verdicts("active_gradients", run, [older])[1].words("") == ["supported"] * 5


def test_the_chapter_of_a_paper_shows_what_was_measured_once(built):
    text = (built / "active_gradients.html").read_text()
    section = text.split("<article")[1].split("cifar10, cifar_resnet20, 2000 images (<")[1].split("</section>")[0]
    assert "Claims: 4 supported, 1 no difference." in section and section.count("↑ supported") == 4


def test_a_measured_table_tells_its_training_and_whether_its_command_still_makes_it():
    kept = {one.name: one for one in content.measured()}
    one = kept["cifar_resnet20_active_gradients_black"]
    assert one.setting == "cifar10, cifar_resnet20, 2000 images" and not one.older
    changed = one.origin | {"parameters": one.origin["parameters"] | {"scale": "paper", "recipe": "mine"}}
    assert content.Measured("other", [], changed).setting == "cifar10, cifar_resnet20, 2000 images, scale paper, recipe mine"
    assert content.Measured("older", [], one.origin | {"parameters": one.origin["parameters"] | {"gone": 1}}).older


def test_a_table_that_was_changed_by_hand_is_refused(run):
    file = of(run, "04_active_gradients").kept["verdicts"]
    before = file.read_text()
    file.write_text(before.replace("reproduced", "certain"))
    try:
        with pytest.raises(ValueError, match=r"verdicts\.csv was changed after it was made.*run `papermill notebooks/04_a"):
            verdicts(run)
    finally:
        file.write_text(before)


def test_what_was_not_run_says_so_with_the_command(built):
    text = (built / "index.html").read_text()
    assert row_of(text, "RG-1")[4:] == ["–", "○ not run", "–", "–", "–"]
    step = next(step for step in plans.steps("digits") if step.notebook == "04_score_matching")
    assert f"To run it: snakemake {step.output} --cores 2 --config plans=digits" in words(built / "index.html")
    assert row_of(text, "SB-1")[5] == "○ not run"  # no plan has its notebook
    assert "papermill notebooks/04_saliency_benchmark.ipynb out.ipynb" in words(built / "index.html")
    assert "snakemake --cores 2 --config plans=speed" in words(built / "benchmarks.html")
    assert "Not run: 03_deletion, 04_score_matching." in words(built / "plans.html")


def test_a_run_whose_kept_table_is_gone_counts_as_not_run_and_its_command_forces_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    found = verdicts([content.read(page.step) for page in run])
    assert set(found.words("")) == {"not run"} and "04_active_gradients.ipynb --force --cores 2" in found.command


def test_the_count_of_verdicts_is_above_the_tables(built):
    text = (built / "index.html").read_text()
    counts = re.search(r'<table class="[^"]*counts.*?</table>', text, re.DOTALL)
    assert counts.start() < text.index('<table class="verdicts')
    rows = re.findall(r"<tr.*?</tr>", counts[0], re.DOTALL)
    numbers = [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]
    words = ["✓ reproduced", "↑ supported", "✗ contradicted", "= no difference", "? inconclusive", "– not tested", "○ not run"]
    assert numbers[0] == ["paper", *words, "all"]
    assert ["Active gradients", "5", *[""] * 6, "5"] in numbers and ["Score matching", *[""] * 6, "7", "7"] in numbers
    assert ["Released against corrected, corrected", "", "", "8", *[""] * 4, "8"] in numbers


def test_the_start_page_answers_three_questions_before_it_counts(built):
    text = (built / "index.html").read_text().split("<article")[1]
    headings = [unescape(re.sub("<.*?>", "", one)) for one in re.findall(r"<h[12]>(.*?)<a", text)]
    first = ["Which method should I use?", "Use it on your own model", "Does a paper hold?"]
    assert headings[:4] == ["The saliency compendium", *first] and "All verdicts, counted" in headings
    above = text[: text.index("<h2>")]
    assert [above.count(f'href="#{anchor}"') for anchor in ("which-method", "does-it-hold", "own-model")] == [1, 1, 1]
    assert all(f'href="{page}.html"' in text for page in ("leaderboard", "results", "cite", "guide/index"))
    assert matrix.readme_example() in words(built / "index.html")


def test_each_paper_has_a_sentence_whose_numbers_are_those_of_the_tables(built):
    found = matrix.answers(matrix.by_data(content.measured()))
    text = re.sub(r"\s+", " ", words(built / "index.html"))
    for paper in content.PAPERS:
        told = re.split(r" on [\w -]+ with ", text.split(f"{paper['short']}: {found[paper['key']]['word']}. ")[1])[0]
        for column, (held, tested) in found[paper["key"]]["counts"].items():
            assert re.search(rf"{held} of {tested}( measurements)? on {column}", told), told
        assert found[paper["key"]]["nearest"]["ours"] in told
    total = [sum(one[part] for one in found.values()) for part in ("supported", "tested", "contradicted")]
    assert "{} of {} measurements support a claim, {} contradict one".format(*total) in text


def test_the_figure_of_the_start_page_says_in_words_what_it_shows(built):
    text = (built / "index.html").read_text()
    (image,) = [one for one in Walker(built / "index.html").images if one["src"].endswith("claims.svg")]
    found = matrix.by_data(content.measured())
    assert image["alt"] == matrix.alternative(found)
    assert (built / "_images" / "claims.svg").read_text() == matrix.draw(found)
    figure = unescape(re.sub("<.*?>", "", re.search(r"<figure.*?</figure>", text, re.DOTALL)[0]))
    assert "command: python -m docs" in figure and all(name in figure for name in matrix.sources(found))


def test_a_network_or_a_paper_that_is_named_like_html_is_shown_in_the_sentences(run, monkeypatch):
    found = matrix.answers(matrix.by_data(content.measured()))
    found["active_gradients"]["nearest"]["on"] = EVIL
    monkeypatch.setattr(matrix, "answers", lambda table: found)
    assert f"with {pages.environment().filters['code'](EVIL)}." in pages.render(run, [])["index.md"]


def test_headings_speak_of_networks_and_not_of_folders(walked, built):
    for file in walked:
        headings = re.findall(r"<h[1-6]>(.*?)<a", file.read_text(), re.DOTALL)
        assert not [one for one in headings if "model-" in one], file.name
    assert "Some digits, network cnn" in words(built / "active_gradients.html")


def test_what_may_be_wider_than_a_phone_is_a_named_region_that_a_keyboard_reaches(built):
    for file in (built / "index.html", built / "active_gradients.html", built / "results.html"):
        text = file.read_text()
        regions = re.findall(r'<div class="(?:pst-scrollable-table-container|scrolls)"([^>]*)>', text)
        assert len(regions) > 3 and len(set(regions)) == len(regions)  # each has its own name
        assert all(re.fullmatch(r' role="region" tabindex="0" aria-label="(Table|Figure) \d+: [^"]+"', one) for one in regions)
        assert not re.search(r'<figure[^>]*>\s*<a class="reference \w+ image-reference"', text)


def test_verdicts_differ_by_word_and_mark():
    known = {"reproduced", *sl.statistics.DIRECTIONS, sl.statistics.UNTESTED, content.NOT_RUN}
    assert set(pages.MARKS) == known and len(set(pages.MARKS.values())) == 7


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
                known = walked[built / aim.relative_to(built.resolve())].ids | {""}
                assert unquote(parts.fragment) in known, f"{file.name}: {target}"


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
    assert "div.cell_output { overflow-x: auto; }" in (paths.ROOT / "docs" / "_static" / "style.css").read_text()


def test_a_figure_has_its_command_its_notebook_and_its_provenance(built):
    text = (built / "active_gradients.html").read_text()
    figure = re.search(r"<figure.*?</figure>", text, re.DOTALL)[0]
    said = unescape(re.sub(r"<.*?>", "", figure))
    assert f'What 04_active_gradients shows: 5 < 7 & "more" |map| {EVIL}. From 04 ·' in said
    assert "papermill notebooks/04_active_gradients.ipynb out.ipynb" in said
    assert 'href="digits/model-cnn/04_active_gradients.html"' in figure
    assert f'alt="{escape("What 04_active_gradients shows: 5 < 7 & ")}' in figure
    folded = unescape(re.sub(r"<.*?>", "", figure[figure.index("<details") :]))
    assert f"{FOLDER}, digest 0123456789ab" in folded and "Python 3." in folded and "commit: " in folded


def test_a_figure_that_another_run_has_replaced_in_the_store_has_not_its_provenance(run):
    page = of(run, "02_explain")
    assert page.figures[0]["origin"]["requires"][0]["digest"] == Artefact().provenance["digest"]
    file = next((paths.OUTPUTS / "figures").glob("02_explain*/provenance.json"))
    before = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(before) | {"sha256": "0" * 64, "commit": "of another picture"}))
        again = content.read(page.step)
        assert again.figures[0]["origin"] is None
        assert "The provenance of this figure is not in `outputs/figures/`" in pages.render([again], [])["gallery.md"]
    finally:
        file.write_text(before)


def test_a_figure_is_read_from_the_metadata_of_its_output_and_not_from_displayed_text(run, tmp_path, monkeypatch):
    page = of(run, "02_explain")
    notebook = nbformat.read(page.step.output, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("text/markdown", None)
    monkeypatch.setattr(plans, "RUNS", tmp_path)
    page.step.output.parent.mkdir(parents=True)
    nbformat.write(notebook, page.step.output)
    assert content.read(page.step).figures == page.figures


def test_a_site_that_could_not_be_made_leaves_the_last_one(built, monkeypatch):
    def killed(source, target):
        target.mkdir()
        (target / "index.html").write_text("half")
        raise RuntimeError("the site has errors")

    before = (built / "index.html").read_text()
    monkeypatch.setattr(site, "sphinx", killed)
    with pytest.raises(RuntimeError, match="has errors"):
        site.build()
    assert (built / "index.html").read_text() == before and (built / "gallery.html").is_file()
    assert [file.name for file in sorted(built.parent.iterdir())] == ["html", "warnings.txt"]


def test_verdicts_have_the_provenance_of_their_table(built):
    for page, notebook in (("active_gradients", "04_active_gradients"), ("released_against_corrected", "05_released_against")):
        text = (built / f"{page}.html").read_text()
        after = text[text.index('<table class="verdicts') :]
        shown = unescape(re.sub(r"<.*?>", "", after[after.index("<details") : after.index("</details>")]))
        assert f"command: papermill notebooks/{notebook}" in shown and f"{FOLDER}, digest 0123" in shown


def entries(built, page):
    """The sidebar of a page: level and file of each entry."""
    sidebar = re.search(r'<nav class="bd-links.*?</nav>', (built / f"{page}.html").read_text(), re.DOTALL)[0]
    return re.findall(r'class="toctree-l(\d)[^"]*">.*?<a[^>]*href="([^"]*)"', sidebar, re.DOTALL)


def test_the_sidebar_has_the_chapters_in_order_and_notebooks_below_theirs(built):
    chapters = [file for level, file in entries(built, "search") if level == "1"]
    others = [
        "released_against_corrected",
        "questions",
        "leaderboard",
        "gallery",
        "benchmarks",
        "metrics",
        "your_own",
        "architectures",
        "measured",
        "cite",
        "plans",
    ]
    names = [*(paper["key"] for paper in content.PAPERS), *others]
    assert chapters == ["guide/index.html", "results.html", *(f"{name}.html" for name in names), "api/index.html"]
    homes = {"active_gradients": "04_active_gradients", "gallery": "02_explain", "metrics": "03_allegiance", "plans": "01_train"}
    for chapter, notebook in homes.items():
        assert [file for level, file in entries(built, chapter) if level == "2"] == [f"digits/model-cnn/{notebook}.html"]


def test_a_link_to_a_notebook_that_was_not_run_is_words(built):
    text = (built / "digits" / "model-cnn" / "04_active_gradients.html").read_text()
    assert re.search(r'<a [^>]*href="02_explain.html"[^>]*>', text) and "03_sanity" not in text


def test_links_of_the_results_page_lead_to_pages_of_the_site(built):
    text = (built / "results.html").read_text()
    assert 'href="digits/model-cnn/03_allegiance.html"' in text and 'href="measured.html"' in text and "../" not in text


def test_a_colophon_is_a_table(built):
    text = (built / "digits" / "model-cnn" / "01_train.html").read_text()
    assert "| artefact |" not in text and re.search(r"<th[^>]*><p>artefact</p></th>", text)


def test_the_citation_is_that_of_the_citation_file(built):
    cff = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    text = words(built / "cite.html")
    for fact in (cff["title"], f"version {cff['version']}", cff["authors"][0]["name"]):
        assert fact in text
    assert f"title   = {{{{{cff['title']}}}}}," in text and f"version = {{{cff['version']}}}," in text
    assert all(paper["title"] in text for paper in content.PAPERS) and len(content.PAPERS) == 5


@pytest.mark.parametrize("paper", content.PAPERS, ids=lambda paper: paper["key"])
def test_a_chapter_is_headed_by_the_title_of_its_paper_which_the_start_page_cites(built, paper):
    (heading,) = re.findall(r"<h1>(.*?)<a", (built / f"{paper['key']}.html").read_text())
    assert unescape(heading).casefold() == paper["title"].casefold()
    assert f"<em>{paper['title']}</em>" in (built / "index.html").read_text()


def test_bibtex_is_made_from_whatever_the_citation_file_says():
    people = [{"family-names": "Doe", "given-names": "Jo"}, {"name": "A & B"}]
    cff = {"authors": people, "title": "T", "license": "MIT", "date-released": "2031-02-03", "doi": "10.1/x", "version": "2"}
    assert pages.environment().get_template("citation.bib").render(cff=cff).splitlines() == [
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
    claimed = set(pd.read_csv(paths.ROOT / "data" / "reported" / "claims.csv")["paper"])
    assert claimed == {facts["claims"] for facts in content.CHAPTERS.values() if "claims" in facts}
    known = {file.stem for file in paths.NOTEBOOKS.glob("*.ipynb")}
    assert {content.notebook_of(name) for name in claimed} | {one for paper in content.PAPERS for one in paper["stages"]} <= known


def test_the_leaderboard_has_its_table_what_its_script_reads_and_its_files(built, walked):
    file = built / "leaderboard.html"
    text, page = file.read_text(), walked[file]
    assert text.count('<table class="table board">') == 1 + len([one for one in content.measured() if "_leaderboard" in one.name])
    assert set(embedded(text)["trainings"]) == {one_line(name) for name in drawn()}
    assert text.index("<tr data-method") < text.index("datatables.js")
    scripts = {target.split("?")[0] for tag, _, target in page.references if tag == "script"}
    assert {"_static/datatables.js", "_static/leaderboard.js"} <= scripts
    assert not any("datatables.js" in target for other in walked if other != file for _, _, target in walked[other].references)
    files = {target.rsplit("/", 1)[1]: built / unquote(target) for _, _, target in page.references if "_downloads" in target}
    assert {"05_leaderboard-mnist5k-cnn-ranks.csv", "digits_leaderboard.csv"} <= set(files)
    assert len(pd.read_csv(files["05_leaderboard-mnist5k-cnn-ranks.csv"])) == 2 * 3 * 30
    assert files["leaderboard.bib"].read_text().count("\n@misc{") == len(content.PAPERS)
    assert words(file).count("The ranks by image were not kept") == text.count('<table class="table board">') - 1


def test_every_registered_function_and_every_public_name_is_in_the_reference(built):
    shown = {file.stem for file in (built / "api" / "entries").glob("*.html")}
    listed = [words(built / "api" / f"{table.lower()}.html") for table in content.SITE["tables"]]
    for text, table in zip(listed, content.SITE["tables"], strict=True):
        assert all(re.search(rf"\b{name}\b", text) for name in getattr(sl, table))
    names = [name for name in sl.__all__ if callable(getattr(sl, name))]
    assert {f"saliency_lib.{name}" for name in names} <= shown and len(names) > 30
    assert {f"saliency_lib.figures.{name}" for name in ("gallery", "mean_curves")} <= shown


@pytest.mark.parametrize("table", ["METHODS", "METRICS", "OBJECTIVES"])
def test_the_page_of_an_entry_has_its_facts_its_source_and_its_differences(built, table):
    for entry in getattr(sl, table).values():
        file = built / "api" / "entries" / f"{entry.__module__}.{entry.__qualname__}.html"
        text = words(file)
        assert f'sl.{table}["{entry.name}"]' in text and all(fact in text for fact in entry.row.values())
        for section in ("Source", "Differs"):
            assert (f'<p class="rubric">{section}</p>' in file.read_text()) == (f"{section}:" in entry.__doc__), entry.name
