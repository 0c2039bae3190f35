"""Checks of the built site in a real browser; `make check` runs them.

Every page is opened in light and dark mode and at the width of a desktop and of a phone. With
``SCREENSHOTS=1`` pictures of all of these are left in ``_build/screenshots``.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from book_assets import AXE, vendor
from playwright.sync_api import Browser, Page, sync_playwright

pytestmark = pytest.mark.site

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
SCREENSHOTS = ROOT / "_build" / "screenshots"
PAGES = sorted(
    path.relative_to(HTML).as_posix()
    for path in HTML.rglob("*.html")
    if path.relative_to(HTML).parts[0] not in ("_static", "_modules")
)
CHAPTERS = [page for page in PAGES if (HTML / "_sources" / page).with_suffix(".ipynb").is_file()]
WIDTHS = {"desktop": 1280, "phone": 390}
QUIET = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Silent, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail("no Chromium found; install it, or name it with CHROMIUM=/path/to/it")
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=QUIET + root)
        yield running
        running.close()


@pytest.fixture(scope="session")
def axe() -> str:
    return (vendor((AXE,)) / "vendor" / "axe" / "axe.min.js").read_text("utf8")


class Visit:
    """One page, opened, with what it asked for and complained about."""

    def __init__(self, browser: Browser, address: str, page: str, mode: str, width: int) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=mode)
        self.context.add_init_script(f"localStorage.setItem('mode','{mode}');localStorage.setItem('theme','{mode}')")
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", self._response)
        self.page.on("console", self._console)
        self.page.goto(address + page, wait_until="networkidle")
        self.page.wait_for_timeout(300)

    def _response(self, response: object) -> None:
        if response.status >= 400:  # type: ignore[attr-defined]
            self.complaints.append(f"{response.status} {response.url}")  # type: ignore[attr-defined]

    def _console(self, message: object) -> None:
        if message.type in ("error", "warning"):  # type: ignore[attr-defined]
            self.complaints.append(message.text)  # type: ignore[attr-defined]


@pytest.fixture(params=[(mode, width) for mode in ("light", "dark") for width in WIDTHS], ids="-".join)
def visit(request: pytest.FixtureRequest, browser: Browser, address: str, page: str) -> Iterator[Visit]:
    mode, width = request.param
    opened = Visit(browser, address, page, mode, WIDTHS[width])
    if os.environ.get("SCREENSHOTS"):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        name = page.replace("/", "_").removesuffix(".html")
        opened.page.screenshot(path=SCREENSHOTS / f"{name}-{mode}-{width}.png", full_page=True)
    yield opened
    opened.context.close()


def test_there_is_a_site() -> None:
    assert "index.html" in PAGES, f"no site in {HTML}; `make book` builds it"
    assert len(CHAPTERS) >= 1


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole_and_accessible(visit: Visit, address: str, page: str, axe: str) -> None:
    strangers = [url for url in visit.requests if not url.startswith((address, "data:", "blob:"))]
    assert strangers == [], "requests to another host"
    assert visit.complaints == []
    found = visit.page.evaluate(
        """() => ({
            width: document.documentElement.scrollWidth - document.documentElement.clientWidth,
            unnamed: [...document.images].filter(i => !i.alt.trim() || /\\.(png|svg|jpe?g)$/.test(i.alt)).map(i => i.src),
            broken: [...document.images].filter(i => i.loading !== 'lazy' && !i.naturalWidth).map(i => i.src),
            diagrams: document.querySelectorAll('pre.mermaid').length,
            drawn: document.querySelectorAll('pre.mermaid > svg').length,
            formulas: document.querySelectorAll('.math').length,
            typeset: document.querySelectorAll('.math mjx-container').length,
            wrong: document.querySelectorAll('mjx-merror, [data-mjx-error]').length,
        })"""
    )
    assert found["width"] <= 0, "the page scrolls sideways"
    assert found["unnamed"] == [], "images without alternative text"
    assert found["broken"] == []
    assert found["drawn"] == found["diagrams"]
    assert found["typeset"] == found["formulas"]
    assert found["wrong"] == 0
    visit.page.evaluate(axe)
    tags = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']"
    violations = visit.page.evaluate(
        f"axe.run(document, {{runOnly: {tags}}}).then(r => r.violations.map("
        "v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(' | ')))"
    )
    assert violations == []


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors |= {value for key in ("id", "name") if (value := given.get(key))}
        if tag == "a" and given.get("href"):
            self.links.add(str(given["href"]))


@functools.cache
def _links(page: str) -> _Links:
    parser = _Links()
    parser.feed((HTML / page).read_text("utf8"))
    return parser


@pytest.mark.parametrize("page", PAGES)
def test_internal_links_and_anchors_exist(page: str) -> None:
    missing = []
    for link in _links(page).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        path = unquote(parts.path)
        target = (HTML / page).parent / path if not path.startswith("/") else HTML / path[1:]
        target = (target if path else HTML / page).resolve()
        if target.is_dir():
            target /= "index.html"
        if not target.is_file():
            missing.append(link)
        elif parts.fragment and target.suffix == ".html":
            anchors = _links(target.relative_to(HTML.resolve()).as_posix()).anchors
            if unquote(parts.fragment) not in anchors:
                missing.append(link)
    assert missing == []


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapters_notebook_is_executed_and_reads_well(page: str) -> None:
    notebook = nbformat.read((HTML / "_sources" / page).with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code)
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert "{glue:" not in json.dumps(notebook)
    link = f"_sources/{Path(page).with_suffix('.ipynb').as_posix()}"
    assert any(href.endswith(link) for href in _links(page).links), "no button to download it"


def test_search_finds_a_term(browser: Browser, address: str) -> None:
    opened = Visit(browser, address, "search.html?q=degradation", "light", 1280)
    opened.page.wait_for_selector("#search-results li a", timeout=10_000)
    links = opened.page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any("book/degradation.html" in link for link in links)
    assert opened.complaints == []
    opened.context.close()


def test_the_theme_can_be_switched_and_diagrams_stay(browser: Browser, address: str) -> None:
    opened = Visit(browser, address, "book/degradation.html", "light", 1280)
    before = opened.page.evaluate("document.documentElement.dataset.theme")
    opened.page.click("button.theme-switch-button")
    opened.page.wait_for_timeout(800)
    assert opened.page.evaluate("document.documentElement.dataset.mode") != "light" or before != "light"
    assert opened.page.locator("pre.mermaid > svg").count() == opened.page.locator("pre.mermaid").count() > 0
    assert opened.complaints == []
    opened.context.close()
