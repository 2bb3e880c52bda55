"""README, the guide, the results page and the citations: every number is one that was found, every code block runs."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
import yaml

import saliency_lib as sl
from docs import __main__ as site
from docs import content, pages
from saliency_lib import paths
from saliency_lib.artefacts.tables import measured
from saliency_lib.core import files
from saliency_lib.notebook.blessed import EQUIVALENT
from tests.conftest import take_stored_notebooks_as_executed
from workflow import plans

README = (paths.ROOT / "README.md").read_text()
RESULTS = (paths.ROOT / "docs" / "results.md").read_text()
GUIDE = sorted((paths.ROOT / "docs" / "guide").glob("*.md"))
FLAT = re.sub(r"\s+", " ", RESULTS)  # without line ends, for sentences


def blocks(text, language):
    """The code blocks of a Markdown text."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def rows(text, header):
    """The cells of the rows of a Markdown table whose header begins so."""
    table = text[text.index(f"| {header}") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip().strip("|").replace("\\|", "¦").split("|")] for line in table[2:]]


# README


def test_the_readme_has_at_most_700_words():
    assert len(README.split()) <= 700


def test_the_readmes_table_of_papers_is_that_of_the_papers_file():
    assert pages.environment().get_template("papers.md").render() in README


@pytest.fixture
def place(outputs, tmp_path, monkeypatch):
    """A folder to run code in, an empty store, and tables of names that are as before afterwards."""
    monkeypatch.chdir(tmp_path)
    for table in (sl.METHODS, sl.METRICS, sl.OBJECTIVES, sl.DATASETS, sl.MODELS):
        monkeypatch.setattr(table, "_entries", dict(table._entries))


def test_the_readmes_code_runs(place):
    (code,) = blocks(README, "python")
    assert len(code.strip().splitlines()) <= 5
    found = {}
    exec(code, found)
    assert found["found"].maps["gradcam"].shape == (2, 64, 64) and len(found["found"].table) == 3


