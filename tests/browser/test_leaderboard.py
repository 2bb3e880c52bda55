"""A board in a browser, from the file system: keys move ranks, sort and filter. Without scripts it is a table."""

import re
import shutil

import pytest
from playwright.sync_api import expect

import saliency_lib as sl
from docs import boards
from saliency_lib import paths
from tests.test_boards import FAMILIES, LOWER, METHODS, drawn, kept, shown

pytestmark = pytest.mark.browser
FIRST = "standard"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A page with one board."""
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    for name in ("leaderboard.js", "style.css"):
        shutil.copy(paths.ROOT / "docs" / "_static" / name, tmp_path)
    (tmp_path / "datatables.js").write_text(boards.datatables())
    scripts = "".join(f'<script src="{name}.js" defer></script>' for name in ("datatables", "leaderboard"))
    made = tmp_path / "page.html"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><link rel="stylesheet" href="style.css">{scripts}'
    made.write_text(f"{head}<body>{shown(*kept(tmp_path, drawn()))}</body></html>")
    return made


def rows(page):
    """The method and the rank with its interval of each row that is shown, in order."""
    cells = page.locator("tbody tr").evaluate_all("rows => rows.map(row => [row.cells[0].innerText, row.cells[1].innerText])")
    return [(name.replace(" ", "_"), [float(part) for part in re.findall(r"[\d.]+", told)]) for name, told in cells]


def wanted(metrics):
    """The same by the library, from some of the metrics."""
    areas = {metric: drawn()[FIRST][metric] for metric in metrics}
    table = sl.statistics.mean_ranks(areas, LOWER, FAMILIES)
    return [(row.method, [row.rank, row.rank_low, row.rank_high]) for row in table.itertuples()]


def same(found, known):
    assert [name for name, _ in found] == [name for name, _ in known]
    for (_, ours), (_, theirs) in zip(found, known, strict=True):
        assert ours[0] == pytest.approx(theirs[0], abs=0.006)  # two decimals are shown
        assert ours[1:] == pytest.approx(theirs[1:], abs=0.15)  # other resamples


def test_a_key_on_a_slider_moves_the_ranks_to_those_of_the_library(page, file):
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(file.as_uri())
    page.locator("form").wait_for()
    same(rows(page), wanted(LOWER))
    slider = page.get_by_role("slider", name="insertion", exact=True)
    slider.focus()
    page.keyboard.press("Home")
    same(rows(page), wanted(["deletion", "srg"]))
    assert rows(page)[0][0] == METHODS[-1]
    page.keyboard.press("End")
    page.get_by_role("slider", name="removal (deletion, srg)").focus()
    page.keyboard.press("Home")
    same(rows(page), wanted(["insertion"]))
    assert rows(page)[0][0] == METHODS[0]
    slider.focus()
    page.keyboard.press("Home")
    assert "at least one family" in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="Equal weights").press("Enter")
    page.wait_for_function("() => !document.querySelector('[role=status]').textContent.startsWith('Give')")
    same(rows(page), wanted(LOWER))
    assert not faults


def test_keys_sort_and_controls_filter(page, file):
    page.goto(file.as_uri())
    heads = page.get_by_role("columnheader")
    heads.first.get_by_role("button").press("Enter")
    expect(heads.first).to_have_attribute("aria-sort", "ascending")  # the table is sorted a moment after the key
    names = [name for name, _ in rows(page)]
    assert names == sorted(METHODS)
    page.get_by_role("combobox", name="family of methods", exact=True).select_option("control")
    assert [name for name, _ in rows(page)] == ["random"] and "1 of 10 rows" in page.get_by_role("status").inner_text()
    page.get_by_role("combobox", name="family of methods", exact=True).select_option("all")
    page.get_by_role("combobox", name="training", exact=True).select_option("all")
    assert len(rows(page)) == 2 * len(METHODS)
    page.get_by_role("combobox", name="passes per image", exact=True).select_option("at most 10")
    assert {name for name, _ in rows(page)} == {"gradient"}
    assert page.get_by_role("link", name="gradient").first.get_attribute("href").startswith("api/entries/saliency_lib.")


def test_without_scripts_it_is_a_table(browser, file):
    context = browser.new_context(java_script_enabled=False)
    window = context.new_page()
    window.goto(file.as_uri())
    assert window.locator("tbody tr:visible").count() == 2 * len(METHODS) and not window.locator("form").is_visible()
    context.close()
