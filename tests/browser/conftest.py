"""A real browser and a real JupyterLab for the tests of this folder; a picture of what was seen when one fails."""

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
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import sync_playwright

from saliency_lib import paths

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
SETTINGS = {  # nothing that opens by itself
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": '{"fetchNews": "false", "checkForUpdates": false}',
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": '{"autosave": false}',
}


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, or the one that the variable CHROMIUM names."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not program or not Path(program).exists():
        pytest.fail(f"there is no Chromium ({program or 'chromium'}); run `apt-get install chromium`, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def page(browser, request):
    """A window of a laptop's size; its picture goes to outputs/browser/ when the test fails."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=False)
    context.set_default_timeout(60_000)
    window = context.new_page()
    yield window
    if getattr(request.node, "failed", False):
        folder = paths.OUTPUTS / "browser"
        folder.mkdir(parents=True, exist_ok=True)
        window.screenshot(path=folder / (re.sub(r"[^\w.-]+", "_", request.node.name) + ".png"))
    context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.failed = True
    return report


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A JupyterLab on a copy of the notebooks: `.url`, `.token`, `.folder`."""
    place = tmp_path_factory.mktemp("lab")
    folder = place / "notebooks"
    shutil.copytree(paths.NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
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
            yield SimpleNamespace(url=url, token=token, folder=folder)
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
