"""A real browser and a real JupyterLab for the tests of this folder; a picture of the window when a test fails."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from saliency_lib import paths

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SETTINGS = {  # nothing that opens by itself
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": '{"fetchNews": "false", "checkForUpdates": false}',
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": '{"autosave": false}',
}
LONGEST = 300  # seconds that a notebook may take


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true value of `what()`; the test fails if there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.1)
    raise AssertionError(f"what the test waits for did not come within {seconds} s")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the one that the variable CHROMIUM names."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not program or not Path(program).exists():
        pytest.fail(f"there is no Chromium ({program or 'chromium'}); run `apt-get install chromium`, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


def new_page(browser: Browser) -> Page:
    """A window of a laptop's size."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=False)
    context.set_default_timeout(60_000)
    return context.new_page()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window for one test."""
    window = new_page(browser)
    yield window
    window.context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    if report.failed and call.when == "call":
        windows = [getattr(value, "page", value) for value in item.funcargs.values()]
        folder = paths.OUTPUTS / "browser"
        folder.mkdir(parents=True, exist_ok=True)
        for window in (one for one in windows if isinstance(one, Page)):
            window.screenshot(path=folder / (re.sub(r"[^\w.-]+", "_", item.name) + ".png"))
    return report


@dataclass
class Lab:
    """A JupyterLab in one window, with the notebooks as its tabs.

    Args:
        page: the window.
        url, token: of the server.
        folder: the notebooks that it shows.
        running: names of the notebooks that were started and not closed.
    """

    page: Page
    url: str
    token: str
    folder: Path
    running: list[str] = field(default_factory=list)

    def start(self, name: str) -> None:
        """Open a notebook from the list of files, and run all its cells, if that was not done before."""
        if name in self.running:
            return
        self.running.append(name)
        self.page.locator(".jp-DirListing-item", has_text=name).dblclick()
        self.page.locator(f".jp-NotebookPanel:visible[aria-label='{name}'], .jp-NotebookPanel:visible").first.wait_for()
        until(lambda: self.is_idle(name))
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def ended(self, name: str) -> Locator:
        """The panel of a notebook, in front of the others, that has run to its end."""
        self.start(name)
        self.tab(name).click()
        until(lambda: self.is_idle(name) and has_ended(self.saved(name)), LONGEST)
        return self.page.locator(".jp-NotebookPanel:visible")

    def close(self, name: str) -> None:
        """Close the tab of a notebook, and end its kernel."""
        self.tab(name).locator(".lm-TabBar-tabCloseIcon").click()
        for session in self.ask("sessions"):
            if session["path"] == name:
                self.ask(f"sessions/{session['id']}", "DELETE")
        self.running.remove(name)

    def tab(self, name: str) -> Locator:
        """The tab of a notebook."""
        return self.page.locator("#jp-main-dock-panel .lm-TabBar-tab", has_text=name)

    def ask(self, path: str, method: str = "GET") -> Any:
        """What the server answers."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def is_idle(self, name: str) -> bool:
        """Whether the kernel of a notebook has nothing to do."""
        return [one["kernel"]["execution_state"] for one in self.ask("sessions") if one["path"] == name] == ["idle"]

    def saved(self, name: str) -> NotebookNode:
        """The notebook in front as the user's Ctrl+S writes it."""
        file = self.folder / name
        before = file.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")
        end = time.monotonic() + 3  # JupyterLab does not write what has not changed
        while time.monotonic() < end and file.stat().st_mtime_ns == before:
            time.sleep(0.1)
        return until(lambda: whole(file), 10)


def whole(file: Path) -> NotebookNode | None:
    """The notebook in a file; None while JupyterLab is writing it."""
    try:
        return nbformat.read(file, 4)
    except nbformat.reader.NotJSONError:
        return None


def code_of(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells of a notebook that have code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def errors(notebook: NotebookNode) -> list[str]:
    """The errors that cells of a notebook have raised."""
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]


def has_ended(notebook: NotebookNode) -> bool:
    """Whether every cell was run, or one failed, after which JupyterLab runs no other."""
    return bool(errors(notebook)) or all(cell.execution_count for cell in code_of(notebook))


@pytest.fixture(scope="session")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab on a copy of the notebooks without their outputs, so that what is seen was made here."""
    place = tmp_path_factory.mktemp("lab")
    folder = place / "notebooks"
    folder.mkdir()
    for file in paths.NOTEBOOKS.glob("*.ipynb"):
        notebook = nbformat.read(file, 4)
        for cell in code_of(notebook):
            cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / file.name)
    for name, content in SETTINGS.items():
        file = place / "settings" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    words = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    words += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    words += [f"--IdentityProvider.token={token}", "--LabApp.extension_manager=readonly"]
    words += [f"--LabApp.user_settings_dir={place / 'settings'}", f"--LabApp.workspaces_dir={place / 'workspaces'}"]
    words += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(place / "config"), "TQDM_DISABLE": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    url = f"http://127.0.0.1:{port}"
    with (place / "log.txt").open("w") as log:
        server = subprocess.Popen(words, cwd=paths.ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(f"{url}/api/status?token={token}", server, place / "log.txt")
            window = new_page(browser)
            window.goto(f"{url}/lab?token={token}")
            window.locator(".jp-DirListing-item").first.wait_for()
            yield Lab(window, url, token, folder)
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
