"""The site as a reader walks through it: every link once, from the file system, on a laptop and on a phone."""

from urllib.parse import urldefrag

import pytest

from docs import __main__ as site
from saliency_lib import paths
from tests.conftest import take_stored_notebooks_as_executed

pytestmark = pytest.mark.browser
START = paths.OUTPUTS / "report" / "html" / "index.html"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The start page of the site in outputs/report/ or, if there is none, of a site made from the stored notebooks."""
    if START.is_file():
        yield START
    else:
        with pytest.MonkeyPatch.context() as patch:
            take_stored_notebooks_as_executed(patch, tmp_path_factory.mktemp("site"))
            yield site.build()


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_of_the_site_is_whole_and_fits_the_window(page, start, width):
    page.set_viewport_size({"width": width, "height": 800})
    faults = []
    home = start.parent.as_uri() + "/"
    page.on("console", lambda message: faults.append((page.url, "console", message.text)) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append((page.url, "script", str(error))))
    page.on("requestfailed", lambda request: faults.append((page.url, "failed", request.url)))
    page.on(
        "request",
        lambda request: faults.append((page.url, "outside", request.url)) if not _is_inside(request.url, home) else None,
    )
    waiting, seen = [start.as_uri()], set()
    while waiting:
        url = waiting.pop()
        seen.add(url)
        page.goto(url)
        facts = page.evaluate(FACTS)
        if not facts["heading"]:
            faults.append((url, "no heading", ""))
        if facts["width"] > facts["window"]:
            faults.append((url, "too wide", f"{facts['width']} in {facts['window']}: {facts['widest']}"))
        faults += [(url, "picture not loaded", source) for source in facts["broken"]]
        for link in facts["links"]:
            target = urldefrag(link).url
            if target.startswith(home) and target.endswith(".html") and target not in seen and target not in waiting:
                waiting.append(target)
    assert not faults, "\n".join(" | ".join(fault) for fault in faults)
    assert len(seen) > 3
    pages = (p for p in start.parent.rglob("*.html") if not {"_static", "_sphinx_design_static"} & set(p.parts))
    missing = {p.as_uri() for p in pages if p.name != "search.html"} - seen  # the search field leads there
    assert not missing, f"no link leads to {sorted(missing)}"


def _is_inside(url, home):
    return url.startswith((home, "data:", "blob:", "about:"))


FACTS = """async () => {
  for (const image of document.images) image.loading = 'eager';
  await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
  const root = document.scrollingElement, inside = innerWidth;
  const wide = [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > inside + 1);
  return {
    heading: [...document.querySelectorAll('h1')].some(h => h.innerText.trim() && h.offsetParent !== null),
    width: root.scrollWidth, window: inside, widest: wide.slice(0, 3).map(e => e.tagName + '.' + e.className).join(', '),
    broken: [...document.images].filter(image => !image.naturalWidth).map(image => image.src.slice(0, 200)),
    links: [...document.links].map(link => link.href),
  };
}"""
