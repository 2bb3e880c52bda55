"""Every notebook in JupyterLab as a reader runs it, and the explorer as a reader uses it."""

import io
import re
import time

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from saliency_lib import paths
from tests.browser.conftest import Lab, code_of, errors, until

pytestmark = pytest.mark.browser
NOTEBOOKS = sorted(file.name for file in paths.NOTEBOOKS.glob("*.ipynb"))
EXPLORER = "00_explore.ipynb"
AHEAD = 2  # notebooks that run while another is looked at
DAMAGED = b"\x89PNG\r\n\x1a\n" + bytes(200)
SEEN = "all => all.filter(e => e.offsetParent && e.offsetWidth > 0).map(e => [e.src, e.complete ? e.naturalWidth : 0])"


def pictures(panel: Locator) -> dict[str, int]:
    """The width in pixels of each picture that a reader meets who scrolls through the notebook, by its source."""
    found: dict[str, int] = {}
    scroller = panel.locator(".jp-WindowedPanel-outer")
    scroller.evaluate("e => e.scrollTop = 0")
    while True:
        for source, width in panel.locator(".jp-OutputArea-output img").evaluate_all(SEEN):
            found[source] = max(width, found.get(source, 0))
        if scroller.evaluate("e => { const at = e.scrollTop; e.scrollTop += 500; return e.scrollTop == at }"):
            return found
        time.sleep(0.2)


@pytest.fixture
def ahead(request: pytest.FixtureRequest) -> list[str]:
    """The notebooks that are looked at after this one; they may run meanwhile."""
    items = request.session.items
    following = [getattr(item, "callspec", None) for item in items[items.index(request.node) + 1 :]]
    names = [one.params["name"] for one in following if one and "name" in one.params]
    return names[:AHEAD]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_to_its_end_in_jupyterlab_and_shows_its_figures(lab: Lab, name: str, ahead: list[str]):
    for one in (name, *ahead):
        lab.start(one)
    panel = lab.ended(name)
    seen, notebook = pictures(panel), lab.saved(name)
    assert not errors(notebook)
    assert [cell.execution_count for cell in code_of(notebook)] == list(range(1, len(code_of(notebook)) + 1))
    outputs = [output.get("data", {}) for cell in code_of(notebook) for output in cell.outputs]
    drawn = [data["image/png"].replace("\n", "") for data in outputs if "image/png" in data]
    assert drawn and [seen.get(f"data:image/png;base64,{code}", 0) > 0 for code in drawn] == [True] * len(drawn)
    if name != EXPLORER:
        lab.close(name)


def png(colour: tuple[int, int, int]) -> bytes:
    """A PNG file of a bright disc on a plain background."""
    y, x = np.mgrid[:300, :400]
    pixels = np.full((300, 400, 3), colour, np.uint8)
    pixels[(y - 150) ** 2 + (x - 200) ** 2 < 90**2] = (250, 240, 20)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def choose(page: Page, panel: Locator, name: str, content: bytes) -> None:
    """Press the upload button from the keyboard and choose a file."""
    with page.expect_file_chooser() as chooser:
        panel.get_by_role("button", name="Upload a PNG or JPEG").press("Enter")
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def test_the_explorer_is_used_with_keyboard_and_mouse(lab: Lab):
    page, panel = lab.page, lab.ended(EXPLORER)
    box = panel.locator(".jp-OutputArea-output .widget-select-multiple").first
    box.scroll_into_view_if_needed()
    maps = panel.locator(".widget-html img[alt*='and its maps']")
    curves = panel.locator(".widget-html img[alt^='Deletion curves']")
    words = panel.locator(".widget-html p[role=status]")
    expect(maps).to_have_attribute("alt", "coffee and its maps by gradient, integrated gradients, gradcam, random, edges")

    # every field has a label, and Tab reaches it from the one before
    panel.get_by_label("Data set").focus()
    reached = []
    for _ in range(12):
        reached.append(page.evaluate("document.activeElement.closest('.jupyter-widgets')?.innerText.split('\\n')[0] ?? ''"))
        page.keyboard.press("Tab")
    for name in (
        "Data set",
        "Test image",
        "Upload a PNG or JPEG",
        "Network",
        "Class",
        "Methods",
        "Opacity (%)",
        "Deletion",
        "Stop",
    ):
        assert any(word.startswith(name) for word in reached), (name, reached)

    # another method by keyboard
    panel.get_by_label("Methods").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    expect(maps).to_have_attribute("alt", "coffee and its maps by guided backprop", timeout=60_000)
    assert panel.get_by_label("Methods").evaluate("e => e === document.activeElement")

    # the opacity by arrow keys: another picture of the same maps
    before = maps.get_attribute("src")
    handle = panel.locator(".widget-slider .noUi-handle")
    at = handle.get_attribute("aria-valuenow")
    handle.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    until(lambda: maps.get_attribute("src") != before)
    assert float(handle.get_attribute("aria-valuenow")) < float(at)
    assert handle.evaluate("e => e === document.activeElement"), "the arrow keys moved the focus out of the slider"

    # a picture of one's own
    choose(page, panel, "disc.png", png((20, 40, 160)))
    expect(maps).to_have_attribute("alt", re.compile("disc.png and its maps by"), timeout=60_000)
    expect(words.filter(has_text="disc.png: efficientnet_lite0 says")).to_be_visible()

    # the deletion curve, which grows
    panel.get_by_role("button", name="Deletion curve").focus()
    page.keyboard.press("Enter")
    seen = []
    until(lambda: seen.append(curves.get_attribute("alt") if curves.count() else "") or (seen[-1] and "so far" not in seen[-1]))
    assert len({text for text in seen if "so far" in text}) >= 2, seen
    assert curves.evaluate("e => e.naturalWidth") > 0

    # a damaged file: words, no traceback, and the picture stays
    choose(page, panel, "broken.png", DAMAGED)
    expect(panel.locator(".widget-html p[role=alert]")).to_contain_text("cannot be read as a PNG or JPEG picture")
    expect(maps).to_have_attribute("alt", re.compile("disc.png"))
    assert "Traceback" not in panel.inner_text()
