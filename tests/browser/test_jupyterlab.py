"""Every notebook in JupyterLab as a reader runs it, and the explorer as a reader uses it."""

import io
import json
import re
import time
import urllib.request
from contextlib import contextmanager

import nbformat
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from saliency_lib import paths

pytestmark = pytest.mark.browser
NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
LONGEST = 300  # seconds that a notebook may take
DAMAGED = b"\x89PNG\r\n\x1a\n" + bytes(200)


def until(what, seconds=60):
    """The first true value of `what()`; the test fails where there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.1)
    raise AssertionError(f"what the test waits for did not come within {seconds} s")


def ask(lab, path, method="GET"):
    request = urllib.request.Request(f"{lab.url}/api/{path}", method=method, headers={"Authorization": f"token {lab.token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def end_kernels(lab):
    for session in ask(lab, "sessions"):
        ask(lab, f"sessions/{session['id']}", "DELETE")


@contextmanager
def opened(page, lab, name):
    """The notebook in the window, without its stored outputs run to its end; its kernel ends with the test."""
    notebook = nbformat.read(lab.folder / name, 4)
    for cell in code_of(notebook):
        cell.outputs, cell.execution_count = [], None  # what is seen was made here
    nbformat.write(notebook, lab.folder / name)
    page.goto(f"{lab.url}/lab/workspaces/{name.removesuffix('.ipynb')}/tree/{name}?token={lab.token}&reset")
    panel = page.locator(".jp-NotebookPanel:visible")
    panel.wait_for()
    try:
        until(lambda: is_idle(lab, name))
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        until(lambda: is_idle(lab, name) and has_ended(saved(page, lab, name)), LONGEST)
        yield panel
    finally:
        end_kernels(lab)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def is_idle(lab, name):
    return [one["kernel"]["execution_state"] for one in ask(lab, "sessions") if one["path"] == name] == ["idle"]


def errors(notebook):
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]


def has_ended(notebook):
    """Whether every cell was run, or one failed, after which JupyterLab runs no other."""
    return bool(errors(notebook)) or all(cell.execution_count for cell in code_of(notebook))


def saved(page, lab, name):
    """The notebook as the user's Ctrl+S writes it."""
    before = (lab.folder / name).stat().st_mtime_ns
    page.keyboard.press("Control+s")
    end = time.monotonic() + 3  # JupyterLab does not write what has not changed
    while time.monotonic() < end and (lab.folder / name).stat().st_mtime_ns == before:
        time.sleep(0.1)
    return whole(lab.folder / name)


def whole(file):
    """The notebook in a file that JupyterLab may be writing at this moment."""
    end = time.monotonic() + 10
    while True:
        try:
            return nbformat.read(file, 4)
        except nbformat.reader.NotJSONError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def pictures(panel):
    """The width in pixels of each picture that a reader meets who scrolls through the notebook, by its source."""
    found = {}
    scroller = panel.locator(".jp-WindowedPanel-outer")
    scroller.evaluate("e => e.scrollTop = 0")
    while True:
        for source, width in panel.locator(".jp-OutputArea-output img").evaluate_all(SEEN):
            found[source] = max(width, found.get(source, 0))
        if scroller.evaluate("e => { const at = e.scrollTop; e.scrollTop += 500; return e.scrollTop == at }"):
            return found
        time.sleep(0.3)


SEEN = "all => all.filter(e => e.offsetParent && e.offsetWidth > 0).map(e => [e.src, e.complete ? e.naturalWidth : 0])"


@pytest.mark.parametrize("name", [file.name for file in NOTEBOOKS])
def test_a_notebook_runs_to_its_end_in_jupyterlab_and_shows_its_figures(page, lab, name):
    with opened(page, lab, name) as panel:
        seen, notebook = pictures(panel), saved(page, lab, name)
        assert not errors(notebook)
        assert [cell.execution_count for cell in code_of(notebook)] == list(range(1, len(code_of(notebook)) + 1))
        outputs = [output.get("data", {}) for cell in code_of(notebook) for output in cell.outputs]
        drawn = [data["image/png"].replace("\n", "") for data in outputs if "image/png" in data]
        assert drawn and [seen.get(f"data:image/png;base64,{code}", 0) > 0 for code in drawn] == [True] * len(drawn)


def png(colour):
    """A PNG file of a bright disc on a plain ground."""
    y, x = np.mgrid[:300, :400]
    pixels = np.full((300, 400, 3), colour, np.uint8)
    pixels[(y - 150) ** 2 + (x - 200) ** 2 < 90**2] = (250, 240, 20)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def choose(page, panel, name, content):
    """Press the upload button from the keyboard and choose a file."""
    with page.expect_file_chooser() as chooser:
        panel.get_by_role("button", name="Upload a PNG or JPEG").press("Enter")
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def test_the_explorer_is_used_with_keyboard_and_mouse(page, lab):
    with opened(page, lab, "00_explore.ipynb") as panel:
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
        until(
            lambda: seen.append(curves.get_attribute("alt") if curves.count() else "") or (seen[-1] and "so far" not in seen[-1])
        )
        assert len({text for text in seen if "so far" in text}) >= 2, seen
        assert curves.evaluate("e => e.naturalWidth") > 0

        # a damaged file: words, no traceback, and the picture stays
        choose(page, panel, "broken.png", DAMAGED)
        expect(panel.locator(".widget-html p[role=alert]")).to_contain_text("cannot be read as a PNG or JPEG picture")
        expect(maps).to_have_attribute("alt", re.compile("disc.png"))
        assert "Traceback" not in panel.inner_text()