def test_the_readmes_commands_exist():
    lines = [line.split("#")[0].split() for block in blocks(README, "sh") for line in block.splitlines()]
    targets = set(re.findall(r"^(\w+):", (paths.ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[1] for words in lines if words[0] == "make"} | set(re.findall(r"`make (\w+)`", README)) <= targets
    for words in (words for words in lines if words[0] == "papermill"):
        notebook = next(word for word in words if word.endswith(".ipynb"))
        assert set(words[words.index("-p") + 1 :: 3] if "-p" in words else ()) <= set(plans.defaults(Path(notebook).stem))
    assert all(plan in plans.names() for plan in re.findall(r"plans=(\w+)", README))
    extras = (paths.ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n\n")[0]
    said = re.search(r"The extras (.*?) add the rest", README)[1]
    assert all(f"\n{name} = " in extras for name in re.findall(r"`(\w+)`", said))


def test_links_between_files_lead_somewhere():
    for file in (paths.ROOT / "README.md", paths.ROOT / "docs" / "results.md"):
        for target in re.findall(r"\]\(([^)#\s]+)\)", file.read_text()):
            assert target.startswith("https://") or (file.parent / target).exists(), target


# Citations


@pytest.mark.parametrize("paper", content.PAPERS, ids=lambda paper: paper["key"])
def test_a_paper_is_cited_alike_by_its_notebook_and_by_the_citation_file(paper):
    text = " ".join(nbformat.read(paths.NOTEBOOKS / f"04_{paper['key']}.ipynb", as_version=4).cells[0].source.split())
    assert paper["authors"][0] in text and str(paper.get("year", "")) in text
    assert paper["link"] in text or f"*{paper['title']}*" in text
    reference = next(one for one in yaml.safe_load(cff_text())["references"] if one["url"] == paper["link"])
    assert [author["family-names"] for author in reference["authors"]] == paper["authors"]
    assert (reference["title"], reference.get("year")) == (paper["title"], paper.get("year"))


def cff_text():
    return (paths.ROOT / "CITATION.cff").read_text()


def test_the_citation_file_has_the_papers_and_no_other():
    assert {one["url"] for one in yaml.safe_load(cff_text())["references"]} == {paper["link"] for paper in content.PAPERS}


# The guide


@pytest.mark.parametrize("file", GUIDE, ids=lambda file: file.stem)
def test_the_code_of_the_guide_runs(file, place):
    found = {}
    for code in blocks(file.read_text(), "python"):
        exec(compile(code, str(file), "exec"), found)
    assert found or file.stem in ("index", "cluster")


@pytest.mark.slow
@pytest.mark.parametrize("file", GUIDE, ids=lambda file: file.stem)
def test_the_commands_of_the_guide_run(file, tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["SALIENCY_OUTPUTS"] = str(tmp_path / "outputs")
    for code in blocks(file.read_text(), "sh"):
        command = code.replace("snakemake ", "snakemake --nolock ")
        ended = subprocess.run(["bash", "-e", "-c", command], capture_output=True, text=True, cwd=paths.ROOT, env=environment)
        assert ended.returncode == 0, code + ended.stderr
        assert "would be run" in ended.stdout + ended.stderr or "--help-notebook" in code or " -n" in code


def test_a_code_block_of_the_guide_is_one_that_the_tests_run():
    for file in GUIDE:
        assert set(re.findall(r"^```([\w{}-]+)$", file.read_text(), re.MULTILINE)) <= {"python", "sh", "{toctree}"}


# Results


def test_the_results_page_is_up_to_date():
    assert pages.results() == RESULTS, "run `python -m docs results`"


def test_the_results_page_counts_what_the_notebooks_found():
    found = {row[0]: row[2:] for row in rows(RESULTS, "notebook | question")}
    assert {re.search(r"\w+", name)[0]: [int(number) for number in numbers] for name, numbers in found.items()} == {
        "03_deletion": [5, 5, 3],
        "03_insertion": [5, 4, 4],
        "03_allegiance": [5, 3, 2],
        "03_masked_accuracy": [6, 6, 2],
        "03_pixel_perturbation": [4, 3, 2],
        "03_fidelity": [5, 4, 1],
        "03_objections": [5, 5, 3],
        "03_sanity": [5, 5, 5],
        "03_localisation": [7, 7, 1],
    }
    for name in (re.search(r"\w+", name)[0] for name in found):
        assert {row["claim"].rsplit(" ", 1)[1] for row in content.blessed(name, "claims")} == {"random", "edges"}


def test_the_results_page_counts_the_verdicts_of_every_paper_on_all_images():
    said = [(re.sub(r"\[(.*?)\].*", r"\1", name), *others) for name, *others in rows(RESULTS, "paper | images")]
    starred = [one for one in said if one[1] == "digits" or one[-1].endswith("*")]
    assert [(name, images, claims, *words, n) for name, images, _, claims, *words, n in starred] == [
        ("Active gradients", "digits", "5", "5", "0", "0", "0", "200"),
        ("Guided non-linearity", "digits", "1", "0", "0", "1", "0", "500"),
        ("Guided training", "digits", "6", "6", "0", "0", "0", "100"),
        ("Saliency benchmark", "digits", "4", "0", "3", "0", "1", "200"),
        ("Score matching", "digits", "7", "0", "0", "0", "7", "100 / 1000"),
    ]
    for name, _, network, _, *words, n in (one for one in said if one not in starred):
        (key,) = (paper["key"] for paper in content.PAPERS if paper["short"] == name)
        own = "cifar10_" if key == "active_gradients" and network in ("`cnn`", "`resnet18`") else ""
        found = measured(f"{own}{network.strip('`')}_{key}_verdicts")[0]
        said_of = found["verdict"].replace(sl.statistics.REPRODUCED, "supported")
        assert words == [str((said_of == word).sum()) for word in sl.statistics.DIRECTIONS]
        assert n == f"{found['images'][0]:,}"
    for paper in content.PAPERS:
        own = content.blessed(f"04_{paper['key']}", "claims")
        assert {row["verdict"] for row in own} <= set(sl.statistics.DIRECTIONS)
        assert not any(row["setting"].startswith("paper") for row in own)
        repeated = paper["key"] in ("active_gradients", "guided_training", "score_matching")
        assert all(row["seeds"].endswith("of 5") for row in own) if repeated else not any(row["seeds"] for row in own)


def test_what_the_results_page_says_of_other_choices_is_in_the_notebooks():
    def verdicts(paper, choice):
        table = content.blessed(f"04_{paper}", "robustness")
        return [row[f"verdict, {choice}"] for row in table]

    assert verdicts("active_gradients", "other fill") == [*["contradicted"] * 4, "supported"]
    assert verdicts("guided_training", "relative to a random order").count("supported") == 3
    assert verdicts("guided_training", "mean colour as baseline")[2:4] == ["inconclusive"] * 2
    first = verdicts("score_matching", "first training")
    assert len(first) - first.count("inconclusive") == 1
    assert [row["verdict"] for row in content.blessed("04_score_matching", "claims")] == ["inconclusive"] * 7
    cost = content.blessed("04_score_matching", "claims")[-1]
    assert cost["seeds"] == "5 of 5" and f"differs much between them ({cost['ours']})" in FLAT
    failed = [row["seed 2"] for row in content.blessed("04_score_matching", "accuracy by seed")]
    assert len(failed) == 4 and max(failed) < 0.2 and "no Softplus network learned anything, the baseline included" in FLAT


def test_the_results_page_says_what_the_correction_of_each_defect_does():
    both = content.blessed("05_released_against_corrected", "verdicts")
    moved = [one for one in both if "support" in one["verdict: the correction"]]
    assert len(both) == 8 and [one["id"] for one in moved] == ["RISE: softmax twice"]
    single = [one["id"].split(":")[0] for one in both if one["verdict: the correction"] == "not tested"]
    assert single == ["SGT", "RG", "RG"]  # conclusions about trainings, of which there is one each
    for one in moved:
        assert f"the correction {one['verdict: the correction']} by {one['difference']}" in FLAT
    assert "tests 8 conclusions twice, as released and with one defect corrected, and tests the difference" in FLAT
    assert "The correction shifts the difference in 1 of them" in FLAT


def test_guided_networks_lose_more_without_random_pixels():
    random = content.blessed("04_guided_training", "controls of trainings")[0]
    assert random["claim"].startswith("random, saliency_guided") and random["verdict"] == "supported" and random["ours"] in FLAT


def test_the_areas_on_imagenet_are_those_that_were_measured():
    areas, origin = measured("efficientnet_lite0_guided_nonlinearity_areas")
    assert set(areas["images"]) == {300} and not origin["dirty"] and len(origin["requires"]) == 16
    areas = areas.set_index("method")
    table = rows(RESULTS, "area, with 95 % interval")
    for label, better, *said in table:
        quantity = f"{label.split(',')[0]}_{'signed' if 'signed' in label else 'absolute'}"
        assert better == ("lower ↓" if quantity.startswith("deletion") else "higher ↑")
        for method, text in zip(("integrated_gradients", "gnl_integrated_gradients", "random", "edges"), said, strict=True):
            mean, low, high = areas.loc[method, [quantity, f"{quantity}_low", f"{quantity}_high"]]
            assert text == f"{mean:.3f} [{low:.3f}, {high:.3f}]", label
    assert len(table) == 4
    plain, guided = areas.loc["integrated_gradients"], areas.loc["gnl_integrated_gradients"]
    assert plain["deletion_signed"] < guided["deletion_signed"] and plain["insertion_signed"] > guided["insertion_signed"]
    (verdict,) = measured("efficientnet_lite0_guided_nonlinearity_verdicts")[0].itertuples()
    assert verdict.verdict == "supported" and verdict.images == 300
    assert f"is supported here (difference {verdict.ours}, paired over 300 images)" in FLAT


def test_the_rows_of_eight_networks_are_what_was_measured_or_say_how_to_measure_it():
    table, words = rows(RESULTS, "network | data | deletion, by"), []
    names = [name.strip("`") for name, *_ in table]
    assert names[:4] == [f"cifar_resnet{depth}" for depth in (20, 32, 44, 56)]
    assert names[4:] == ["squeezenet1_0_compressed", *(f"efficientnet_lite{number}" for number in range(3))]
    for name, (_, _, *said) in zip(names, table, strict=True):
        file = paths.ROOT / "data" / "measured" / f"{name}_guided_nonlinearity_rankings.csv"
        if not file.exists():
            assert re.match(r"not measured yet: `make measured MEASURED=(cifar10|imagenet)_networks`, [\d.]+ hours", said[0])
            continue
        found = measured(file.stem)[0].set_index("metric")
        for text, metric in zip(
            said, ("deletion_absolute", "deletion_signed", "insertion_absolute", "insertion_signed"), strict=True
        ):
            ours, word = found.loc[metric, ["ours", "verdict"]]
            assert text == (ours if word == "supported" else f"{ours} {pages.MARKS[word]}")
        words.append(found.loc["deletion_absolute", "verdict"])
    told = f"supported on {words.count('supported')} of them and contradicted on {words.count('contradicted')}"
    assert f"Measured so far: {len(words)} of 8. The claim is {told}." in FLAT


def test_the_leaderboard_of_six_trainings_is_what_was_measured():
    shown = sl.statistics.side_by_side(measured("digits_claims")[0])
    trainings = list(shown.columns[2:])
    table = rows(RESULTS, "claim | metric | " + " | ".join(trainings))
    for claim, metric, *said in table:
        claim = claim.replace("GNL", "gnl_integrated_gradients").replace("integrated gradients", "integrated_gradients")
        claim = re.sub(r"(active|positive) gradient", r"\1_gradient", claim).replace(" is ", " lies ")
        row = shown[(shown["claim"] == claim) & (shown["metric"] == metric.replace("¦", "|"))].iloc[0]
        words = [re.match(r"(\S+) \[.*\] ?(.*)", row[training]).groups() for training in trainings]
        assert [f"{number} {pages.MARKS[word]}" if word else number for number, word in words] == said, claim
    assert f"These are {len(table)} of {len(shown)} rows" in FLAT and len(table) == 8
    counted = shown.set_index(["claim", "metric"])[trainings]
    wins, losses = (
        counted.apply(lambda one: one.str.endswith("]")).sum(axis=1),
        counted.apply(lambda one: one.str.endswith("contradicted")).sum(axis=1),
    )
    signs = ["positive_gradient lies above gradient", "active_gradient lies above gradient"]
    road, insertion = ([losses[claim, metric] for claim in signs] for metric in ("road", "insertion"))
    assert f"positive gradients are contradicted on {road[0]} and active ones on {road[1]} of the 6 networks" in FLAT
    assert f"and by insertion on {insertion[0]} and {insertion[1]}:" in FLAT
    gnl = "gnl_integrated_gradients lies below integrated_gradients"
    assert (
        f"deletion of the signed map on {losses[gnl, 'deletion']}, supported by infidelity on {wins[gnl, 'infidelity']}" in FLAT
    )
    assert f"and by average drop on {wins[gnl, 'average_drop']}." in FLAT
    removal = [
        wins[claim.replace("above", "below"), metric] for claim in signs for metric in ("deletion", "allegiance", "infidelity")
    ]
    assert min(removal) > len(trainings) / 2
    board, _ = measured("digits_leaderboard")
    assert (board["training"].nunique(), board["method"].nunique(), set(board["images"])) == (6, 26, {100})
    assert "26 methods by nine metrics on the networks of six trainings, 100 digits" in FLAT
    best = ["deeplift", "active_integrated_gradients", "rise"]
    assert list(board.groupby("method")["rank"].mean().sort_values().index[:3]) == best
    assert "DeepLIFT has the best mean rank, followed by active integrated gradients and RISE." in FLAT
    correlations, _ = measured("digits_agreement")
    assert len(correlations) == 9 and len({sl.METRICS[name].family or name for name in correlations["metric"]}) == 6
    agreement = correlations.set_index("metric").loc["deletion"]
    assert f"by allegiance correlate by {agreement['allegiance']:.2f}" in FLAT
    assert f"pixel perturbation by {agreement['pixel_perturbation']:.2f}." in FLAT


@pytest.mark.parametrize("fill", ["black", "white"])
def test_the_areas_of_the_networks_of_active_gradients_are_those_that_were_measured(fill):
    there = "| network | pixels turn" in RESULTS
    said = [row for row in rows(RESULTS, "network | pixels turn") if row[1] == fill] if there else []
    files = (paths.ROOT / "data" / "measured").glob(f"cifar10_*_active_gradients_{fill}.csv")
    assert {name.strip("`") for name, *_ in said} == {file.stem.split("_")[1] for file in files}
    for name, _, method, _, text in said:
        table = measured(f"cifar10_{name.strip('`')}_active_gradients_{fill}")[0].set_index("method")
        mean, low, high = table.loc[method, [f"allegiance_{fill}{end}" for end in ("", "_low", "_high")]]
        assert text == f"{mean:.3f} [{low:.3f}, {high:.3f}]" and set(table["images"]) == {10_000}


# What was measured once


@pytest.mark.parametrize("file", sorted((paths.ROOT / "data" / "measured").glob("*.json")), ids=lambda file: file.stem)
def test_the_command_of_a_measured_table_still_means_what_it_meant(file):
    origin = json.loads(file.read_text())
    older = {one.name for one in content.measured() if one.older}  # by an earlier notebook, as its page says
    if file.stem not in older | {"benchmarks", "rise_passes", "architectures"}:  # no notebook made these
        _, notebook, _, *words = shlex.split(origin["command"])
        defaults = plans.defaults(Path(notebook).stem)
        changed = dict(zip(words[1::3], words[2::3], strict=True))
        for name in {*EQUIVALENT} - {*origin["parameters"]}:  # which came later
            defaults.pop(name, None)
        meant = {name: changed.get(name, str(value)) for name, value in defaults.items()}
        assert {name: str(value) for name, value in origin["parameters"].items()} == meant


def test_the_measured_tables_hold_the_methods_of_their_time_and_say_where_they_come_from():
    folder = paths.ROOT / "data" / "measured"
    board = pd.read_csv(folder / "imagenet_samples_leaderboard.csv")
    assert set(board["method"]) == set(sl.METHODS) - {"kernel_shap", "score_cam", "xrai"} and board["images"].min() >= 100
    for metric in ("deletion", "insertion"):
        assert (board[f"{metric}_low"] <= board[metric]).all() and (board[metric] <= board[f"{metric}_high"]).all()
    origin = json.loads((folder / "imagenet_samples_leaderboard.json").read_text())
    assert len(origin["requires"]) == 2 * len(board) and origin["commit"] and not origin["dirty"]
    assert set(origin["parameters"]["metrics"].split()) == {"deletion", "insertion"}
    step = next(step for step in plans.steps("imagenet_samples") if step.notebook == "05_leaderboard")
    assert origin["parameters"]["options"] in step.command and f"-p steps {origin['parameters']['steps']}" in step.command
    best = [*board.sort_values("rank")["method"][:5], "random", "edges"]
    said = rows(RESULTS, "method | mean rank | deletion")
    assert sorted(row[0].replace(" ", "_") for row in said) == sorted(set(best))
    passes = measured("rise_passes")[0].query("design == 'independent'")
    near = passes.pivot_table(index="seed", columns=["estimator", "passes", "picture"], values="correlation")
    low, high = sl.statistics.mean_interval((near["controlled"][100] - near["original"][500]).to_numpy())
    assert low > -0.05 and high > 0.05  # not distinguished on 20 pictures


@pytest.mark.parametrize("file", sorted((paths.ROOT / "data" / "measured").glob("*.csv")), ids=lambda file: file.stem)
def test_every_measured_table_is_the_one_that_its_origin_speaks_of(file):
    table, origin = measured(file.stem)
    assert len(table) and origin["command"] and origin["commit"]


# The site from the stored notebooks


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """The blessed notebooks as the executed ones of the plan `embedded`, in a report folder of its own."""
    known = pages.api()  # of which tests/test_site.py makes all pages
    monkeypatch.setattr(pages, "api", lambda: [group | {"paths": group["paths"][:1]} for group in known])
    take_stored_notebooks_as_executed(monkeypatch, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_site_of_the_stored_notebooks_shows_pictures_and_tables_and_has_no_dead_link(executed):
    start = site.build()
    html = executed / "report" / "html"
    files = [page for page in html.rglob("*.html") if "_static" not in page.parts]
    assert {page.stem for page in files} >= {"index", "01_train", "02_explain", "03_deletion", "03_insertion"}
    for page in files:
        for target in map(unquote, re.findall(r'(?:src|href)="([^"#?]+)', page.read_text())):
            if target.startswith(("http:", "https:")):
                known = ("https://arxiv.org/", "https://github.com/MarcoParola/", "https://aurora.ajou.ac.kr/handle/")
                assert target.startswith(known), f"{page.name} needs {target} from the network"
            elif not target.startswith(("data:", "mailto:", "javascript:")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
    text = start.read_text()
    assert "claims.svg" in text and text.count("<img") >= 2 and text.count("<table") >= 3
    assert "<math" in next(page for page in files if page.stem == "03_deletion").read_text()


def test_the_site_refuses_notebooks_that_were_not_run_to_their_end(executed):
    step = plans.steps("embedded")[-1]
    notebook = json.loads(step.output.read_text())
    notebook["cells"][-1]["execution_count"] = None
    step.output.write_text(json.dumps(notebook))
    with pytest.raises(ValueError, match=rf"{step.notebook}.ipynb was not run to its end; wait for it .* and run `snakemake"):
        site.build()


def test_the_site_says_when_there_is_nothing_to_show(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "RUNS", tmp_path / "runs")
    with pytest.raises(FileNotFoundError, match="run `make reproduce` first"):
        site.build()


# The site as a whole, without Sphinx.


@pytest.fixture
def quick_site(tmp_path, monkeypatch):
    """A site whose pages are one file; returns its folder."""
    place = tmp_path / "report"
    monkeypatch.setattr(site, "SITE", place)
    monkeypatch.setattr(content, "steps", lambda: [SimpleNamespace(output=paths.ROOT / "README.md")])
    monkeypatch.setattr(content, "read", lambda step: None)
    monkeypatch.setattr(site, "write", lambda run, missing, source: source.mkdir())

    def sphinx(source, target):
        target.mkdir()
        (target / "index.html").write_text("new")

    monkeypatch.setattr(site, "sphinx", sphinx)
    return place


def test_a_build_clears_away_what_killed_builds_left(quick_site):
    (quick_site / ".draft-0123abcd" / "source").mkdir(parents=True)
    site.build()
    assert [path.name for path in quick_site.iterdir()] == ["html"]


def test_a_site_that_had_made_way_for_a_new_one_comes_back_if_that_was_killed(quick_site, monkeypatch):
    before = quick_site / ".draft-0123abcd" / "before"
    before.mkdir(parents=True)
    (before / "index.html").write_text("old")

    def fail(source, target):
        raise RuntimeError("an error")

    monkeypatch.setattr(site, "sphinx", fail)
    with pytest.raises(RuntimeError):
        site.build()
    assert (quick_site / "html" / "index.html").read_text() == "old"


def test_two_builds_take_turns(quick_site, monkeypatch, capsys):
    monkeypatch.setattr(files, "PATIENCE", 0.02)
    lock = quick_site.parent / ".locks" / "report"
    lock.parent.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with files.locked(lock, "the site"):
            other = pool.submit(site.build)
            time.sleep(0.3)
            assert not other.done() and not (quick_site / "html").exists()
        assert other.result(timeout=60).read_text() == "new"
    assert "waiting for process" in capsys.readouterr().err


def test_in_domain_single_deletion_is_what_was_measured():
    board = measured("cifar_resnet20_single_deletion_leaderboard")[0]
    board = board[board["training"] == "patch_deletion"].set_index("method")
    said = rows(RESULTS, "method | mean rank | single deletion")
    assert [name.replace(" ", "_") for name, *_ in said] == list(board["rank"].sort_values().index) and len(said) == 10
    for name, rank, *texts in said:
        row = board.loc[name.replace(" ", "_")]
        assert rank == f"{row['rank']:.1f}"
        for metric, text in zip(("single_deletion", "deletion", "srg", "road"), texts, strict=True):
            assert text == f"{row[metric]:.3f} [{row[f'{metric}_low']:.3f}, {row[f'{metric}_high']:.3f}]"
    agreement = measured("cifar_resnet20_single_deletion_agreement")[0].set_index("metric").loc["single_deletion"]
    assert f"by {agreement['road']:.2f} with that by ROAD, by {agreement['srg']:.2f} with that by SRG, and by" in FLAT
